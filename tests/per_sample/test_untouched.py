"""The caller's model and random states come back as they were, and no tensor grows with items × parameters."""

import copy
import random

import numpy as np
import pytest
import torch
from architectures import gpt2, seeded
from models import Mlp, regression_data, regression_loss, token_rows
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sltfast import per_sample

CALLS = {
    "norms": lambda m: per_sample.gradient_norms(m, regression_data(6), regression_loss),
    "inner": lambda m: per_sample.inner_products(
        m, regression_data(6), {"first.weight": torch.ones(5, 3)}, regression_loss
    ),
    "sum": lambda m: per_sample.weighted_sum(m, regression_data(6), torch.ones(6), regression_loss),
    "noise": lambda m: per_sample.noise_scale(
        m, regression_data(40), regression_loss, batch_size=8, lr=0.1, n_beta=2.0
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_and_the_generators_stay(call, context):
    model = Mlp(dropout=0.5).train()
    model.second.bias.requires_grad_(False)
    model.second.weight.grad = torch.ones(1, 5)
    before, memory = copy.deepcopy(model.state_dict()), [p.data_ptr() for p in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    with context():
        call(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.data_ptr() for p in model.parameters()] == memory
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]
    assert torch.equal(model.second.weight.grad, torch.ones(1, 5))
    assert model.first.weight.grad is None
    assert model.training
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_dropout_is_off():
    batch = regression_data(6)
    with_dropout = per_sample.gradient_norms(Mlp(dropout=0.5).train(), batch, regression_loss)
    assert torch.equal(with_dropout, per_sample.gradient_norms(Mlp(), batch, regression_loss))


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation makes (a view makes none)."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.untyped_storage().nbytes() // value.element_size())
        return result


def squares(model, batch):
    return model(batch).square().mean((1, 2))


@pytest.mark.parametrize("positions", [2, 700], ids=["ghost", "formed"])
def test_nothing_of_items_times_parameters_is_stored(positions):
    model = seeded(lambda: nn.Sequential(nn.Linear(300, 200), nn.Tanh(), nn.Linear(200, 100)))
    batch = torch.randn(16, positions, 300, generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        per_sample.gradient_norms(model, batch, squares)
    # one activation of the batch, or one parameter
    assert largest.numel <= max(16 * positions * 300, 300 * 200)


def test_nothing_of_items_times_vocabulary_times_width_is_stored():
    model, ids = gpt2(), token_rows(30, tokens=5)
    with Largest() as largest:
        per_sample.gradient_norms(model, ids)
    assert largest.numel <= 30 * 5 * 64  # items × tokens × the widest layer, against 30 × 32 × 16 of the embedding
