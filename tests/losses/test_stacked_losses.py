"""Losses from hidden states of a folded model: every lane's are those of the model alone with the lane's weights."""

import pytest
import torch
from causal_models import batches, made
from one_lane import lane_weights, stacked
from torch import nn
from torch.nn import functional

from sltfast.losses import item_loss
from sltfast.stacking import Stack

LANES = 3


class ReadsAnothers(nn.Module):
    """A layer that multiplies by the weight of a module which it does not run."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return functional.linear(x, self.held.weight, self.held.bias)


def check(family, kind, masks, units=(), loop=False, change=None):
    model, batch = made(family), batches()[kind]
    if change is not None:
        change(model)
    if units:
        model.set_attn_implementation("eager")  # sdpa has no batching rule, and says so
    plain, loss = item_loss(model, None), item_loss(model, None)
    assert loss.without_logits(model, batch) == ""
    stack = stacked(model, masks, LANES)
    if units:
        weights = stack.pieces
        stack.restore()
        stack = Stack(stack.model, weights, LANES, units)
    if loop:
        for unit in stack._running.values():
            unit.rung = "loop"
    objective = loss.objective(stack.model, stack.expand(batch), LANES, 1.0, stack.lane_weights)
    leaves = [(name, piece) for name, pieces in stack.pieces.items() for piece in pieces]
    gradients = torch.autograd.grad(objective.total, [piece.leaf for _, piece in leaves])
    means = objective.losses.lane_means(LANES)
    for lane in range(LANES):
        with torch.no_grad():
            for name, weight in lane_weights(model, stack, lane).items():
                model.get_parameter(name).copy_(weight)
        alone = plain.objective(model, batch)
        torch.testing.assert_close(means[lane], alone.total.detach(), atol=1e-11, rtol=1e-11)
        expected = torch.autograd.grad(alone.total, [model.get_parameter(name) for name, _ in leaves])
        for (_, piece), together, one in zip(leaves, gradients, expected, strict=True):
            segment = piece.segment
            torch.testing.assert_close(together[lane], segment.of(one).reshape(segment.shape), atol=1e-11, rtol=1e-11)
    return loss


@pytest.mark.parametrize("family", ["neox", "gpt2_tied", "gptj_with_bias", "cohere_scaled", "transformer_lens_capped"])
@pytest.mark.parametrize("kind", ["plain", "padded left"])
def test_all_weights_move(family, kind):
    assert check(family, kind, None).unembedding is not None


def test_part_of_the_unembedding_moves():
    rows = torch.zeros(37, 16, dtype=torch.bool)
    rows[5:9] = True
    assert check("neox", "plain", {"lm_head.weight": rows}).unembedding is not None


def test_a_frozen_unembedding_is_shared():
    assert check("llama", "plain", ["model.layers.1.*"]).unembedding is not None


def test_a_stack_that_settles_at_its_first_call():
    def change(model):
        layer = model.gpt_neox.layers[1].mlp
        layer.dense_h_to_4h = ReadsAnothers(layer.dense_h_to_4h)

    assert check("neox", "plain", None, change=change).unembedding is not None


@pytest.mark.parametrize("loop", [False, True])
def test_a_model_that_runs_whole_keeps_its_logits(loop):
    loss = check("neox", "plain", ["lm_head.weight", "gpt_neox.layers.0.*"], units=[""], loop=loop)
    assert loss.unembedding is None
    assert "runs whole" in loss.logits_because
