"""Prefix sharing against every lane run alone through the whole model, weights different in each, in float64."""

import pytest
import torch
from architectures import classification_loss, images
from models import regression_data, regression_loss, token_rows
from prefix_models import (
    FAMILIES,
    PerLane,
    Residual,
    alone,
    cloned,
    each_lane,
    lane_weights,
    language_model,
    lens,
    mlp,
    next_token,
    seeded,
)

from sltfast.stacking.prefix import Expansion, Memo


def padded(rows, tokens, family=""):
    ids = token_rows(rows, tokens)
    mask = torch.ones_like(ids)
    if family in ("gemma2", "bloom"):
        # their softmax is float32, where float64's lowest number makes NaN of a query that sees no key
        mask[0, -1] = 0
    else:
        mask[0, tokens // 2 :] = 0
        mask[-1, : tokens // 3] = 0
    return {"input_ids": ids, "attention_mask": mask}


def middle(family):
    """A weight of the middle block, and that block."""
    name = FAMILIES[family][1]
    return name, name[: name.index(".1.") + 2]


def check(model, name, loss, batch, repeated, lanes, point, memo=None, tolerance=1e-9):
    close = {"rtol": tolerance, "atol": tolerance}  # float64: the same sums in another order
    weights = lane_weights(model, name, lanes)
    losses, gradients = alone(model, name, weights, loss, batch)
    expansion = Expansion(model, [name], loss, batch, memo)
    assert expansion.point == point, expansion.reason
    with PerLane(model, name, weights):
        for key in (None, ("step", 1), ("step", 1)):
            with expansion.on(lanes, key):
                values = loss(model, repeated)
            rows = values.view(lanes, -1, *values.shape[1:])
            torch.testing.assert_close(rows, losses, **close)
            total = rows.flatten(1).mean(1).sum()
            torch.testing.assert_close(torch.autograd.grad(total, weights)[0], gradients, **close)
    expansion.restore()
    return expansion


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["whole", "padded"])
def test_language_models(family, kind):
    model = cloned(language_model(family))
    name, point = middle(family)
    batch = padded(3, 7, family) if kind == "padded" else {"input_ids": token_rows(3, 7)}
    memo = Memo(10**7)
    expansion = check(model, name, next_token(model), batch, each_lane(batch, 4), 4, point, memo)
    assert memo.hits == 1, expansion.memo_reason
    assert len(expansion.blocks) == 3


@pytest.mark.parametrize("family", ["gemma2", "bloom"])
def test_eager_masks_of_left_padding(family):
    model = cloned(language_model(family).float())
    name, point = middle(family)
    # float32: roundings of losses near 4, times the few tens of sums that they go through
    check(model, name, next_token(model), padded(3, 7), each_lane(padded(3, 7), 3), 3, point, tolerance=2e-5)


def test_transformer_lens():
    model = cloned(lens())
    for batch in (padded(3, 7), {"input_ids": token_rows(3, 7)}):
        memo = Memo(10**7)
        name = "blocks.1.attn.W_Q"
        check(model, name, next_token(model), batch, each_lane(batch, 3), 3, "blocks.1", memo)
        assert memo.hits == 1
        assert memo.misses == 1


@pytest.mark.parametrize(
    ("rows", "tokens", "lanes"),
    [(1, 5, 3), (5, 5, 3), (2, 6, 3), (3, 2, 1), (1, 4, 1), (2, 8, 4), (7, 3, 5), (4, 2, 2)],
)
@pytest.mark.parametrize("family", ["llama", "bloom", "gemma2"])
def test_sizes_that_look_alike(family, rows, tokens, lanes):
    model = cloned(language_model(family))
    name, point = middle(family)
    for batch in ({"input_ids": token_rows(rows, tokens)}, padded(rows, tokens, family)):
        check(model, name, next_token(model), batch, each_lane(batch, lanes), lanes, point, Memo(10**7))


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("gpt_neox.layers.0.mlp.dense_4h_to_h.bias", "gpt_neox.layers.0"),
        ("gpt_neox.layers.2.input_layernorm.weight", "gpt_neox.layers.2"),
        ("gpt_neox.final_layer_norm.weight", "gpt_neox.final_layer_norm"),
        ("lm_head.weight", "lm_head"),
        ("gpt_neox.embed_in.weight", None),
    ],
)
def test_every_depth(name, point):
    model = cloned(language_model("gpt_neox"))
    batch, memo = padded(3, 6), Memo(10**7)
    check(model, name, next_token(model), batch, each_lane(batch, 3), 3, point, memo)
    assert memo.hits == (point is not None)


@pytest.mark.parametrize(("name", "point"), [("0.weight", None), ("2.weight", "2"), ("4.bias", "4")])
def test_perceptron(name, point):
    x, y = (column.double() for column in regression_data(5))
    check(cloned(mlp()), name, regression_loss, (x, y), (x.repeat(3, 1), y.repeat(3)), 3, point, Memo(10**7))


@pytest.mark.parametrize(
    ("name", "point"),
    [("first.inner.weight", "first"), ("third.outer.weight", "third"), ("head.bias", "head"), ("stem.bias", None)],
)
def test_residual_net(name, point):
    model = cloned(seeded(Residual).double())
    x, y = images(4)
    x = x.double()
    check(model, name, classification_loss, (x, y), (x.repeat(3, 1, 1, 1), y.repeat(3)), 3, point, Memo(10**7))
