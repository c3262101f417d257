"""Peak memory of one ``llc()`` in this process, beside what it held before: what fresh processes run for P9.

    python -m benchmarks.peak --side ours --method sgmcmc_sgld --layers 1 --width 4096 --draws 10

Prints a JSON object: peak and parameters in bytes, λ̂ and its error. The peak is the kernel's (VmHWM), forgotten just
before the run, after a run of a small model that loads code and workspaces.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import torch
from torch import nn

from benchmarks.agreement import Estimate, of_ours, of_trace
from benchmarks.case import Unavailable
from benchmarks.models import Regression
from benchmarks.peers import devinterp_calls
from benchmarks.regimes.estimates import ours
from benchmarks.timing import quiet

ROWS, BATCH = 16, 4
SETTINGS = {"lr": 1e-6, "n_beta": 10.0, "localization": 100.0, "batch_size": BATCH}


def deep(layers: int, width: int) -> Regression:
    """Square layers without activations to speak of, at a minimum."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    x = torch.randn(ROWS, width)
    with torch.no_grad():
        y = model(x) + 0.1 * torch.randn(ROWS, width)
    return Regression(model, (x, y))


def sampled(side: str, problem: Regression, method: str, draws: int, chains: int) -> Estimate:
    """λ̂ of a run."""
    settings: dict[str, Any] = {**SETTINGS, "num_draws": draws, "num_chains": chains, "sampling_method": method}
    if side == "ours":
        return of_ours(ours(problem.model, problem.data, settings, loss_fn=problem.loss))
    x, y = problem.data
    loss_fn = devinterp_calls.by_row_number(problem.loss, x, y)
    result = devinterp_calls.llc(problem.model, devinterp_calls.row_numbers(len(x)), loss_fn=loss_fn, **settings)
    return of_trace(result["loss_trace"].values, problem.level(), SETTINGS["n_beta"])


def resident(field: str) -> int:
    """Bytes of a field of /proc/self/status: VmRSS, or VmHWM, its peak.

    Raises:
        Unavailable: not a Linux system.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError as error:
        raise Unavailable("peaks are read from /proc/self/status, which only Linux has") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=("ours", "devinterp"), required=True)
    parser.add_argument("--method", default="sgmcmc_sgld")
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--chains", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run = (options.method, options.draws, options.chains)
    with quiet():
        sampled(options.side, deep(options.layers, 8), *run)
        problem = deep(options.layers, options.width)
        problem.level()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before = resident("VmRSS")
        found = sampled(options.side, problem, *run)
    peak = resident("VmHWM") - before
    parameters = [p.numel() * p.element_size() for p in problem.model.parameters()]
    sizes = {"parameters": sum(parameters), "largest": max(parameters)}
    print(json.dumps({"peak": peak, **sizes, "llc": found.value, "llc_se": found.se}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
