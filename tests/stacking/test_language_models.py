"""Hugging Face causal language models: L folded lanes are L lanes alone, in losses and in every gradient."""

import hugging_face
import pytest
import torch
from lane_check import check_stack
from models import token_rows
from one_lane import assert_lanes_exact, stacked

from sltfast.losses import item_loss


@pytest.mark.parametrize("name", hugging_face.NAMES)
def test_every_lane_is_the_lane_alone(name: str) -> None:
    model = hugging_face.tiny(name)
    own = item_loss(model, None)
    stack = stacked(model, None, lanes=3)
    batch = hugging_face.padded(left=name not in hugging_face.NO_EMPTY_ROWS)

    def token_losses(called, batch):
        loss = own(called, batch)
        return loss.values if loss.weights is None else torch.where(loss.weights != 0, loss.values, 0.0)

    assert check_stack(stack, token_losses, batch) is None
    assert_lanes_exact(model, stack, token_losses, batch, rows=3)
    assert_lanes_exact(model, stack, token_losses, token_rows(2, 5, hugging_face.VOCABULARY), rows=2)


@pytest.mark.parametrize("name", ["GPT2", "Llama", "Gemma", "OPT", "Bloom", "Qwen3", "Phi3"])
def test_nothing_but_folded_modules(name: str) -> None:
    model = hugging_face.tiny(name)
    stack = stacked(model, None, lanes=2)
    item_loss(model, None)(stack.model, stack.expand(token_rows(3, 5, hugging_face.VOCABULARY)))
    assert set(stack.rungs.values()) == {"registry"}


def test_a_module_that_cannot_fold_does_not_hold_back_the_rest() -> None:
    model = hugging_face.tiny("Mamba")
    stack = stacked(model, None, lanes=2)
    item_loss(model, None)(stack.model, stack.expand(token_rows(3, 5, hugging_face.VOCABULARY)))
    units = {name for name, rung in stack.rungs.items() if rung != "registry"}
    assert units == {"backbone.layers.0.mixer", "backbone.layers.1.mixer"}
