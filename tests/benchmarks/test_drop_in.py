"""The benchmark of both packages runs the same text, and reports no ratio of what disagrees."""

import csv
import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import drop_in, drop_in_scripts, readme_tables


def test_the_script_is_the_same_for_both_packages() -> None:
    script = "import devinterp.slt.llc as module\nresult = module.llc.__module__\n"
    assert drop_in.run(script, {}, drop_in.OURS) == "sltfast.compat.devinterp.slt.llc"
    assert drop_in.run(script, {}, drop_in.THEIRS) == "devinterp.slt.llc"
    assert type(sys.modules["devinterp"]) is ModuleType


def test_a_case_is_written_and_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "drop_in.csv"
    words = ["--small", "--case", "P7", "--pairs", "1", "--output", str(path)]
    assert drop_in.main(words) == 0
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["package"] for row in rows] == ["sltfast", "devinterp"]
    assert float(rows[1]["ratio_to_ours"]) == pytest.approx(
        float(rows[1]["ms_p50"]) / float(rows[0]["ms_p50"]), rel=1e-3
    )
    assert "compute_bif of a tree" in readme_tables.drop_in(rows)
    assert drop_in.main(words) == 0
    assert "nothing to measure" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) == 3


def test_what_disagrees_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def strict(*, small: bool) -> drop_in_scripts.DropIn:
        case = drop_in_scripts.token_bif(small=small)
        return dataclasses.replace(
            case, script=case.script + "result += 1e-3 * ('sltfast' in compute_bif.__module__)\n"
        )

    monkeypatch.setitem(drop_in.CASES, "P7", drop_in_scripts.Recipe(strict, 0.0))
    path = tmp_path / "drop_in.csv"
    assert drop_in.main(["--small", "--case", "P7", "--output", str(path)]) == 1
    assert not path.exists()
    assert "with noise 0 the results are 0.001 apart" in capsys.readouterr().err
