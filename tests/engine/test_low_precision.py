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


def test_float64_models_keep_float64_masters():
    model = Quadratic(torch.ones(4), dtype=torch.float64)
    arena = Arena(Restriction.of(model), structural_clone(model, torch.device("cpu")), 1, torch.device("cpu"))
    assert [block.w.dtype for block in arena.blocks] == [torch.float64]
    assert not arena.blocks[0].has_low


def test_mixed_precisions_are_kept_apart_and_views_follow_the_masters():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2).bfloat16(), torch.nn.Linear(2, 1).double())
    clone = structural_clone(model, torch.device("cpu"))
    arena = Arena(Restriction.of(model), clone, 2, torch.device("cpu"))
    arena.reset()
    assert sorted(str(block.w.dtype) for block in arena.blocks) == ["torch.float32", "torch.float64"]
    for chain in (0, 1):
        arena.attach(chain)
        for (name, mine), theirs in zip(clone.named_parameters(), model.parameters(), strict=True):
            assert mine.dtype == theirs.dtype, name
            assert torch.equal(mine, theirs)
            assert mine.data_ptr() != theirs.data_ptr()
    arena.blocks[0].w[1, 0] = 7.0
    assert next(clone.parameters())[0, 0] == 7.0
    offsets = arena.blocks[0].segments[:, 0]
    assert (offsets % 16 == 0).all()


def test_masters_of_anchors_cost_no_copy():
    model = Quadratic(torch.ones(4))
    arena = Arena(Restriction.of(model), structural_clone(model, torch.device("cpu")), 1, torch.device("cpu"))
    assert arena.blocks[0].anchors[0].data_ptr() == model.w.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_language_models_in_any_precision(dtype):
    """The same chain in another precision: losses agree to its resolution."""
    arguments = {**SETTINGS, "lr": 1e-3, "localization": 10.0, "num_draws": 10}
    reference = sltfast.sample(tiny_neox(), token_rows(), **arguments)["loss"].values
    other = sltfast.sample(tiny_neox().to(dtype), token_rows(), **arguments)["loss"].values
    # a loss of about 3.5 nats, averaged over 64 tokens, each good to a few spacings of the logits
    np.testing.assert_allclose(other, reference, atol={torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-5))
