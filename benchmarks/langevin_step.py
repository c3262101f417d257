"""The update step alone (P1): sltfast against devinterp 2.0.1, eager PyTorch and the two floors of the machine.

All variants move the same 20M float32 coordinates with localization on, in turn within one run, so that a slow minute
hits all; once as 20 tensors, and once as a single one (where eager temporaries are fresh pages each time). Floors:
`memory` reads and writes what a step must (3 reads, 1 write; RMSprop 4 and 2) with next to no arithmetic, `noise` draws
the normals and keeps them in cache. A ratio is the median over rounds of variant / ours.
One row a variant and thread count, written to results/langevin_step.csv, once `langevin_gate` found the weights right.
"""

import argparse
import csv
import datetime
import itertools
import platform
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from langevin_gate import refuse_unless_equal
from torch import Tensor

from sltfast import _C, ops

RESULTS = Path(__file__).parent / "results" / "langevin_step.csv"
LR, N_BETA, GAMMA = 1e-5, 10.0, 100.0
COLUMNS = [
    *("op", "variant", "tensors", "threads", "numel", "ms_p20", "ms_p50", "ms_p80", "ratio_to_ours"),
    *("rounds", "date", "commit", "isa", "cpu"),
]
Steps = dict[str, Callable[[], object]]


class Ours:
    """One chain through `ops.LangevinStep`."""

    def __init__(self, anchors: list[Tensor], grads: list[Tensor], method: str, *, measured: bool = False) -> None:
        n, count = anchors[0].numel(), len(anchors)
        self.grads = grads
        self.step = torch.zeros((), dtype=torch.int64)
        w = torch.cat(anchors)[None].clone()
        table = [[s * n, n, s * n, n, 0] for s in range(count)]
        hyper = torch.tensor([[LR, N_BETA, GAMMA, 0.0, 1.0, torch.inf]], dtype=torch.float64)
        self.move = ops.LangevinStep(
            w,
            anchors,
            torch.tensor(table),
            hyper,
            self.step,
            torch.zeros(1, dtype=torch.int64),
            seed=1,
            method=method,
            v=torch.zeros_like(w) if method != "sgld" else None,
            metrics=torch.zeros(1, 9, dtype=torch.float64) if measured else None,
            backend="native",
        )

    def __call__(self) -> None:
        self.step += 1
        self.move(self.grads)


def devinterp_step(anchors: list[Tensor], grads: list[Tensor], method: str, **options: bool) -> Callable[[], object]:
    from devinterp.optim import SGMCMC

    parameters = [torch.nn.Parameter(a.clone()) for a in anchors]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    return getattr(SGMCMC, method)(parameters, lr=LR, nbeta=N_BETA, localization=GAMMA, **options).step


def eager_step(anchors: list[Tensor], grads: list[Tensor], method: str) -> Callable[[], object]:
    """The fewest in-place PyTorch operations that we know for the same update."""
    weights = [a.clone() for a in anchors]
    moments = [torch.zeros_like(a) for a in anchors]

    def sgld() -> None:
        for w, g, a in zip(weights, grads, anchors, strict=True):
            w.lerp_(a, LR / 2 * GAMMA).sub_(g, alpha=LR / 2 * N_BETA).add_(torch.randn_like(w), alpha=LR**0.5)

    def rmsprop() -> None:
        for w, g, a, v in zip(weights, grads, anchors, moments, strict=True):
            v.mul_(0.99).addcmul_(g, g, value=0.01)
            precondition = v.sqrt().add_(0.1).reciprocal_()
            drift = torch.sub(w, a).mul_(GAMMA).add_(g, alpha=N_BETA)
            w.addcmul_(drift, precondition, value=-LR / 2)
            w.addcmul_(torch.randn_like(w), precondition.sqrt_(), value=LR**0.5)

    return sgld if method == "sgld" else rmsprop


def floor(anchors: list[Tensor], grads: list[Tensor], method: str) -> Callable[[], object]:
    w, g, anchor = torch.cat(anchors).numpy(), torch.cat(grads).numpy(), torch.cat(anchors).numpy()
    v = np.zeros_like(w) if method != "sgld" else None
    return lambda: _C.touch_operands(w, g, anchor, v)


def variants(numel: int, tensors: int) -> dict[str, Steps]:
    """By method: what to time, ours first."""
    anchors = list(torch.randn(numel).chunk(tensors))
    grads = list(torch.randn(numel).chunk(tensors))
    table: dict[str, Steps] = {}
    for method in ("sgld", "rmsprop_sgld"):
        table[method] = {
            "ours": Ours(anchors, grads, method),
            "ours, metrics": Ours(anchors, grads, method, measured=True),
            "floor: memory": floor(anchors, grads, method),
            "floor: noise": lambda: _C.draw_and_discard(numel),
            "eager": eager_step(anchors, grads, method),
            "devinterp": devinterp_step(anchors, grads, method),
            "devinterp, metrics": devinterp_step(anchors, grads, method, save_metrics=True),
        }
    return table


def milliseconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def measure(table: dict[str, Steps], rounds: int) -> dict[tuple[str, str], np.ndarray]:
    times: dict[tuple[str, str], list[float]] = {}
    for round_ in range(rounds + 1):
        for method, steps in table.items():
            for name, step in steps.items():
                # cheap steps are timed more often: the least of them is what the round says
                repeats = 1 if "devinterp" in name or name == "eager" else 3
                taken = min(milliseconds(step) for _ in range(repeats))
                if round_:
                    times.setdefault((method, name), []).append(taken)
    return {key: np.array(taken) for key, taken in times.items()}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of all variants (default 9)")
    parser.add_argument("--numel", type=int, default=20_000_000, help="coordinates (default 20M)")
    parser.add_argument("--tensors", type=int, nargs="+", default=[20, 1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file to write")
    options = parser.parse_args()

    warnings.simplefilter("ignore")
    refuse_unless_equal()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    facts = [str(datetime.date.today()), commit, str(_C.build_facts()["isa"]), cpu_name()]
    rows = []
    print(f"{'op':13} {'variant':20} tensors threads {'p20':>8} {'p50':>8} {'p80':>8} ms   / ours")
    for tensors, threads in itertools.product(options.tensors, options.threads):
        torch.set_num_threads(threads)
        times = measure(variants(options.numel, tensors), options.rounds)
        for (method, name), taken in times.items():
            low, middle, high = np.percentile(taken, (20, 50, 80))
            ratio = float(np.median(taken / times[method, "ours"]))
            shape = f"{method:13} {name:20} {tensors:7} {threads:7}"
            print(f"{shape} {low:8.2f} {middle:8.2f} {high:8.2f}    {ratio:7.2f}", flush=True)
            numbers = [f"{x:.3f}" for x in (low, middle, high, ratio)]
            rows.append([method, name, tensors, threads, options.numel, *numbers, options.rounds, *facts])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
