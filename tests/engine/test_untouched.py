"""The caller's world comes back as it was: weights, gradients, mode, device, random states, grad mode."""

import copy
import random

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

SMALL = {"lr": 1e-2, "n_beta": 10.0, "num_chains": 2, "num_draws": 3, "batch_size": 8, "progress": False}


def states():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:mode='train'")
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_model_and_generators_come_back_as_they_were(mode):
    model = Mlp(dropout=0.5).train()
    model.first.bias.requires_grad_(False)
    model.second.weight.grad = torch.ones(1, 5)
    before, memory = copy.deepcopy(model.state_dict()), [p.data_ptr() for p in model.parameters()]
    torch_state, python_state, numpy_state = states()
    sltfast.sample(model, regression_data(), loss_fn=regression_loss, mode=mode, init_noise=0.1, **SMALL)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert [p.data_ptr() for p in model.parameters()] == memory
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert torch.equal(model.second.weight.grad, torch.ones(1, 5))
    assert model.first.weight.grad is None
    assert model.training
    after = states()
    assert torch.equal(after[0], torch_state)
    assert after[1] == python_state
    assert np.array_equal(after[2], numpy_state)


def test_a_model_frozen_for_inference_is_sampled_whole():
    expected = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
    frozen = sltfast.sample(Mlp().requires_grad_(False), regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
    np.testing.assert_array_equal(frozen, expected)


def test_autocast_computes_low_and_moves_all_the_same():
    """Autocast caches casts of leaf weights: the chains' moves must reach the forward nevertheless."""
    with torch.autocast("cpu", torch.bfloat16):
        low = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, **{**SMALL, "num_draws": 30})["loss"]
        assert torch.is_autocast_cache_enabled()
    full = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, **{**SMALL, "num_draws": 30})["loss"]
    assert not np.array_equal(low, full)
    np.testing.assert_allclose(low, full, rtol=0.1)  # the same walk, computed to bf16's 3 digits


def test_an_embedding_that_rescales_itself_stays():
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4, max_norm=0.1), torch.nn.Linear(4, 1))
    before = model[0].weight.detach().clone()

    def loss(model, batch):
        return model(batch).square().mean((1, 2))

    for masks in (None, "1.*"):
        sltfast.sample(model, token_rows(vocabulary=10), loss_fn=loss, param_masks=masks, **SMALL)
        assert torch.equal(model[0].weight, before)


def test_a_language_models_config_and_cache_setting_stay():
    model = tiny_neox().train()
    assert model.config.use_cache is True
    sltfast.llc(model, token_rows(), **SMALL)
    assert model.config.use_cache is True
    assert model.training


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_sampling_works_where_the_caller_has_gradients_off(context):
    expected = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
    model = Mlp()
    with context():
        inside = sltfast.sample(model, regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(inside, expected)


class Counting(torch.nn.Module):
    """Its forward changes a buffer."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.linear(x).squeeze(-1)


def test_buffers_that_a_forward_changes_stay():
    model = Counting()
    sltfast.sample(model, regression_data(), loss_fn=regression_loss, **SMALL)
    assert model.calls == 0


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel], ids=["compiled", "data parallel"])
def test_wrapped_models_are_sampled_as_the_model_inside(wrap):
    expected = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
    wrapped = sltfast.sample(wrap(Mlp()), regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
    np.testing.assert_array_equal(wrapped, expected)


def test_train_mode_warns_and_repeats_itself():
    def run():
        with pytest.warns(UserWarning, match="mode='train' samples a randomised loss"):
            return sltfast.sample(Mlp(dropout=0.5), regression_data(), loss_fn=regression_loss, mode="train", **SMALL)[
                "loss"
            ]

    np.testing.assert_array_equal(run(), run())
    eval_mode = sltfast.sample(Mlp(dropout=0.5), regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
    assert not np.array_equal(run(), eval_mode)
