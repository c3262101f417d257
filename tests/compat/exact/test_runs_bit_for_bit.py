"""With ``exact=True`` every bit that devinterp 2.0.1 stores of a run is ours too, on the CPU."""

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from devinterp.slt.sampling import sample as their_sample
from torch import nn

from sltfast.compat.devinterp import exact
from sltfast.compat.devinterp.slt.sampling import sample
from tests.compat.exact.conftest import Reads

SETTINGS: dict[str, Any] = {
    "lr": 3e-3,
    "n_beta": 7.0,
    "num_chains": 2,
    "num_draws": 4,
    "batch_size": 4,
    "num_init_loss_batches": 2,
    "device": "cpu",
}
CASES: dict[str, dict[str, Any]] = {
    "sgld": {},
    "localization, decay, box": {"localization": 2.0, "llc_weight_decay": 0.5, "bounding_box_size": 0.02},
    "rmsprop, all priors, metrics": {
        "sampling_method": "rmsprop_sgld",
        "rmsprop_eps": 0.3,
        "sampling_method_kwargs": {"alpha": 0.8},
        "localization": 2.0,
        "llc_weight_decay": 0.5,
        "save_metrics": True,
    },
    "metrics": {"save_metrics": True},
    "metrics, decay, box": {"save_metrics": True, "llc_weight_decay": 1.0, "bounding_box_size": 0.05},
    "noise level, init noise": {"noise_level": 0.3, "init_noise": 0.1, "localization": 1.0},
    "accumulation, burn-in, own data": {
        "gradient_accumulation_steps": 3,
        "num_burnin_steps": 3,
        "num_steps_bw_draws": 2,
        "match_sampling_input_ids_across_chains": False,
        "num_init_loss_batches": 3,
    },
    "unshuffled, other seeds": {"shuffle": False, "init_seed": 3, "obs_seed": 5, "num_draws": 7},
    "no noise, n_beta 0": {"noise_level": 0.0, "n_beta": 0.0, "localization": 1.0},
}


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Devinterp warns of settings that these tests choose, and so does its face."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def bits(values: np.ndarray) -> np.ndarray:
    """Their pattern, by which −0 differs from 0 and NaN equals itself."""
    return values.view({4: np.uint32, 8: np.uint64}[values.dtype.itemsize])


def assert_same_bits(theirs: Any, ours: Any) -> None:
    theirs, own = theirs.dataset, ours.dataset
    assert len(theirs.data_vars) >= 4
    assert set(theirs.data_vars) == set(own.data_vars)
    assert set(theirs.coords) == set(own.coords)
    for name, array in theirs.data_vars.items():
        assert (array.dims, array.dtype, array.shape) == (own[name].dims, own[name].dtype, own[name].shape), name
        wanted, got = array.values, own[name].values
        living = ~np.isnan(wanted) if wanted.dtype.kind == "f" else np.ones(wanted.shape, bool)
        assert np.array_equal(np.isnan(wanted), np.isnan(got)) if wanted.dtype.kind == "f" else True, name
        assert np.array_equal(bits(wanted)[living], bits(got)[living]), name
    assert {**own.attrs, **theirs.attrs} == own.attrs


def both(model: nn.Module, data: Dataset, **changes: Any) -> tuple[Any, Any]:
    settings = {**SETTINGS, **changes}
    observables = settings.pop("observables", {"a": (data, 2), "1 b": (data, 1)})
    theirs = quietly(their_sample, model, data, observables, **settings)
    return theirs, quietly(sample, model, data, observables, exact=True, **settings)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_settings(data: Dataset, case: str, precision: torch.dtype) -> None:
    theirs, ours = both(Reads().to(precision), data, **CASES[case])
    assert_same_bits(theirs, ours)
    assert not np.isnan(ours["sampling_loss"].values).any()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("method", ["sgmcmc_sgld", "rmsprop_sgld"])
def test_masks(data: Dataset, method: str, precision: torch.dtype) -> None:
    model, generator = Reads().to(precision), torch.Generator().manual_seed(2)
    masks = {  # not in the model's order: the noise comes in that of the masks
        "out.weight": torch.rand(11, 5, generator=generator) < 0.5,
        "embed.weight": None,
        "mix.weight": torch.rand(5, 5, generator=generator),  # of values between 0 and 1
        "mix.bias": torch.zeros(5, dtype=torch.bool),
    }
    settings = {"param_masks": masks, "save_metrics": True, "localization": 1.0, "init_noise": 0.1}
    assert_same_bits(*both(model, data, sampling_method=method, **settings))


@pytest.mark.parametrize("kind", ["dropout", "batch norm", "both"])
def test_what_train_mode_changes(data: Dataset, kind: str) -> None:
    def build() -> Reads:
        return Reads(dropout=0.2 if kind != "batch norm" else 0.0, norm=kind != "dropout").eval()

    ours = quietly(sample, own := build(), data, {"a": (data, 2)}, exact=True, init_noise=0.01, **SETTINGS)
    assert_same_bits(quietly(their_sample, build(), data, {"a": (data, 2)}, init_noise=0.01, **SETTINGS), ours)
    assert not own.training
    for name, value in build().state_dict().items():  # devinterp's own leaves batch norm's counts in the caller's model
        assert torch.equal(value, own.state_dict()[name]), name


def test_a_language_model(data: Dataset) -> None:
    from tests.models import tiny_neox

    theirs, ours = both(tiny_neox(), data, localization=1.0)
    assert_same_bits(theirs, ours)


def test_frozen_and_tied_parameters(data: Dataset) -> None:
    model = Reads()
    model.out.weight = model.embed.weight
    model.mix.weight.requires_grad_(False)
    theirs, ours = both(model, data, save_metrics=True, localization=1.0)
    assert_same_bits(theirs, ours)
    assert not model.mix.weight.requires_grad


def test_a_chain_that_diverges(data: Dataset) -> None:
    """Both chains die of infinite logits at this step size; what they met before is kept, the rest is NaN."""
    theirs, ours = both(Reads(), data, lr=3e36, num_draws=6, observables={})
    assert_same_bits(theirs, ours)
    assert np.isnan(ours["sampling_loss"].values).any()
    assert (ours["sltfast"]["death_step"].values > 0).all()
    assert not ours["sltfast"]["alive"].values.any()


def test_a_loss_of_the_callers(data: Dataset) -> None:
    def loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        return (model(ids)[:, 1:].double() ** 2).mean(-1)

    theirs, ours = both(Reads(), data, loss_fn=loss)
    assert_same_bits(theirs, ours)


def test_the_context_is_the_keyword_and_the_fast_mode_is_another_chain(data: Dataset) -> None:
    with exact():
        within = quietly(sample, Reads(), data, {}, **SETTINGS)
        fast = quietly(sample, Reads(), data, {}, exact=False, **SETTINGS)
    assert_same_bits(quietly(their_sample, Reads(), data, {}, **SETTINGS), within)
    assert not np.array_equal(fast["sampling_loss"], within["sampling_loss"])


def test_the_callers_world_is_untouched(data: Dataset) -> None:
    model = Reads(dropout=0.1).eval()
    model.mix.bias.grad = torch.ones(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    quietly(sample, model, data, {"a": (data, 1)}, exact=True, init_noise=0.1, **SETTINGS)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model.mix.bias.grad, torch.ones(5))
