"""Correlations of loss draws (P7): sltfast against torch, numpy, devinterp 2.0.1 and the products' own time.

`kept draws` is the token influence function: the correlation of every token's loss with every other's, 800 draws of
96 sequences × 127 positions, float32; a slice of 16 sequences has the peers that need too much memory for the whole.
`ranked` keeps the 20 largest a row. `streamed` joins k draws to float64 moments of 4,096 variables. Floors: `gemm` is
one product into a matrix that is there already, `half gemm` its tiles on and above the diagonal, the rest written once.
numpy takes what threads it likes, whatever the column says. Variants take turns within a round, so that a slow minute
hits all; a ratio is the median over rounds of variant / ours.
One row a variant and thread count, written to results/comoment.csv.
"""

import argparse
import csv
import datetime
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from langevin_step import cpu_name
from output_gate import refuse_unless_close
from torch import Tensor

from sltfast import _C, ops

RESULTS = Path(__file__).parent / "results" / "comoment.csv"
SEQUENCES, POSITIONS, DRAWS = 96, 127, 800
COLUMNS = [
    *("op", "variant", "variables", "draws", "threads", "ms_p20", "ms_p50", "ms_p80", "ratio_to_ours"),
    *("rounds", "date", "commit", "isa", "cpu"),
]
Variants = dict[str, Callable[[], object]]


def losses(draws: int, variables: int) -> Tensor:
    """float32 draws about a common level, as losses are."""
    generator = torch.Generator().manual_seed(0)
    return 3 + 0.1 * torch.randn(draws, variables, generator=generator)


def half_gemm(x: Tensor, out: Tensor, tile: int = 512) -> None:
    n = len(out)
    for i in range(0, n, tile):
        for j in range(i, n, tile):
            rows, columns = slice(i, i + tile), slice(j, j + tile)
            torch.mm(x[:, rows].T, x[:, columns], out=out[rows, columns])
            if i != j:
                out[columns, rows].fill_(0)


def kept_draws(sequences: int, *, peers: bool) -> Variants:
    from devinterp.slt.covariance import batch_corrcoef

    x = losses(DRAWS, sequences * POSITIONS)
    out = torch.empty(x.shape[1], x.shape[1])
    table: Variants = {
        "ours": lambda: ops.correlate_draws(x, out=out),
        "floor: half gemm": lambda: half_gemm(x, out),
        "floor: gemm": lambda: torch.mm(x.T, x, out=out),
    }
    if peers:
        batched = x.T.reshape(sequences, POSITIONS, DRAWS).contiguous()
        table["torch.corrcoef"] = lambda: torch.corrcoef(x.T)
        table["numpy.corrcoef"] = lambda: np.corrcoef(x.numpy(), rowvar=False, dtype=np.float32)
        table["devinterp"] = lambda: batch_corrcoef(batched, batched)
    return table


def ranked(sequences: int) -> Variants:
    x = losses(DRAWS, sequences * POSITIONS)
    out = torch.empty(x.shape[1], x.shape[1])
    return {
        "ours": lambda: ops.rank_draws(x, k=20)[0].abs(),
        "floor: gemm": lambda: torch.mm(x.T, x, out=out),
        "torch.corrcoef + topk": lambda: torch.corrcoef(x.T).fill_diagonal_(0).abs().topk(20).values,
    }


def streamed(variables: int, draws: int) -> Variants:
    x = losses(draws, variables)
    wide = x.double()
    states = {precision: ops.comoments(1, variables) for precision in ops.PRECISIONS}
    block, narrow = torch.zeros(variables, variables, dtype=torch.float64), torch.zeros(variables, variables)
    eager = ops.comoments(1, variables)

    def joined(state: ops.Comoments, **options: str) -> Callable[[], Tensor | None]:
        def step() -> Tensor | None:
            ops.comoment_(state, x[None], **options)
            return state.block

        return step

    return {
        "ours": joined(states["fp64"], precision="fp64"),
        "ours, fp32 products": joined(states["fp32"], precision="fp32"),
        "floor: gemm": lambda: block.addmm_(wide.T, wide),
        "floor: gemm, fp32": lambda: narrow.addmm_(x.T, x),
        "eager": joined(eager, backend="reference"),
    }


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def measure(variants: Variants, rounds: int) -> dict[str, np.ndarray]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, run in variants.items():
            taken = milliseconds(run)
            if round_:
                times[name].append(taken)
    return {name: np.array(taken) for name, taken in times.items()}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of all variants (default 7)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help=f"of the whole (default {SEQUENCES})")
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file to write")
    options = parser.parse_args()

    warnings.simplefilter("ignore")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    facts = [str(datetime.date.today()), commit, str(_C.build_facts()["isa"]), cpu_name()]
    cases: list[tuple[str, int, int, Callable[[], Variants]]] = [
        ("kept draws", 16 * POSITIONS, DRAWS, lambda: kept_draws(16, peers=True)),
        ("kept draws", options.sequences * POSITIONS, DRAWS, lambda: kept_draws(options.sequences, peers=False)),
        ("ranked", 32 * POSITIONS, DRAWS, lambda: ranked(32)),
        *(("streamed", 4096, k, lambda k=k: streamed(4096, k)) for k in (8, 63, 256)),
    ]
    rows = []
    print(f"{'op':11} {'variant':22} variables draws threads {'p20':>9} {'p50':>9} {'p80':>9} ms   / ours")
    for op, variables, draws, make in cases:
        for threads in options.threads:
            torch.set_num_threads(threads)
            variants = make()
            refuse_unless_close(op, variants, ("torch.corrcoef", "torch.corrcoef + topk", "eager"))
            times = measure(variants, options.rounds)
            for name, taken in times.items():
                low, middle, high = np.percentile(taken, (20, 50, 80))
                ratio = float(np.median(taken / times["ours"]))
                shape = f"{op:11} {name:22} {variables:9} {draws:5} {threads:7}"
                print(f"{shape} {low:9.1f} {middle:9.1f} {high:9.1f}    {ratio:7.2f}", flush=True)
                numbers = [f"{x:.3f}" for x in (low, middle, high, ratio)]
                rows.append([op, name, variables, draws, threads, *numbers, options.rounds, *facts])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
