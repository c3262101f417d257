"""Losses in which the rows of a batch depend on each other are never folded: lanes would mix."""

import numpy as np
import pytest
import torch
from models import regression_data, regression_loss
from torch import Tensor, nn

import sltfast

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "num_chains": 3, "num_draws": 8, "batch_size": 4, "num_init_loss_batches": 0,
    "progress": False, "loss_fn": regression_loss,
}  # fmt: skip


class Mixing(nn.Module):
    """An MLP with something between its layers that looks at all rows together."""

    def __init__(self, mix, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 1)
        self.mix = mix
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.mix(torch.tanh(self.first(x)))).squeeze(-1)


def centred(h: Tensor) -> Tensor:
    return h - h.mean(0, keepdim=True)


def scaled(h: Tensor) -> Tensor:
    return h / h.norm()


def half_of_the_rows(h: Tensor) -> Tensor:
    """Those with the largest first coordinate, as experts choose their tokens."""
    chosen = h[:, 0].topk(max(1, len(h) // 2)).indices
    return torch.zeros_like(h).index_copy(0, chosen, h[chosen])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mix", [centred, scaled, half_of_the_rows])
def test_rows_that_look_at_each_other_are_not_folded(mix, dtype):
    data = tuple(part.to(dtype) for part in regression_data())
    model = Mixing(mix, dtype)
    tree = sltfast.sample(model, data, **SETTINGS)
    assert tree.attrs["sltfast"]["plan"]["engine"] != "stacked"
    assert "stacked: " in tree.attrs["sltfast"]["plan"]["engine_reason"]
    alone = sltfast.sample(model, data, engine="sequential", **SETTINGS)
    # the same noise; losses of order 1, eight steps, a few dozen roundings each
    rounding = 100 * torch.finfo(dtype).eps
    np.testing.assert_allclose(tree["loss"], alone["loss"], rtol=min(rounding, 0.1), atol=min(rounding, 0.1))


def test_a_model_of_bfloat16_whose_rows_are_its_own_is_folded():
    data = tuple(part.bfloat16() for part in regression_data())
    tree = sltfast.sample(Mixing(torch.sin, torch.bfloat16), data, **SETTINGS)
    assert tree.attrs["sltfast"]["plan"]["engine"] == "stacked"


def test_a_loss_that_insists_on_bfloat16_is_folded():
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0].bfloat16()) - batch[1].bfloat16()) ** 2

    data = tuple(part.bfloat16() for part in regression_data())
    tree = sltfast.sample(Mixing(torch.sin, torch.bfloat16), data, **{**SETTINGS, "loss_fn": loss})
    assert tree.attrs["sltfast"]["plan"]["engine"] == "stacked"
