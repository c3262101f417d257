"""bf16 and fp16 models are sampled on fp32 masters, float64 models in float64."""

import numpy as np
import pytest
import torch
from models import ONES, Quadratic, quadratic_loss, tiny_neox, token_rows

import sltfast
from sltfast.arena import Arena
from sltfast.clone import structural_clone
from sltfast.restriction import Restriction

SETTINGS = {"n_beta": 30.0, "num_chains": 2, "batch_size": 8, "progress": False}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_steps_far_below_the_spacing_of_a_low_precision_weight_are_kept(dtype):
    """ε/2·nβ·h·w is 1e-3 of bf16's spacing at 1: rounding each step would lose the drift, the masters keep it.

    The chain relaxes as (1 − ε·nβ·h/2)^t; E[w − w*]² after t steps: d·(1 − (1 − ε a/2)^{2t})/(a(1 − ε a/4)), a = nβ·h.
    """
    d, lr, steps = 2000, 1e-4, 600
    model = Quadratic(torch.ones(d), centre=1.0, dtype=dtype)
    tree = sltfast.sample(model, ONES, loss_fn=quadratic_loss, lr=lr, num_draws=steps, **SETTINGS)
    a = 30.0
    t = np.arange(steps)
    variance = (1 - (1 - lr * a / 2) ** (2 * t)) / (a * (1 - lr * a / 4))
    spacing = {torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    # the loss is read at the rounded copy: uniform rounding errors add spacing²/12 to each square
    expected = 0.5 * d * (variance + spacing**2 / 12 * (t > 0))
    apart = tree["loss"].values - expected
    # a sum of d squares of normals has relative deviation sqrt(2/d); 5 of them over all steps, and 10 % of the rounding
    bound = 5 * expected * (2 / d) ** 0.5 + 0.1 * 0.5 * d * spacing**2 / 12
    assert (np.abs(apart) <= bound + 1e-9)[:, 1:].all()


def arena_of(model, chains):
    read_as = {name: parameter.dtype for name, parameter in model.named_parameters()}
    return Arena([Restriction.of(model)], read_as, chains, torch.device("cpu"))


def test_float64_models_keep_float64_masters():
    arena = arena_of(Quadratic(torch.ones(4), dtype=torch.float64), 1)
    assert [block.w.dtype for block in arena.blocks] == [torch.float64]
    assert not arena.blocks[0].has_low


def test_mixed_precisions_are_kept_apart_and_leaves_follow_the_masters():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2).bfloat16(), torch.nn.Linear(2, 1).double())
    arena = arena_of(model, 2)
    arena.reset()
    assert sorted(str(block.w.dtype) for block in arena.blocks) == ["torch.float32", "torch.float64"]
    parameters = dict(model.named_parameters())
    for leaf in arena.leaves:
        for lane in (0, 1):
            assert leaf.tensor.dtype == parameters[leaf.name].dtype, leaf.name
            assert torch.equal(leaf.tensor[lane], parameters[leaf.name])
            assert leaf.tensor.data_ptr() != parameters[leaf.name].data_ptr()
    arena.blocks[0].w[1, 0] = 7.0
    assert arena.leaves[0].tensor[1, 0, 0] == 7.0
    assert all(offset % 16 == 0 for offset in arena.blocks[0].offsets)


def test_anchors_of_whole_parameters_cost_no_copy():
    model = Quadratic(torch.ones(4))
    assert arena_of(model, 1).blocks[0].shares[0].anchors[0].data_ptr() == model.w.data_ptr()


def test_one_lane_can_be_bound_to_a_model_and_no_more():
    model = Quadratic(torch.ones(4))
    clone = structural_clone(model, torch.device("cpu"))
    arena = arena_of(model, 1)
    arena.reset()
    arena.bind(clone)
    arena.blocks[0].w[0, 2] = 3.0
    assert clone.w[2] == 3.0
    assert model.w[2] == 0.0
    with pytest.raises(ValueError, match="one lane"):
        arena_of(model, 2).bind(clone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_language_models_in_any_precision(dtype):
    """The same chain in another precision: losses agree to its resolution."""
    arguments = {**SETTINGS, "lr": 1e-3, "localization": 10.0, "num_draws": 10}
    reference = sltfast.sample(tiny_neox(), token_rows(), **arguments)["loss"].values
    other = sltfast.sample(tiny_neox().to(dtype), token_rows(), **arguments)["loss"].values
    # a loss of about 3.5 nats, averaged over 64 tokens, each good to a few spacings of the logits
    np.testing.assert_allclose(other, reference, atol={torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-5))
