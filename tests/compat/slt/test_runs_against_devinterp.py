"""Without noise a run is deterministic: every array that devinterp stores is the fast engine's too."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from devinterp.slt.sampling import sample as their_sample
from torch import nn

from sltfast.compat.devinterp.slt.llc import compute_llc, llc
from sltfast.compat.devinterp.slt.sampling import sample

# double-precision runs apart by at most ~1e-12 are stored in float32: one unit of its last place, 2^-23 of the largest
STORED = 2.0**-23
# devinterp adds in float32, with a rounding of 2^-24 each: squares of 28 tensors; at most six batches, each divided
ADDED_UP = {"metrics_": 28 * 2.0**-24, "init_loss": 12 * 2.0**-24, "sampling_loss": 12 * 2.0**-24}
SETTINGS: dict[str, Any] = {
    "lr": 1e-2,
    "n_beta": 5.0,
    "num_chains": 2,
    "num_draws": 6,
    "batch_size": 4,
    "num_init_loss_batches": 3,
    "localization": 1.0,
    "noise_level": 0.0,
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "own data, accumulation, burn-in, box, decay, metrics": {
        "match_sampling_input_ids_across_chains": False,
        "gradient_accumulation_steps": 2,
        "num_burnin_steps": 3,
        "num_steps_bw_draws": 2,
        "save_metrics": True,
        "llc_weight_decay": 0.3,
        "bounding_box_size": 0.01,
    },
    "rmsprop, unshuffled": {
        "shuffle": False,
        "sampling_method": "rmsprop_sgld",
        "rmsprop_eps": 0.2,
        "sampling_method_kwargs": {"alpha": 0.9},
        "save_metrics": True,
    },
    "more steps than an epoch has batches": {"num_draws": 20, "num_chains": 1},
    "a step of size 0": {"lr": 0.0, "noise_level": 1.0},
    "a box of size 0": {"bounding_box_size": 0.0},
    "another seed and device": {"init_seed": 7, "obs_seed": 3, "device": "cpu", "batches_per_draw": 1},
}


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Devinterp warns of settings that these tests choose, and so does its face."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def assert_same_tree(theirs: Any, ours: Any, but: str = "") -> None:
    theirs, own = theirs.dataset, ours.dataset
    assert set(theirs.data_vars) == set(own.data_vars)
    assert set(theirs.coords) == set(own.coords) == set()
    for name, array in theirs.data_vars.items():
        assert (array.dims, array.dtype) == (own[name].dims, own[name].dtype), name
        wanted, got = array.values, own[name].values
        if name == but:
            continue
        if array.dtype.kind == "i":
            assert np.array_equal(wanted, got), name
        else:
            apart = next((error for start, error in ADDED_UP.items() if str(name).startswith(start)), STORED)
            np.testing.assert_allclose(got, wanted, rtol=0, atol=apart * np.abs(wanted).max(), err_msg=str(name))
    assert {**own.attrs, **theirs.attrs} == own.attrs


@pytest.mark.parametrize("case", CASES)
def test_every_stored_array_is_the_same(model: nn.Module, data: Dataset, case: str) -> None:
    settings = {**SETTINGS, **CASES[case]}
    observables = {"a": (data, 2), "1 b": data}
    theirs = quietly(their_sample, model, data, observables, **settings)
    assert_same_tree(theirs, quietly(sample, model, data, observables, **settings))


def test_masks(model: nn.Module, data: Dataset) -> None:
    shape = model.gpt_neox.layers[0].mlp.dense_h_to_4h.weight.shape
    masks = {
        "gpt_neox.layers.1.attention.dense.weight": None,
        "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": torch.rand(shape, generator=torch.Generator().manual_seed(1))
        < 0.5,
        "embed_out.weight" if hasattr(model, "embed_out") else "lm_head.weight": torch.eye(50, 16),
    }
    theirs = quietly(their_sample, model, data, {}, param_masks=masks, save_metrics=True, **SETTINGS)
    ours = quietly(sample, model, data, {}, param_masks=masks, save_metrics=True, **SETTINGS)
    assert ours.attrs["metrics_numel"] == theirs.attrs["metrics_numel"]
    # devinterp counts coordinates that stand still in this one norm
    assert bool((ours["metrics_unscaled_grad"] < theirs["metrics_unscaled_grad"]).all())
    assert_same_tree(theirs, ours, but="metrics_unscaled_grad")


def test_init_loss_under_init_noise(model: nn.Module, data: Dataset) -> None:
    settings = {**SETTINGS, "init_noise": 0.05, "match_sampling_input_ids_across_chains": False}
    theirs = quietly(their_sample, model, data, {}, **settings)
    ours = quietly(sample, model, data, {}, **settings)
    np.testing.assert_allclose(ours["init_loss"], theirs["init_loss"], rtol=2 * STORED)


def test_frozen_parameters_stand_still(data: Dataset, model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters() if "embed" in name]
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    try:
        theirs = quietly(their_sample, model, data, {}, **SETTINGS)
        ours = quietly(sample, model, data, {}, **SETTINGS)
    finally:
        model.requires_grad_(True)
    assert_same_tree(theirs, ours)


class Attends(nn.Module):
    """Logits of a model that is not causal, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.attn = nn.MultiheadAttention(16, 2, batch_first=True)
        self.ff = nn.Linear(16, 50)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        return self.ff(self.attn(x, x, x)[0])


def scaled(factor: float) -> Any:
    def loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        logits = model(ids)[..., :-1, :]
        return -factor * torch.log_softmax(logits, -1).gather(-1, ids[..., 1:, None])[..., 0]

    return loss


def test_a_module_that_gives_logits_and_looks_ahead(data: Dataset) -> None:
    torch.manual_seed(0)
    model = Attends().double()
    theirs = quietly(their_sample, model, data, {"a": (data, 2)}, **SETTINGS)
    assert_same_tree(theirs, quietly(sample, model, data, {"a": (data, 2)}, **SETTINGS))


def test_a_loss_of_the_callers(data: Dataset) -> None:
    torch.manual_seed(0)
    model = Attends().double()
    settings = {**SETTINGS, "loss_fn": scaled(3.0)}
    theirs = quietly(their_sample, model, data, {"a": (data, 2)}, **settings)
    assert_same_tree(theirs, quietly(sample, model, data, {"a": (data, 2)}, **settings))


def test_twice_the_loss_at_half_the_temperature_is_the_same_chain(data: Dataset) -> None:
    torch.manual_seed(0)
    model = Attends()
    settings = {**SETTINGS, "noise_level": 1.0, "n_beta": 2.0}
    plain = llc(model, data, {}, **settings)
    twice = llc(model, data, {}, loss_fn=scaled(2.0), **{**settings, "n_beta": 1.0})
    assert float(plain["llc_mean"]) == float(twice["llc_mean"])


def test_llc_without_records_is_that_of_the_records(model: nn.Module, data: Dataset) -> None:
    settings = {**SETTINGS, "noise_level": 1.0, "match_sampling_input_ids_across_chains": False}
    whole = compute_llc(sample(model, data, {"a": (data, 2)}, **settings))
    alone = llc(model, data, {"a": (data, 2)}, **settings)
    assert list(whole.data_vars) == list(alone.data_vars)
    for name in whole.data_vars:
        np.testing.assert_allclose(alone[name], whole[name], rtol=1e-5, atol=1e-6, err_msg=str(name))
