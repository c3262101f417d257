"""A result that is read has its groups in the order in which they were written."""

from pathlib import Path

import xarray as xr

from sltfast.results.computed import GROUPS, read, result_path, save, saved


def test_groups_keep_their_order(tmp_path: Path) -> None:
    names = [f"{letter}{number}" for number in range(4) for letter in "zmaq"]  # 16! orders: chance keeps none of them
    result = xr.DataTree.from_dict({name: xr.Dataset({"x": ("i", [1.0, 2.0])}) for name in names})
    path = result_path(tmp_path / "run.zarr", "susceptibilities")
    save(result, path, "susceptibilities", "of these runs")
    again = saved(path, "of these runs")
    assert again is not None
    assert list(again.children) == names
    assert again.identical(result)


def test_a_result_without_their_order_is_read_by_name(tmp_path: Path) -> None:
    result = xr.DataTree.from_dict({name: xr.Dataset({"x": 1.0}) for name in "dbca"})
    path = result_path(tmp_path / "run.zarr", "susceptibilities")
    result.to_zarr(path, consolidated=False)
    assert GROUPS not in result.attrs
    with read(path) as tree:
        assert list(tree.children) == list("abcd")
