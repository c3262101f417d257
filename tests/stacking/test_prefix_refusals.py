"""What shares nothing and why, what is refused, and what is left of an expansion afterwards."""

import pytest
import torch
from architectures import classification_loss, images
from models import Mlp, regression_data, regression_loss, token_rows
from prefix_models import cloned, each_lane, language_model, next_token, seeded
from torch import nn

from sltfast.stacking.prefix import Expansion, Memo

BATCH = {"input_ids": token_rows(3, 6)}
MIDDLE = "model.layers.1.mlp.up_proj.weight"


def llama():
    return cloned(language_model("llama"))


def expanded(model, moving=MIDDLE, batch=BATCH, memo=None):
    return Expansion(model, [moving], next_token(model), batch, memo)


def test_reasons():
    model = llama()
    assert (
        "model.embed_tokens.weight moves, and model is given no activations"
        in expanded(model, "model.embed_tokens.weight").reason
    )
    x, y = regression_data(4)
    perceptron = Mlp()
    assert "nothing is called before first" in Expansion(perceptron, ["first.bias"], regression_loss, (x, y)).reason
    unread = nn.ModuleDict({"used": nn.Linear(3, 1), "idle": nn.Linear(3, 1)})
    holder = seeded(lambda: Holder(unread))
    found = Expansion(holder, ["parts.idle.weight"], regression_loss, (x, y))
    assert (found.point, found.suffix_share) == (None, 1.0)
    assert found.blocks == []


class Holder(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x):
        return self.parts["used"](x).squeeze(-1)


def test_a_model_whose_later_code_asks_the_batch_shares_nothing():
    class Counting(Mlp):
        def forward(self, x):
            hidden = torch.tanh(self.first(x))
            return self.second(hidden)[: len(x), 0]

    model = seeded(Counting)
    found = Expansion(model, ["second.weight"], regression_loss, regression_data(4))
    assert found.point is None
    assert "lanes cannot part at second" in found.reason


def test_dropout_below_is_refused_and_above_is_not():
    model = Mlp(dropout=0.5).train()
    found = Expansion(model, ["second.weight"], regression_loss, regression_data(4))
    assert found.point is None
    assert "random numbers are drawn before second" in found.reason
    model.eval()
    assert Expansion(model, ["second.weight"], regression_loss, regression_data(4)).point == "second"
    above = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1), nn.Flatten(0)).train()
    assert Expansion(above, ["1.weight"], regression_loss, regression_data(4)).point == "1"


def test_batch_norm_in_train_mode_below_sees_one_lane():
    def make():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        )

    model = cloned(seeded(make).double().train())
    x, y = images(4)
    batch = (x.double(), y)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = Expansion(model, ["5.weight"], classification_loss, batch)
    assert found.point == "5"
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    plain = classification_loss(model, batch)
    with found.on(3):
        shared = classification_loss(model, (batch[0].repeat(3, 1, 1, 1), y.repeat(3)))
    torch.testing.assert_close(shared, plain.repeat(3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("moving", "match"), [(["lm_head.scale"], r"got \['lm_head.scale'\]"), ([], r"got \[\]")])
def test_names_that_the_model_does_not_have(moving, match):
    model = llama()
    with pytest.raises(ValueError, match=match):
        Expansion(model, moving, next_token(model), BATCH)


def test_bad_calls():
    model = llama()
    loss, found = next_token(model), expanded(model)
    with pytest.raises(ValueError, match="lanes must be >= 1, got 0"):
        found.on(0)
    with pytest.raises(ValueError, match="9 rows, which 2 lanes do not share evenly"), found.on(2):
        loss(model, each_lane(BATCH, 3))
    with pytest.raises(RuntimeError, match="share already"), found.on(2), found.on(2):
        pass
    masked = BATCH | {"attention_mask": torch.ones_like(BATCH["input_ids"])}
    with pytest.raises(RuntimeError, match="was traced with"), found.on(2):
        loss(model, each_lane(masked, 2))
    torch.testing.assert_close(loss(model, BATCH), loss(llama(), BATCH), rtol=0, atol=0)


def test_a_failure_leaves_gradients_and_the_model_as_they_were():
    model = llama()
    loss, found = next_token(model), expanded(model)
    handle = model.model.layers[0].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), found.on(2):
        loss(model, each_lane(BATCH, 2))
    assert torch.is_grad_enabled()
    handle.remove()
    with found.on(2):
        values = loss(model, each_lane(BATCH, 2))
    assert torch.equal(values[:3], loss(model, BATCH))


def test_masks_that_hide_nothing_come_and_go():
    """The libraries drop such masks, so that blocks are given None or a tensor from batch to batch."""
    model = llama()
    loss = next_token(model)
    whole = BATCH | {"attention_mask": torch.ones_like(BATCH["input_ids"])}
    hidden = {name: column.clone() for name, column in whole.items()}
    hidden["attention_mask"][0, :2] = 0
    for example in (whole, hidden):
        found = expanded(model, batch=example)
        for batch in (whole, hidden):
            with found.on(4):
                values = loss(model, each_lane(batch, 4)).view(4, 3, -1)
            torch.testing.assert_close(values, loss(model, batch).expand(4, 3, -1), rtol=1e-12, atol=1e-12)
        found.restore()


def test_gradients_of_what_does_not_move_are_not_asked_for():
    model = llama()
    loss, found = next_token(model), expanded(model)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    with found.on(2):
        loss(model, each_lane(BATCH, 2)).sum().backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad is None
    assert model.model.layers[1].mlp.up_proj.weight.grad is not None


def test_restore_takes_everything_off():
    model = llama()
    before = {name: (dict(vars(module)), len(module._forward_hooks)) for name, module in model.named_modules()}
    found = expanded(model, memo=Memo(10**6))
    assert "forward" in vars(model.model.layers[0])
    found.restore()
    for name, module in model.named_modules():
        held, hooks = before[name]
        assert vars(module).keys() == held.keys()
        assert len(module._forward_hooks) == hooks
        assert not module._forward_pre_hooks
    with found.on(3, ("text", 0)):
        assert len(next_token(model)(model, BATCH)) == 3


def test_nothing_of_the_model_is_written_to():
    model = llama()
    state, requires = torch.get_rng_state(), [parameter.requires_grad for parameter in model.parameters()]
    weights = [parameter.clone() for parameter in model.parameters()]
    expanded(model, memo=Memo(10**6))
    assert torch.equal(state, torch.get_rng_state())
    assert [parameter.requires_grad for parameter in model.parameters()] == requires
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_shares_fall_with_depth():
    model = llama()
    shares = [expanded(model, f"model.layers.{layer}.mlp.up_proj.weight").suffix_share for layer in range(3)]
    head = expanded(model, "lm_head.weight").suffix_share
    assert shares[0] == 1.0
    assert shares[0] > shares[1] > shares[2] > head > 0
