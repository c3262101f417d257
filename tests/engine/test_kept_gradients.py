"""Gradients that are formed in the same memory step after step: the same numbers, and memory that is not asked for."""

import numpy as np
import pytest
import torch
from hugging_face import tiny
from models import token_rows

import sltfast
from sltfast.arena import Arena
from sltfast.gradient_home import GradientHome
from sltfast.sampler.problem import Problem

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "num_chains": 3, "num_draws": 6, "batch_size": 4, "num_init_loss_batches": 0,
    "progress": False, "engine": "stacked",
}  # fmt: skip


def traces(monkeypatch, model, kept: bool, **settings):
    with monkeypatch.context() as patch:
        if not kept:
            patch.setattr(Problem, "keeps_gradients", False)
        tree = sltfast.sample(model, token_rows(24, 31, 37), **{**SETTINGS, **settings})
    return tree["loss"].values


@pytest.mark.parametrize("family", ["GPTNeoX", "Qwen2"])  # its tables apart, and tied: a gradient of two uses
def test_chains_are_the_same_bit_by_bit(monkeypatch, family):
    model = tiny(family).float()
    assert np.array_equal(traces(monkeypatch, model, True), traces(monkeypatch, model, False))


@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2}, {"plan": True}])
def test_they_are_kept_where_a_step_is_one_backward_and_no_memory_is_measured(monkeypatch, settings):
    homes = []
    own = Arena.keep_gradients
    monkeypatch.setattr(Arena, "keep_gradients", lambda self: homes.append(1) or own(self))
    traces(monkeypatch, tiny("GPTNeoX").float(), True, **settings)
    assert bool(homes) is (not settings)


def test_the_leaf_takes_the_memory_as_it_is(monkeypatch):
    """Without a copy: the gradients of the last step lie where those of the first lay."""
    places = []
    own = Arena.take_gradients

    def take(self):
        taken = own(self)
        if self._homes:
            places.append([gradient.data_ptr() for block in taken for gradient in block])
        return taken

    monkeypatch.setattr(Arena, "take_gradients", take)
    model = tiny("GPTNeoX").float()
    traces(monkeypatch, model, True)
    same = np.mean(np.array(places[0]) == np.array(places[-1]))
    matrices = np.mean([p.ndim == 2 for p in model.parameters()])
    assert len(places) == SETTINGS["num_draws"]
    assert same >= matrices - 1 / len(list(model.parameters()))  # all but the unembedding's, which comes with the loss


def test_room_is_given_once_and_zeros_are_zeros():
    home = GradientHome(torch.ones(2, 5, 3))
    rows = torch.tensor([1, 7])
    first = home.with_zeros(rows)
    first.view(-1, 3)[rows] = 4.0
    assert home.room() is None
    assert home.with_zeros(rows) is None
    home.free()
    again = home.with_zeros(torch.tensor([0]))
    assert again.data_ptr() == first.data_ptr()
    assert not again.any()
    home.free()
    home.room().fill_(3.0)
    home.free()
    assert not home.with_zeros(rows).any()
