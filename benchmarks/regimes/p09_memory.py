"""P9: peak memory beside the user's model, in multiples of the model's bytes P; every peak in a process of its own.

The floor is what one chain in flight must hold: weights and gradient (RMSprop: and second moments); w* is the user's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.agreement import Estimate, estimates_agree
from benchmarks.case import Deferred, Disagreement, Plan, Result, Variant
from benchmarks.machine import ROOT
from benchmarks.peers import devinterp_calls

METHODS = {"sgmcmc_sgld": ("SGLD", 2), "rmsprop_sgld": ("RMSprop", 3)}  # and the floor in P
SHAPES = {"few tensors": (1, 4096), "many tensors": (64, 512)}  # layers, width: 64 MiB both


@dataclass(frozen=True)
class Peak:
    """One run whose peak is wanted."""

    method: str
    layers: int
    width: int
    draws: int
    chains: int

    def of(self, side: str, threads: int) -> dict[str, float]:
        """What ``benchmarks.peak`` prints.

        Raises:
            Disagreement: the process failed.
        """
        command = [sys.executable, "-m", "benchmarks.peak", "--side", side, "--threads", str(threads)]
        for name in ("method", "layers", "width", "draws", "chains"):
            command += [f"--{name}", str(getattr(self, name))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])}
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            raise Disagreement(f"{side} failed: {run.stderr.strip().splitlines()[-1]}")
        found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
        return found


def measured(plan: Plan, regime: str, name: str, peak: Peak) -> list[Result]:
    sides = ["ours"]
    if devinterp_calls.NAME not in plan.without:
        devinterp_calls.need()
        sides.append(devinterp_calls.NAME)
    found = {side: peak.of(side, plan.threads) for side in sides}
    agreement = estimates_agree({side: Estimate(said["llc"], said["llc_se"]) for side, said in found.items()})
    parameters, largest = found["ours"]["parameters"], found["ours"]["largest"]
    floor = METHODS[peak.method][1]
    variants = {}
    for side, said in found.items():
        multiple = said["peak"] / parameters
        note = f"{said['peak'] / 2**20:.0f} MiB"
        role = "ours" if side == "ours" else "peer"
        ratio = said["peak"] / found["ours"]["peak"]
        variants[side] = Variant(role, multiple, multiple, multiple, ratio, said["llc"], said["llc_se"], note=note)
    ratio = floor * parameters / found["ours"]["peak"]
    variants["floor: one chain in flight"] = Variant("floor", floor, floor, floor, ratio)
    target = f"≤ {floor + 0.1 + largest / parameters:.2f} P" if peak.chains == 1 else ""
    return [Result(regime, name, "P", "run", variants, target, agreement)]


def cases(plan: Plan, regime: str) -> Iterator[Deferred]:
    few, many = (8, 32) if plan.tiny else (16, 200)
    for method, (word, _) in METHODS.items():
        for tensors, (layers, width) in SHAPES.items():
            if plan.tiny:
                layers, width = (1, 512) if layers == 1 else (16, 128)
            runs = [(few, 1), (many, 1), (few, 4)] if method == "sgmcmc_sgld" else [(few, 1)]
            for draws, chains in runs:
                name = f"{word}, {tensors}, {chains} {'chain' if chains == 1 else 'chains'} × {draws}"
                peak = Peak(method, layers, width, draws, chains)
                yield Deferred(regime, name, lambda plan, n=name, p=peak: measured(plan, regime, n, p))  # type: ignore[misc]
