"""A layer's step in the epilogue of its gradient's product, and the two ways to multiply per-sample gradients.

step: one chain, float32, localization on; N positions, a weight of R × K.
    ours                          the fused step
    mm, then langevin_step_       the same with the gradient stored
    baddbmm, eager                prior and noise by torch, then the product added into w (β = 1)
    floor: mm                     the product alone, into a buffer that is there
products: squared gradient norms of B = 8 samples of T positions.
    auto, ghost, formed           ours
    stored                        all gradients at once, then their squares: memory B·R·K
    floor: mm                     one batched product of all gradients, B·R·K kept
A ratio is the median over rounds of variant / ours (auto). One row a variant, shape and thread count, written to
results/grouped_gradient.csv.
"""

import argparse
import csv
import datetime
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from langevin_step import cpu_name, milliseconds
from torch import Tensor

from sltfast import _C, ops

RESULTS = Path(__file__).parent / "results" / "grouped_gradient.csv"
LR, N_BETA, GAMMA = 1e-5, 10.0, 100.0
STEPS = [(n, r, k) for r, k in ((128, 512), (768, 768), (768, 3072)) for n in (16, 128, 1024)]
PRODUCTS = [(8, t, r, k) for r, k in ((64, 64), (128, 512), (768, 768)) for t in (1, 8, 32, 128, 512)]
COLUMNS = [
    *("op", "variant", "N", "T", "R", "K", "threads", "ms_p20", "ms_p50", "ms_p80", "ratio_to_ours", "rounds"),
    *("date", "commit", "isa", "cpu"),
]
Variants = dict[str, Callable[[], object]]


def step_variants(n: int, r: int, k: int) -> Variants:
    left, right = torch.randn(1, n, r), torch.randn(1, n, k)
    anchor = torch.randn(r * k)
    segment = torch.tensor([0, r * k, 0, k, k])
    hyper = torch.tensor([[LR, N_BETA, GAMMA, 0.0, 1.0, math.inf]], dtype=torch.float64)
    step, chain, gradient = torch.tensor(0), torch.tensor([0]), torch.empty(r, k)
    fused, stored, eager = (anchor.clone()[None] for _ in range(3))

    def ours() -> None:
        ops.grouped_gradient_step_(fused, left, right, anchor, segment, hyper, step, chain, seed=1, backend="native")

    def mm_then_step() -> None:
        torch.mm(left[0].T, right[0], out=gradient)
        ops.langevin_step_(stored, [gradient], [anchor], segment[None], hyper, step, chain, seed=1, backend="native")

    def baddbmm() -> None:
        w = eager.view(1, r, k)
        w.lerp_(anchor.view(1, r, k), LR / 2 * GAMMA).add_(torch.randn_like(w), alpha=LR**0.5)
        w.baddbmm_(left.transpose(1, 2), right, alpha=-LR / 2 * N_BETA)

    return {
        "ours": ours,
        "mm, then langevin_step_": mm_then_step,
        "baddbmm, eager": baddbmm,
        "floor: mm": lambda: torch.mm(left[0].T, right[0], out=gradient),
    }


def product_variants(b: int, t: int, r: int, k: int) -> Variants:
    left, right, gradients = torch.randn(b, t, r), torch.randn(b, t, k), torch.empty(b, r, k)

    def norms(algorithm: str) -> Callable[[], Tensor]:
        return lambda: ops.grouped_gradient_products(left, right, left, right, algorithm=algorithm, backend="native")

    return {
        "auto": norms("auto"),
        "ghost": norms("ghost"),
        "formed": norms("formed"),
        "stored": lambda: torch.bmm(left.transpose(1, 2), right).square().sum((1, 2)),
        "floor: mm": lambda: torch.bmm(left.transpose(1, 2), right, out=gradients),
    }


def measure(variants: Variants, rounds: int) -> dict[str, np.ndarray]:
    """Times in milliseconds, all variants in turn: the least of three a round."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, variant in variants.items():
            taken = min(milliseconds(variant) for _ in range(3))
            if round_:
                times[name].append(taken)
    return {name: np.array(taken) for name, taken in times.items()}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of all variants (default 9)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file to write")
    options = parser.parse_args()

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    facts = [options.rounds, str(datetime.date.today()), commit, str(_C.build_facts()["isa"]), cpu_name()]
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        cases = [("grouped_gradient_step_", (n, 0, r, k), step_variants(n, r, k)) for n, r, k in STEPS]
        cases += [("grouped_gradient_products", shape, product_variants(*shape)) for shape in PRODUCTS]
        for op, shape, variants in cases:
            times = measure(variants, options.rounds)
            ours = next(iter(times.values()))
            for name, taken in times.items():
                low, middle, high = np.percentile(taken, (20, 50, 80))
                ratio = float(np.median(taken / ours))
                print(f"{op:26} {name:24} {shape!s:22} {threads} {middle:9.3f} ms {ratio:6.2f}", flush=True)
                numbers = [f"{x:.4f}" for x in (low, middle, high)]
                rows.append([op, name, *shape, threads, *numbers, f"{ratio:.3f}", *facts])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
