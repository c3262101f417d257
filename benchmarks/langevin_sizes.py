"""The update step alone across sizes: 1e2 … 1e8 coordinates, one tensor or many, 1 and 8 chains, 1 and 2 threads.

Ours, the fewest in-place PyTorch operations that we know, and devinterp 2.0.1 (once a chain; it has no SGHMC).
All are timed in turn; a sample of a short step is the mean over enough calls to last 2 ms. A ratio is the median over
rounds of variant / ours; `ns_per_coordinate` and the floor stand beside it. Small sizes are the price of a call.
Rows go to results/langevin_step_sizes.csv, after `langevin_gate` found the new weights right.
"""

import argparse
import csv
import datetime
import gc
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
from sltfast.ops.langevin_arguments import MOMENTUM_METHODS, RMSPROP_METHODS

RESULTS = Path(__file__).parent / "results" / "langevin_step_sizes.csv"
LR, N_BETA, GAMMA, FRICTION = 1e-5, 10.0, 100.0, 0.1
COLUMNS = [
    *("op", "variant", "numel", "tensors", "chains", "threads", "us_p20", "us_p50", "us_p80", "ns_per_coordinate"),
    *("ratio_to_ours", "rounds", "date", "commit", "isa", "cpu"),
]
Step = Callable[[], object]
SIZES = [  # coordinates of a chain, tensors, chains
    *((10**e, 1, 1) for e in range(2, 9)),
    *((10**6, 100, 1), (10**7, 1000, 1)),
    *((10**e, 1, 8) for e in (2, 4, 6)),
]
EVERY_METHOD = (10**4, 10**6)


def ours(anchors: list[Tensor], grads: list[Tensor], method: str, chains: int) -> Step:
    n, count = anchors[0].numel(), len(anchors)
    w = torch.cat(anchors)[None].repeat(chains, 1)
    t = torch.zeros((), dtype=torch.int64)
    move = ops.LangevinStep(
        w,
        anchors,
        torch.tensor([[s * n, n, s * n, n, 0] for s in range(count)]),
        torch.tensor([[LR, N_BETA, GAMMA, 0.0, 1.0, torch.inf]] * chains, dtype=torch.float64),
        t,
        torch.arange(chains),
        seed=1,
        method=method,
        v=torch.zeros_like(w) if method in RMSPROP_METHODS else None,
        momentum=torch.zeros_like(w) if method in MOMENTUM_METHODS else None,
        thermostat=torch.full((chains,), FRICTION, dtype=torch.float64) if method == "sgnht" else None,
        friction=FRICTION,
        backend="native",
    )

    def step() -> None:
        t.add_(1)
        move(grads)

    return step


def devinterp(anchors: list[Tensor], grads: list[Tensor], method: str, chains: int) -> Step | None:
    from devinterp.optim import SGMCMC

    if method == "sghmc":
        return None
    samplers = []
    for c in range(chains):
        parameters = [torch.nn.Parameter(a.clone()) for a in anchors]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.view(chains, -1)[c]
        options = {"diffusion_factor": FRICTION} if method == "sgnht" else {"localization": GAMMA}
        samplers.append(getattr(SGMCMC, method)(parameters, lr=LR, nbeta=N_BETA, **options))
    return lambda: [sampler.step() for sampler in samplers]


