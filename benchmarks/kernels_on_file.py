"""Regimes whose variants a script of its own measures: run it, and read the table that it writes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.case import Deferred, Disagreement, Plan, Result, Variant
from benchmarks.machine import ROOT


@dataclass(frozen=True)
class Script:
    """A benchmark that compares its sides itself and exits with a message where they differ.

    Attributes:
        file: in benchmarks/.
        key: columns that tell its cases apart; the first reads as a word.
        peers: preferred first; the first that a case has is the one of the ratio. More variants of ours are listed too
            and are no peers.
        floors: likewise.
        target: of the ratio.
        table: the file it writes where ``--output`` is a folder, else empty.
        tiny: arguments that make it small.
        largest_floor: the floor reported is the largest, not the first.
    """

    file: str
    key: Sequence[str]
    peers: Sequence[str]
    floors: Sequence[str]
    target: str
    table: str = ""
    tiny: Sequence[str] = ()
    largest_floor: bool = False

    def case(self, regime: str, name: str) -> Deferred:
        return Deferred(regime, name, lambda plan: self.measured(plan, regime))

    def measured(self, plan: Plan, regime: str) -> list[Result]:
        """Every case of the script's table.

        Raises:
            Disagreement: the script found its sides unequal, or failed; what it said is in the message.
        """
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / (self.table or "table.csv")
            where = output.parent if self.table else output
            command = [sys.executable, str(ROOT / "benchmarks" / self.file), "--rounds", str(plan.pairs)]
            command += ["--threads", str(plan.threads), "--output", str(where), *(self.tiny if plan.tiny else ())]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), *sys.path[1:])))}
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if run.returncode:
                raise Disagreement(f"{self.file} refused: {run.stderr.strip().splitlines()[-1]}")
            with output.open(newline="") as file:
                rows = list(csv.DictReader(file))
        tables: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
        for row in rows:
            tables.setdefault(tuple(row[column] for column in self.key), {})[row["variant"]] = row
        return [self._result(regime, key, variants) for key, variants in tables.items()]

    def _result(self, regime: str, key: tuple[str, ...], found: Mapping[str, Mapping[str, str]]) -> Result:
        def ordered(preferred: Sequence[str]) -> list[str]:
            return [name for name in preferred if name in found]

        floors = ordered(self.floors)
        if self.largest_floor:
            floors.sort(key=lambda name: -float(found[name]["ms_p50"]))
        names = {"ours": "ours", **dict.fromkeys(ordered(self.peers), "peer"), **dict.fromkeys(floors, "floor")}
        names |= {name: "variant" for name in names if name.startswith("ours") and name != "ours"}
        ours = float(found["ours"]["ms_p50"])
        variants = {
            name: Variant(
                role,
                *(float(found[name][column]) for column in ("ms_p20", "ms_p50", "ms_p80")),
                ratio_to_ours=float(found[name].get("ratio_to_ours") or float(found[name]["ms_p50"]) / ours),
            )
            for name, role in names.items()
        }
        word, *sizes = key
        case = f"{word}, {' × '.join(sizes)}" if word.isidentifier() or " " in word else " × ".join(key)
        return Result(regime, case, "ms", "call", variants, self.target, "checked by its script")
