"""What a stack does to its clone, and what it says."""

import hugging_face
import pytest
import torch
from lane_check import check_stack
from models import Mlp, regression_data, regression_loss
from one_lane import assert_lanes_exact, stacked
from torch import nn

from sltfast.clone import structural_clone
from sltfast.restriction import Restriction
from sltfast.stacking import GuardedWeight, Piece, Stack, refusal


def mlp() -> Mlp:
    return Mlp().double().eval()


def data(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = regression_data(rows)
    return x.double(), y.double()


def test_rows_are_lane_major() -> None:
    stack = stacked(mlp(), None, lanes=2)
    batch = {"x": torch.tensor([[1.0], [2.0], [3.0]]), "n": (torch.arange(3), 5)}
    folded = stack.expand(batch)
    assert folded["x"].flatten().tolist() == [1, 2, 3, 1, 2, 3]
    assert folded["n"][0].tolist() == [0, 1, 2, 0, 1, 2]
    assert folded["n"][1] == 5


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_any_number_of_lanes(lanes: int) -> None:
    model = mlp()
    stack = stacked(model, None, lanes)
    assert check_stack(stack, regression_loss, data()) is None
    assert set(stack.rungs.values()) == {"registry"}
    assert_lanes_exact(model, stack, regression_loss, data(7), rows=7)


def test_restore_gives_the_clone_back() -> None:
    model = mlp()
    clone = structural_clone(model, torch.device("cpu"))
    before = [(id(p), p.data_ptr()) for p in clone.parameters()]
    leaf = torch.zeros(2, 5, 3, dtype=torch.float64, requires_grad=True)
    (segment,) = Restriction.of(model, ["first.weight"]).segments
    stack = Stack(clone, {"first.weight": [Piece(segment, leaf)]}, 2)
    assert "forward" in vars(clone.first)
    stack.restore()
    assert "forward" not in vars(clone.first)
    assert [(id(p), p.data_ptr()) for p in clone.parameters()] == before


def test_check_leaves_leaves_and_clone_alone() -> None:
    model = mlp()
    stack = stacked(model, None, lanes=4)
    leaves = [piece.leaf for pieces in stack.pieces.values() for piece in pieces]
    before = [leaf.detach().clone() for leaf in leaves]
    state, star = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    assert check_stack(stack, regression_loss, data()) is None
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(leaves, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), star, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert stack.lanes == 4


def test_steps_in_place_show_in_the_next_forward() -> None:
    stack = stacked(mlp(), None, lanes=2)
    before = regression_loss(stack.model, stack.expand(data()))
    with torch.no_grad():
        stack.pieces["second.bias"][0].leaf[1] += 1.0
    after = regression_loss(stack.model, stack.expand(data()))
    assert torch.equal(before[:3], after[:3])
    assert not torch.isclose(before[3:], after[3:]).any()


def test_guard_lets_metadata_through_and_refuses_to_compute() -> None:
    clone = stacked(mlp(), None, lanes=2).model
    weight = clone.first.weight
    assert weight.shape == (5, 3)
    assert weight.dtype == torch.float64
    assert weight.device.type == "cpu"
    assert next(clone.parameters()).is_floating_point()
    assert torch.zeros(1).to(weight).dtype == torch.float64
    with pytest.raises(GuardedWeight, match=r"'weight' of module 'first'"):
        weight.sum()
    with pytest.raises(GuardedWeight, match="linear"):
        nn.functional.linear(torch.zeros(1, 3, dtype=torch.float64), weight)


class Thief(nn.Module):
    """Reads its child's weight without calling the child."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.outer = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer(x @ self.inner[0].weight).squeeze(-1)


def test_a_module_that_reads_anothers_weight_becomes_a_unit() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Thief(), nn.Identity()).double().eval()
    stack = stacked(model, ["0.*", "1.*"], lanes=3)

    def losses(called: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return (called(batch[0]) - batch[1]) ** 2

    assert check_stack(stack, losses, data()) is None
    assert stack.rungs == {"0": "registry", "1": "vmap"}
    assert_lanes_exact(model, stack, losses, data(4), rows=4)


class Mixing(nn.Module):
    """Centres by the batch's mean: folded lanes would see each other."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x).squeeze(-1)
        return y - y.mean()


def test_a_model_that_mixes_rows_is_run_whole() -> None:
    model = Mixing().double()
    stack = stacked(model, None, lanes=3)
    assert check_stack(stack, regression_loss, data()) is None
    assert stack.rungs == {"": "vmap"}
    assert_lanes_exact(model, stack, regression_loss, data(4), rows=4)


def test_a_loss_that_mixes_rows_is_refused() -> None:
    stack = stacked(mlp(), None, lanes=3)

    def centred(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        losses = regression_loss(model, batch)
        return losses - losses.mean()

    reason = check_stack(stack, centred, data())
    assert reason is not None
    assert "losses of lane" in reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_check_in_other_precisions(dtype: torch.dtype) -> None:
    """Rounding passes, lanes that mix do not."""
    model = hugging_face.tiny("Llama").to(dtype)
    ids = torch.arange(21).view(3, 7)

    def own(called: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        logits = called(ids).logits[:, :-1].float()
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return losses.view(len(ids), -1)

    def mixed(called: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        losses = own(called, ids)
        return losses if len(ids) == 3 else losses.roll(3, 0)

    assert check_stack(stacked(model, None, lanes=3), own, ids) is None
    reason = check_stack(stacked(model, None, lanes=3), mixed, ids)
    assert reason is not None
    assert "losses of lane 0" in reason


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x + 0.1 * torch.randn_like(x)).squeeze(-1)


def test_a_random_forward_is_refused() -> None:
    reason = check_stack(stacked(Noisy().double().eval(), None, lanes=2), regression_loss, data())
    assert reason is not None
    assert "random numbers" in reason


def test_train_mode_refusals() -> None:
    assert refusal(Mlp(dropout=0.5).eval()) is None
    assert "drops out" in (refusal(Mlp(dropout=0.5).train()) or "")
    assert "statistics" in (refusal(nn.Sequential(nn.BatchNorm1d(3)).train()) or "")
    assert "statistics" in (refusal(nn.BatchNorm1d(3, track_running_stats=False).eval()) or "")
    model = hugging_face.tiny("Llama", attention_dropout=0.5)
    assert refusal(model) is None
    assert "drops out" in (refusal(model.train()) or "")


def test_bad_weights() -> None:
    model = mlp()
    (segment,) = Restriction.of(model, ["first.weight"]).segments
    clone = structural_clone(model, torch.device("cpu"))
    leaf = torch.zeros(2, 5, 3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(KeyError, match="no parameter 'third'"):
        Stack(clone, {"third": [Piece(segment, leaf)]}, 2)
    with pytest.raises(ValueError, match=r"must have shape \(3, 5, 3\)"):
        Stack(clone, {"first.weight": [Piece(segment, leaf)]}, 3)
    with pytest.raises(ValueError, match="no weights move"):
        Stack(clone, {}, 2)
    assert "forward" not in vars(clone.first)
