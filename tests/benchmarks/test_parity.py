"""The table of parity: it runs, and tells a difference of one bit, of a NaN and of a distribution."""

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks import parity, readme_tables


def test_a_small_table_is_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "parity.csv"
    assert parity.main(["--small", "--output", str(path)]) == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == parity.COLUMNS
    stored = [row for row in rows if row["compared"] == "every stored array"]
    wanted = [f"{case}, {kind}" for kind in ("float32", "float64") for case in parity.EXACT]
    assert [row["case"] for row in stored] == wanted
    assert all(row["same_bits"] == row["arrays"] and int(row["arrays"]) >= 8 for row in stored)
    assert all(float(row["p"]) > parity.LEVEL for row in rows if row["mode"] == "fast")
    assert all(float(row["p"]) < parity.LEVEL for row in rows if row["mode"] == "power")
    for mode, count in {"exact": len(parity.EXACT) + 3, "fast": 3, "power": 4}.items():
        assert len(readme_tables.TABLES[f"parity: {mode}"](rows).splitlines()) == 2 + count
    assert "DIFFERS" not in capsys.readouterr().err


def test_one_bit_is_a_difference() -> None:
    theirs = {"/ a": np.array([1.0, np.nan], np.float32), "/ b": np.array(["x"])}
    assert parity.compared(theirs, {**theirs, "/sltfast own": np.zeros(1)}) == (2, 2, 0.0)
    nudged = np.array([np.nextafter(np.float32(1), np.float32(2)), np.nan], np.float32)
    assert parity.compared(theirs, {**theirs, "/ a": nudged}) == (2, 1, 2.0**-23)


@pytest.mark.parametrize(
    "ours",
    [{}, {"/ a": np.zeros(3, np.float32)}, {"/ a": np.zeros(2)}, {"/ a": np.array([np.nan, np.nan], np.float32)}],
    ids=["missing", "shape", "dtype", "NaN"],
)
def test_what_is_not_the_same_array_is_never_near(ours: dict[str, np.ndarray]) -> None:
    _, same, largest = parity.compared({"/ a": np.zeros(2, np.float32)}, ours)
    assert same == 0
    assert not largest < np.inf


def test_what_sltfast_records_of_its_own_is_left_out() -> None:
    tree = xr.DataTree.from_dict({"/": xr.Dataset({"a": 1}), "/sltfast": xr.Dataset({"own": 2})})
    assert list(parity.arrays(tree)) == ["/ a"]


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"mode": "exact", "compared": "every stored array", "arrays": "8", "same_bits": "7"}, True),
        ({"mode": "exact", "compared": "compute_llc", "arrays": "6", "same_bits": "6"}, False),
        ({"mode": "exact", "compared": "compute_bif", "largest_difference": f"{parity.SUMS}"}, False),
        ({"mode": "exact", "compared": "compute_bif", "largest_difference": f"{2 * parity.SUMS}"}, True),
        ({"mode": "exact", "compared": "compute_susceptibilities", "largest_difference": "nan"}, True),
        ({"mode": "fast", "p": "2e-4"}, False),
        ({"mode": "fast", "p": "1e-5"}, True),
        ({"mode": "power", "p": "1e-5"}, False),
        ({"mode": "power", "p": "2e-4"}, True),
    ],
)
def test_which_rows_are_wrong(row: dict[str, str], wrong: bool) -> None:
    assert parity.differs(row) is wrong