def eager(anchors: list[Tensor], grads: list[Tensor], method: str, chains: int) -> Step:
    """Each tensor of all chains at once."""
    weights = [a.repeat(chains, 1) for a in anchors]
    state = [torch.zeros_like(w) for w in weights] if method != "sgld" else weights
    given = [g.view(chains, -1) for g in grads]
    thermostat = torch.full((chains, 1), FRICTION)

    def sgld() -> None:
        for w, g, a in zip(weights, given, anchors, strict=True):
            w.lerp_(a, LR / 2 * GAMMA).sub_(g, alpha=LR / 2 * N_BETA).add_(torch.randn_like(w), alpha=LR**0.5)

    def rmsprop() -> None:
        for w, g, a, v in zip(weights, given, anchors, state, strict=True):
            v.mul_(0.99).addcmul_(g, g, value=0.01)
            precondition = v.sqrt().add_(0.1).reciprocal_()
            drift = torch.sub(w, a).mul_(GAMMA).add_(g, alpha=N_BETA)
            w.addcmul_(drift, precondition, value=-LR / 2)
            w.addcmul_(torch.randn_like(w), precondition.sqrt_(), value=LR**0.5)

    def inert() -> None:
        keep = 1 - thermostat if method == "sgnht" else 1 - FRICTION
        heat, n = 0.0, 0
        for w, g, a, m in zip(weights, given, anchors, state, strict=True):
            m.mul_(keep).add_(g, alpha=-LR / 2 * N_BETA).add_(w - a, alpha=-LR / 2 * GAMMA)
            m.add_(torch.randn_like(w), alpha=(FRICTION * LR) ** 0.5)
            w.add_(m)
            if method == "sgnht":
                heat, n = heat + m.square().sum(1, keepdim=True), n + m.shape[1]
        if method == "sgnht":
            thermostat.add_(heat / n - LR / (2 - thermostat))

    return sgld if method == "sgld" else rmsprop if method in RMSPROP_METHODS else inert


def floor(numel: int, method: str) -> Step:
    """The bytes of a step of one chain, in place."""
    w, g, anchor = (np.ones(numel, dtype=np.float32) for _ in range(3))
    state = np.zeros_like(w) if method != "sgld" else None
    return lambda: _C.touch_operands(w, g, anchor, state)


def steps(method: str, numel: int, tensors: int, chains: int) -> dict[str, Step]:
    anchors = list(torch.randn(numel).chunk(tensors))
    grads = [torch.randn(chains, a.numel()) for a in anchors]
    table: dict[str, Step | None] = {
        "ours": ours(anchors, grads, method, chains),
        "eager": eager(anchors, grads, method, chains),
        "devinterp": devinterp(anchors, grads, method, chains),
        "floor: memory": floor(numel, method) if chains == 1 else None,
        "floor: noise": lambda: _C.draw_and_discard(numel * chains),
    }
    return {name: step for name, step in table.items() if step is not None}


def microseconds(step: Step, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return 1e6 * (time.perf_counter() - start) / calls


def measure(table: dict[str, Step], rounds: int) -> dict[str, np.ndarray]:
    calls = {}
    for name, step in table.items():
        step()
        calls[name] = max(1, int(2000 / microseconds(step, 1)))
    taken: dict[str, list[float]] = {name: [] for name in table}
    for _ in range(rounds):
        for name, step in table.items():
            taken[name].append(microseconds(step, calls[name]))
    return {name: np.array(times) for name, times in taken.items()}


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    """Check, measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds; a third of them from 1e7 on")
    parser.add_argument("--largest", type=float, default=1e8, help="leave larger sizes out")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file to write")
    options = parser.parse_args()

    warnings.simplefilter("ignore")
    refuse_unless_equal()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    facts = [str(datetime.date.today()), commit, str(_C.build_facts()["isa"]), cpu_name()]
    rows = []
    for (numel, tensors, chains), method in itertools.product(SIZES, ops.METHODS):
        common = method in ("sgld", "rmsprop_sgld")
        wanted = common or (method in MOMENTUM_METHODS and numel in EVERY_METHOD and tensors == 1)
        if numel > options.largest or not wanted:
            continue
        table = steps(method, numel, tensors, chains)
        for threads in options.threads:
            torch.set_num_threads(threads)
            rounds = options.rounds if numel < 10**7 else max(3, options.rounds // 3)
            times = measure(table, rounds)
            for name, taken in times.items():
                low, middle, high = np.percentile(taken, (20, 50, 80))
                ratio = float(np.median(taken / times["ours"]))
                shape = f"{method:13} {name:14} {numel:10} {tensors:5} {chains:2} {threads:2}"
                print(f"{shape} {middle:12.1f} us  {ratio:8.2f} / ours", flush=True)
                numbers = [f"{x:.2f}" for x in (low, middle, high)]
                each = f"{1e3 * middle / (numel * chains):.3f}"
                rows.append(
                    [method, name, numel, tensors, chains, threads, *numbers, each, f"{ratio:.3f}", rounds, *facts]
                )
        del table
        gc.collect()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
