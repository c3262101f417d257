"""Trees of ``sltfast.sample`` and of the faces are devinterp's to devinterp: names, dims, dtypes, estimates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from datasets import Dataset
from devinterp.slt.bif import compute_bif as their_bif
from devinterp.slt.llc import compute_llc as their_llc
from devinterp.slt.sampling import sample as their_sample
from devinterp.slt.susceptibilities import compute_susceptibilities as their_susceptibilities
from torch import nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import sltfast
from sltfast.compat.devinterp.slt.sampling import sample as face_sample

SETTINGS: dict[str, Any] = {
    "lr": 1e-3,
    "n_beta": 10.0,
    "num_chains": 2,
    "num_draws": 6,
    "num_burnin_steps": 2,
    "num_steps_bw_draws": 2,
    "batch_size": 4,
    "num_init_loss_batches": 2,
    "gradient_accumulation_steps": 2,
    "device": "cpu",
}
ULP = 2.0**-24


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Module, Dataset, dict[str, Any]]:
    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 20, (24, 7))
    rows = Dataset.from_dict({"input_ids": ids.tolist()}).with_format("torch")
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=20, max_position_embeddings=16, **sizes))
    return model, rows, {"text": (rows, 2), "code": (rows, 1)}


@pytest.fixture(scope="module")
def native(problem: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, xr.DataTree]]:
    """Full and restricted runs of ``sltfast.sample``, in memory and read back by xarray alone."""
    model, rows, observables = problem
    folder = tmp_path_factory.mktemp("native")
    found: dict[str, dict[str, xr.DataTree]] = {"memory": {}, "disk": {}}
    for name, masks in {"full": None, "embed": {"gpt_neox.embed_in.weight": None}}.items():
        run = {**SETTINGS, "param_masks": masks, "progress": False}
        found["memory"][name] = sltfast.sample(model, rows, observables, **run)
        sltfast.sample(model, rows, observables, output_path=folder / f"{name}.zarr", **run)
        found["disk"][name] = xr.open_datatree(str(folder / f"{name}.zarr"), engine="zarr", consolidated=False)
    return found


@pytest.fixture(scope="module")
def theirs(problem: Any, tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    model, rows, observables = problem
    path = tmp_path_factory.mktemp("theirs") / "run.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devinterp.slt.sampler._gc_and_empty_cache", lambda: None)
        return their_sample(model, rows, observables, output_path=path, **SETTINGS)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_devinterp_reads_native_trees(native: Any, where: str) -> None:
    full, embed = native[where]["full"], native[where]["embed"]
    ours = sltfast.compute_llc(full, include_burnin=True)
    steps = full["sampling_loss_micro"].sizes
    terms = steps["batch_sampling"] * steps["token_pos"]
    # nβ times a float32 mean of `terms` losses, each at most their largest, on one side
    largest = SETTINGS["n_beta"] * float(full["sampling_loss_micro"].max())
    found = their_llc(full)
    np.testing.assert_allclose(found["loss_trace"], ours["loss_trace"], rtol=0, atol=terms * ULP * largest)
    assert np.isfinite(found["llc_mean"])
    influences = their_bif(full, correlation_method="sequence")["influences"].values
    mine = sltfast.compute_bif(full, correlation_method="sequence", compute_covariance=False, progress=False)
    draws = SETTINGS["num_chains"] * SETTINGS["num_draws"]
    np.testing.assert_allclose(influences, mine["influences"], rtol=0, atol=1e-4, err_msg=f"{draws} draws")
    sus = their_susceptibilities({"full": full, "embed": embed}, "text")["susceptibilities"].dataset
    assert sus["sus"].dims == ("sus_flat", "wr")
    assert np.isfinite(sus["sus"]).all()


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("whose", ["face", "native"])
def test_names_dims_dtypes_and_settings_are_theirs(
    native: Any, theirs: xr.DataTree, problem: Any, tmp_path: Path, whose: str, where: str
) -> None:
    model, rows, observables = problem
    if whose == "native":
        tree = native[where]["full"]
    else:
        path = tmp_path / "run.zarr" if where == "disk" else None
        tree = face_sample(model, rows, observables, output_path=path, **SETTINGS)
    for name, variable in theirs.dataset.data_vars.items():
        mine = tree[str(name)]
        assert (mine.dims, mine.shape, mine.dtype) == (variable.dims, variable.shape, variable.dtype), name
    said, known = tree.attrs["metadata"]["config"], theirs.attrs["metadata"]["config"]
    assert tree.attrs["completed"] == 1
    if whose == "face":
        assert {key: said["sampler"][key] for key in known["sampler"]} == known["sampler"]
        assert said["observables"] == known["observables"]
    assert said["sampler"]["n_beta"] == SETTINGS["n_beta"]


def test_sltfast_reads_theirs(theirs: xr.DataTree) -> None:
    found = sltfast.compute_llc(theirs, include_burnin=True)
    loss = their_llc(theirs)["loss_trace"]
    np.testing.assert_allclose(found["loss_trace"], loss, rtol=1e-5)
