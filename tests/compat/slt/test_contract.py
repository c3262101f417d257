"""What devinterp promises beside its numbers: errors, warnings, what is returned from disk, and when it is refused."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import devinterp.slt.bif
import devinterp.slt.llc
import devinterp.slt.sampling
import devinterp.slt.susceptibilities
import numpy as np
import pytest
import torch
import zarr
from datasets import Dataset
from torch import nn

import sltfast
from sltfast.compat.defects import CompatWarning, forget_warnings
from sltfast.compat.devinterp.slt import bif, llc, sampling, susceptibilities
from sltfast.compat.fast_run.before import look
from sltfast.errors import ChainDiverged

SETTINGS: dict[str, Any] = {"lr": 1e-3, "n_beta": 5.0, "num_chains": 2, "num_draws": 4, "batch_size": 4}
RMSPROP = {"sampling_method": "rmsprop_sgld"}
KEPT = {**SETTINGS, "num_init_loss_batches": 2}


@pytest.fixture(autouse=True)
def said_anew() -> Iterator[None]:
    forget_warnings()
    yield
    forget_warnings()


@pytest.mark.parametrize(
    "name",
    ["sampling.sample", "llc.llc", "llc.compute_llc", "bif.bif", "bif.compute_bif"]
    + ["susceptibilities.susceptibilities", "susceptibilities.compute_susceptibilities"],
)
def test_signatures_are_devinterps(name: str) -> None:
    module, function = name.split(".")
    theirs = inspect.signature(getattr(getattr(devinterp.slt, module), function)).parameters
    ours = inspect.signature(
        getattr({"sampling": sampling, "llc": llc, "bif": bif}.get(module, susceptibilities), function)
    )
    added = [one for one in ours.parameters if one not in theirs]
    assert [one for one in ours.parameters if one in theirs] == list(theirs)
    assert added in ([], ["exact"])
    for one, parameter in theirs.items():
        assert (ours.parameters[one].kind, ours.parameters[one].default) == (parameter.kind, parameter.default)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"rmsprop_eps": 0.1}, ValueError, "rmsprop_eps can only be set"),
        ({**RMSPROP, "rmsprop_eps": 0.1, "sampling_method_kwargs": {"eps": 1}}, ValueError, "specify only one"),
        ({"sampling_method_kwargs": {"zeal": 1}}, TypeError, "unexpected keyword"),
        ({**RMSPROP, "sampling_method_kwargs": {"add_grad_correction": True}}, NotImplementedError, "add_grad"),
        ({"lr": -1.0}, ValueError, "lr"),
        ({"batch_size": 64}, ValueError, "37 rows"),
        ({"batches_per_draw": 10}, AssertionError, "must be >= num_samples"),
        ({"param_masks": {"zz": None}}, KeyError, "zz"),
        ({"param_masks": {}}, ValueError, "empty parameter list"),
        ({"loss_fn": lambda model, ids: model(ids).logits.mean((1, 2))}, ValueError, "per-token loss of shape"),
        ({"zeal": 1}, TypeError, "zeal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_sampled_is_refused(
    model: nn.Module, data: Dataset, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        llc.llc(model, data, {"a": data}, **{**SETTINGS, **changes})


def test_sequences_of_one_token_are_refused(model: nn.Module) -> None:
    short = Dataset.from_dict({"input_ids": [[1]] * 8}).with_format("torch")
    with pytest.raises(ValueError, match="length >= 2"):
        sampling.sample(model, short, {}, **SETTINGS)


def test_a_mask_of_another_shape_is_refused(model: nn.Module, data: Dataset) -> None:
    name = next(iter(dict(model.named_parameters())))
    with pytest.raises(ValueError, match="Mask shape"):
        sampling.sample(model, data, {}, param_masks={name: torch.ones(2, 2)}, **SETTINGS)


def test_the_same_call_returns_what_is_on_disk(model: nn.Module, data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "samples.zarr"
    first = sampling.sample(model, data, {"a": (data, 1)}, output_path=path, **KEPT)
    assert zarr.open_group(str(path)).attrs["completed"] == 1
    again = sampling.sample(model, data, {"a": (data, 1)}, output_path=str(path), **KEPT)
    for name in first.data_vars:
        assert np.array_equal(first[name], again[name])
    theirs = devinterp.slt.sampling.sample(
        model, data, {"a": (data, 1)}, output_path=path, **KEPT
    )  # its cache reads ours
    assert np.array_equal(theirs["sampling_loss"], first["sampling_loss"])


def test_other_settings_at_the_same_path_are_refused(model: nn.Module, data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "samples.zarr"
    sampling.sample(model, data, {}, output_path=path, **KEPT)
    with pytest.raises(RuntimeError, match=r"different sampler config.*lr"):
        sampling.sample(model, data, {}, output_path=path, **{**KEPT, "lr": 2e-3})


def test_another_model_at_the_same_path_is_refused(model: nn.Module, data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "samples.zarr"
    sampling.sample(model, data, {}, output_path=path, **KEPT)
    weight = next(model.parameters())
    with torch.no_grad():
        weight.add_(1e-3)
    try:
        with pytest.raises(RuntimeError, match=r"another run.*model"):
            sampling.sample(model, data, {}, output_path=path, **KEPT)
    finally:
        with torch.no_grad():
            weight.sub_(1e-3)


def test_what_is_no_run_is_refused(model: nn.Module, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="couldn't be opened"):
        sampling.sample(model, data, {}, output_path=tmp_path, **KEPT)


def test_an_unfinished_run_of_devinterps_is_refused(model: nn.Module, data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "samples.zarr"
    devinterp.slt.sampling.sample(model, data, {}, output_path=path, **KEPT)
    with pytest.warns(CompatWarning, match="only settings were compared"):
        sampling.sample(model, data, {}, output_path=path, **KEPT)
    zarr.open_group(str(path)).attrs["completed"] = 0
    with pytest.raises(RuntimeError, match="incomplete"):
        sampling.sample(model, data, {}, output_path=path, **KEPT)


def test_restrictions_are_written_side_by_side(model: nn.Module, data: Dataset, tmp_path: Path) -> None:
    observables = {"a": (data, 1), "b": (data, 2)}
    restrictions = {"full": None, "l0": {"gpt_neox.layers.0.attention.dense.weight": None}}
    given = {"sampling_task": "a", **KEPT}
    result = susceptibilities.susceptibilities(
        model, data, observables, restrictions, output_path=tmp_path / "sus.zarr", **given
    )
    memory = susceptibilities.susceptibilities(model, data, observables, restrictions, **given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sus_full.zarr", "sus_l0.zarr"]
    stored, kept = (one["susceptibilities"]["sus"].values for one in (result, memory))
    # traces are stored in float32, moments in float64
    np.testing.assert_allclose(kept, stored, rtol=0, atol=1e-3 * np.abs(stored).max())
    assert result["susceptibilities"]["wr"].values.tolist() == ["l0"]


def test_a_chain_that_dies_is_told_and_left_in_the_mean(model: nn.Module, data: Dataset) -> None:
    with pytest.warns(CompatWarning, match="a dead chain"), pytest.warns(ChainDiverged) as told:
        result = llc.llc(model, data, {}, **{**SETTINGS, "lr": 1e6, "num_draws": 6})
    assert any("Chain failed: Chain 0 failed: Loss is NaN or Inf" in str(one.message) for one in told)
    assert np.isnan(result["loss_trace"].values).any()


def test_burnin_is_part_of_the_mean_and_said(model: nn.Module, data: Dataset) -> None:
    with pytest.warns(CompatWarning, match="burn-in"):
        result = llc.llc(model, data, {}, num_burnin_steps=3, **SETTINGS)
    per_chain = 5.0 * (result["loss_trace"].mean("step") - result["init_loss"])
    np.testing.assert_allclose(result["llc_per_chain"], per_chain, atol=1e-5)


def test_a_large_run_without_a_path_is_warned_of(model: nn.Module, data: Dataset) -> None:
    with pytest.warns(UserWarning, match="Sampling without output_path set"):
        llc.llc(model, data, {}, **{**SETTINGS, "num_draws": 130})


def test_train_mode_is_told_from_eval_mode(model: nn.Module, dropping_model: nn.Module, data: Dataset) -> None:
    rows = torch.as_tensor(np.asarray(data[:4]["input_ids"]))
    told = [look(one, rows, None, 0, torch.device("cpu")).train_mode for one in (model, dropping_model)]
    assert told == [False, True]
    assert dropping_model.training == model.training


def test_native_estimates_read_the_face_s_trees(model: nn.Module, data: Dataset) -> None:
    tree = sampling.sample(model, data, {"a": (data, 1)}, **KEPT)
    assert np.isfinite(float(sltfast.compute_llc(tree)["llc_mean"]))
    assert set(tree.data_vars) == {
        "init_loss", "sampling_loss", "sampling_loss_micro", "sampling_input_ids_micro", "loss_a", "input_ids_a"
    }  # fmt: skip
    assert bool(tree["sltfast"]["alive"].all())
