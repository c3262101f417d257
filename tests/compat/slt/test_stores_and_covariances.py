"""The pieces beside ``sample``: covariances of series, the layout of a store and its writer, masks by name."""

from pathlib import Path

import devinterp.slt.covariance as their_covariance
import devinterp.slt.weight_restrictions as their_restrictions
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from zarr.storage import LocalStore

from sltfast.compat.devinterp.slt import covariance, weight_restrictions
from sltfast.compat.devinterp.slt.writing import ZarrWriter
from sltfast.compat.devinterp.slt.zarr_schema import DataArraySpec, ZarrSchema


@pytest.mark.parametrize("name", ["batch_cov", "batch_corrcoef"])
def test_covariances_of_batches(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, s, 30, generator=generator, dtype=torch.float64) for n, s in ((3, 2), (4, 5)))
    theirs = getattr(their_covariance, name)(a, b)
    # sums of 30 products in float64
    torch.testing.assert_close(getattr(covariance, name)(a, b), theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("of_covariances", [False, True])
def test_correlations_of_rows(of_covariances: bool) -> None:
    draws = np.random.default_rng(0).normal(size=(7, 20))
    first, second = (xr.DataArray(rows, dims=("batch", "draw")) for rows in (draws[:3], draws[3:]))
    options = {"device": "cpu", "compute_covariance": of_covariances}
    theirs = their_covariance.xr_corrcoef_with_torch_backend(first, second, **options)
    xr.testing.assert_identical(covariance.xr_corrcoef_with_torch_backend(first, second, **options), theirs)


def test_rows_that_are_pushed_are_read_back(tmp_path: Path) -> None:
    spec = DataArraySpec(shape=(2, 5, 3), dims=("chain", "draw", "token"), dtype_str="float32", chunks=(1, 2, 3))
    whole = DataArraySpec(shape=(2,), dims=("chain",), dtype_str="int64")
    _, arrays = ZarrSchema({"loss": spec, "seed": whole}, {"": {"kind": "run"}}).create_hierarchy(
        LocalStore(tmp_path / "run.zarr")
    )
    rows = torch.arange(30.0).view(2, 5, 3)
    with ZarrWriter.open(arrays, 2, torch.device("cpu")) as writer:
        writer.write("seed", np.array(7), chain=1)
        for chain in range(2):
            for draw in range(5 - chain):
                writer.push("loss", rows[chain, draw], chain=chain, draw=draw)
                writer.flush_full_buffers()
        with pytest.raises(AssertionError, match="Row index mismatch"):
            writer.push("loss", rows[0, 0], chain=0, draw=0)
        with pytest.raises(ValueError, match="Unexpected dimensions"):
            writer.write("seed", np.array(7), draw=1)
    stored = xr.open_datatree(str(tmp_path / "run.zarr"), engine="zarr", consolidated=False)
    assert stored.attrs == {"kind": "run"}
    assert stored["seed"].values.tolist() == [0, 7]
    wanted = rows.numpy().copy()
    wanted[1, 4] = np.nan
    np.testing.assert_array_equal(stored["loss"].values, wanted)


def test_a_dtype_that_torch_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="Unsupported dtype"):
        DataArraySpec(shape=(1,), dims=("x",), dtype_str="U4")


@pytest.mark.parametrize(
    "name", ["full", "l0", "L1H1", "l0 h0", "l1g0", "l0 attn", "l1 mlp", "embed", ["l0h0", "l0h1", "l1"]]
)
def test_masks_are_devinterps(model: nn.Module, name: str | list[str]) -> None:
    theirs = their_restrictions.create_param_masks(model, name)
    ours = weight_restrictions.create_param_masks(model, name)
    assert list(theirs) == list(ours)
    for key, mask in theirs.items():
        assert (mask is None) == (ours[key] is None)
        assert mask is None or torch.equal(mask, ours[key])


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("l9", ValueError, r"Layer 9 out of range \(model has 2 layers"),
        ("l0h9", ValueError, "Head 9 out of range"),
        ("l0g9", ValueError, "Group 9 out of range"),
        ("zz", ValueError, "Unknown restriction"),
        (["full", "l0"], ValueError, "Cannot combine 'full'"),
        (3, TypeError, "str or list"),
    ],
)
def test_names_of_no_part_are_refused(model: nn.Module, name: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        weight_restrictions.create_param_masks(model, name)  # type: ignore[arg-type]


def test_a_preview_names_what_moves(model: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    masks = weight_restrictions.create_param_masks(model, "l0h1")
    weight_restrictions.preview_weight_restriction(model, masks, plain=True)
    assert capsys.readouterr().out.split() == sorted(masks)
    weight_restrictions.preview_weight_restriction(model, masks)
    assert "50.0 %  (128 of 256)" in capsys.readouterr().out
