"""The harness of the regimes: what it reports, what it refuses, and where the numbers go. No time is asserted."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import figures, readme_tables, report, run
from benchmarks.agreement import Estimate, arrays_agree, estimates_agree, of_trace, tables_agree
from benchmarks.case import Case, Disagreement, Measurable, Plan, Side, Unavailable
from benchmarks.machine import FACTS
from benchmarks.timing import Timed

PROMISED = {"regime", "case", "ours_ms", "peer_ms", "ratio", "floor_ms"}
PLAN = Plan(pairs=2)


def case(name: str, ours: float, theirs: float, axis: str = "", size: float | None = None) -> Timed:
    """A case of two sides that find these λ̂, with errors of 1."""
    return Timed(
        Case(
            regime="P3",
            name=name,
            per="call",
            ours=Side(lambda: Estimate(ours, 1.0)),
            peers={"other": Side(lambda: Estimate(theirs, 1.0))},
            floors={"floor: nothing": Side(lambda: None)},
            agree=estimates_agree,
            target="≥ 2×",
            axis=axis,
            size=size,
        )
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_regime_is_measured_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "regimes.csv"
    threads = str(torch.get_num_threads())
    options = ["--tiny", "--pairs", "2", "--threads", threads, "--without", "devinterp", "--output", str(table)]
    assert run.main(["--regime", "p3", "--json", *options]) == 0
    said = capsys.readouterr()
    (result,) = json.loads(said.out)
    assert set(result) >= PROMISED
    assert result["regime"] == "P3"
    assert result["peer_name"] == "vmap loop"
    assert min(result["ours_ms"], result["peer_ms"], result["ratio"], result["floor_ms"]) > 0
    assert "P3 MLP" in said.err
    rows = rows_of(table)
    assert {row["variant"]: row["role"] for row in rows} == {
        "ours": "ours",
        "vmap loop": "peer",
        "floor: GEMMs": "floor",
        "floor: triad": "floor",
        "floor: other ops": "floor",
    }
    for row in rows:
        assert tuple(row) == report.COLUMNS
        assert float(row["p20"]) <= float(row["p50"]) <= float(row["p80"])
        assert all(row[fact] for fact in set(FACTS) - {"devinterp", "cpu", "sltfast"})
    assert float(rows[0]["llc_se"]) > 0


def test_a_case_whose_sides_disagree_is_refused_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cases(name: str, plan: Plan) -> Iterator[Measurable]:
        yield case("wrong", ours=10.0, theirs=20.0)
        yield case("right", ours=10.0, theirs=12.0)

    monkeypatch.setattr(run, "cases", cases)
    table = tmp_path / "regimes.csv"
    options = ["--pairs", "1", "--threads", str(torch.get_num_threads()), "--output", str(table)]
    assert run.main(["--regime", "P3", "--json", *options]) == 1
    said = capsys.readouterr()
    assert [result["case"] for result in json.loads(said.out)] == ["right"]
    assert "REFUSED P3 wrong" in said.err
    assert "7.1 standard errors apart" in said.err  # 10 / √2
    assert {row["case"] for row in rows_of(table)} == {"right"}


def test_what_cannot_be_measured_here_stops_no_other_regime(tmp_path: Path) -> None:
    def unavailable() -> Iterator[Measurable]:
        raise Unavailable("install it")
        yield

    groups = [("P12", unavailable()), ("P3", iter([case("right", 1.0, 1.0)]))]
    results, refused = run.measured(groups, PLAN, tmp_path / "regimes.csv")
    assert [result.case for result in results] == ["right"]
    assert refused == ["P12: install it"]


def test_an_unknown_regime_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(["--regime", "P3", "P99"])
    assert stopped.value.code == 2
    assert "unknown regime P99: there are P1 (update step alone), P2" in capsys.readouterr().err


@pytest.mark.parametrize(("apart", "error"), [(5.1, 1.0), (math.nan, 1.0), (0.0, math.nan), (1.0, 0.0)])
def test_estimates_that_do_not_agree(apart: float, error: float) -> None:
    with pytest.raises(Disagreement, match="no time is worth reporting"):
        estimates_agree({"ours": Estimate(1.0, 0.0), "other": Estimate(1.0 + apart, error)})


def test_estimates_that_agree() -> None:
    assert estimates_agree({"ours": Estimate(1.0, 3.0), "other": Estimate(11.0, 4.0)}) == "other: 2.0 SE"
    shared = {"ours": {"a": Estimate(1.0, 1.0), "b": Estimate(9.0, 1.0)}, "other": {"a": Estimate(1.0, 1.0)}}
    assert tables_agree(shared) == "other: at most 0.0 SE over 1"
    with pytest.raises(Disagreement, match="no estimate in common"):
        tables_agree({"ours": {"a": Estimate(1.0, 1.0)}, "other": {}})


def test_arrays_agree_to_a_tolerance() -> None:
    assert arrays_agree({"ours": torch.ones(3), "other": torch.ones(3)}, rtol=0, atol=0)
    with pytest.raises(Disagreement, match="other differs from ours"):
        arrays_agree({"ours": torch.ones(3), "other": torch.ones(3) + 1e-3}, rtol=1e-4, atol=0)


def test_the_estimate_of_a_trace_covers_the_noise_of_shared_batches() -> None:
    """Chains on the same batches: losses are a batch's level, unit normal, and nothing else; λ̂ is 0, off by SE."""
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(400, generator=generator, dtype=torch.float64)
    found = of_trace(level.expand(4, 400) + 1e-3 * torch.randn(4, 400, generator=generator), level=0.0, n_beta=10.0)
    assert found.se >= 10.0 * float(level.std(correction=0)) / math.sqrt(400) * 0.99
    assert abs(found.value) <= 5 * found.se


def test_rows_are_not_mixed_with_other_columns(tmp_path: Path) -> None:
    table = tmp_path / "regimes.csv"
    table.write_text("regime,case\n")
    with pytest.raises(ValueError, match="move it away"):
        report.append(table, [])


def test_numbers_that_are_not_finite_are_null() -> None:
    ((result,), _) = ([*case("one", 1.0, 1.0).measure(PLAN)], None)
    broken: Any = {**result.variants, "other": result.variants["other"].__class__("peer", 1, 1, 1, math.inf)}
    said = json.loads(report.as_json([result.__class__(**{**vars(result), "variants": broken})]))
    assert said[0]["ratio"] is None


def test_tables_and_figures_come_from_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.measured([("P3", [case("one", 1.0, 1.0)])], PLAN, tmp_path / "regimes.csv")
    run.measured([("P3", [case("one", 1.0, 1.0)])], PLAN, tmp_path / "regimes.csv")
    points = [case(f"{n} chains", 1.0, 1.0, axis="chains", size=n) for n in (1, 2)]
    run.measured([("chains", points)], PLAN, tmp_path / "scaling.csv")
    table = readme_tables.regimes(list(rows_of(tmp_path / "regimes.csv"))).splitlines()
    assert len(table) == 3  # the case as last measured
    assert table[2].startswith("| P3 one | call |")
    assert "≥ 2×" in table[2]
    assert figures.main(["--results", str(tmp_path), "--output", str(tmp_path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == ["speedups.svg", "scaling.svg"]
    assert "P3 one" in written[0].read_text()
    assert "chains" in written[1].read_text()
