"""Per-token cross-entropy from hidden states (P6): sltfast against eager PyTorch, devinterp's way and the GEMM alone.

All variants of a shape take turns within one run, so that a slow minute hits all. `forward`: losses alone, under
no_grad; `gradient`: a mean loss and its gradients by hidden states and unembedding. Variants:
  ours, ours weighted   `ops.token_loss`, without and with `token_weights` (gradients formed with the losses)
  floor: mm             `torch.mm(out=)` into a preallocated [N, V]; for gradients the three such products of a step
  eager                 F.cross_entropy of logits [N, V]
  eager tiled           one `torch.mm(out=)` and logsumexp a tile, the fastest of several tile shapes
  devinterp             what devinterp 2.0.1 does with logits: isfinite, log_softmax, gather
A ratio is the median over rounds of variant / ours. One row a variant, shape and thread count, written to
results/token_loss.csv.
"""

import argparse
import csv
import datetime
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from output_gate import refuse_unless_close
from torch import Tensor
from torch.nn import functional as F

from sltfast import _C, ops

RESULTS = Path(__file__).parent / "results" / "token_loss.csv"
COLUMNS = [
    *("pass", "variant", "tokens", "depth", "vocabulary", "threads", "ms_p20", "ms_p50", "ms_p80", "ratio_to_ours"),
    *("rounds", "date", "commit", "isa", "cpu"),
]
# tokens, depth, vocabulary
SHAPES = [
    (2048, 128, 50_304),  # Pythia-14M
    (508, 576, 49_152),  # SmolLM2-135M, 4 sequences of 128
    (508, 128, 5_000),
    (248, 64, 2_048),
    (248, 64, 512),
    (120, 32, 256),
    (16, 32, 64),
]
TILES = [(64, 1 << 20), (256, 1 << 20), (256, 4096), (256, 1024), (2048, 1024)]  # rows, columns
Variants = dict[str, Callable[[], object]]


def eager_tiled(hidden: Tensor, unembedding: Tensor, targets: Tensor, rows: int, columns: int) -> Callable[[], Tensor]:
    tokens, vocabulary = len(hidden), len(unembedding)
    rows, columns = min(rows, tokens), min(columns, vocabulary)
    scratch = torch.empty(rows * columns)

    def losses() -> Tensor:
        out = torch.empty(tokens)
        for n in range(0, tokens, rows):
            h, y = hidden[n : n + rows], targets[n : n + rows]
            parts = []
            for v in range(0, vocabulary, columns):
                w = unembedding[v : v + columns]
                z = torch.mm(h, w.t(), out=scratch[: len(h) * len(w)].view(len(h), len(w)))
                parts.append(torch.logsumexp(z, 1))
            lse = torch.logsumexp(torch.stack(parts), 0)
            out[n : n + rows] = lse - (h * unembedding[y]).sum(1)
        return out

    return losses


def forward_variants(hidden: Tensor, unembedding: Tensor, targets: Tensor) -> Variants:
    full = torch.empty(len(hidden), len(unembedding))

    def devinterp() -> Tensor:
        logits = hidden @ unembedding.t()
        if not torch.isfinite(logits).all():
            raise ValueError("logits are not finite")
        return -F.log_softmax(logits, -1).gather(-1, targets[:, None])

    tiled = [eager_tiled(hidden, unembedding, targets, *tile) for tile in TILES]
    for losses in tiled:
        losses()
    return {
        "ours": lambda: ops.token_loss(hidden, unembedding, targets, backend="native"),
        "floor: mm": lambda: torch.mm(hidden, unembedding.t(), out=full),
        "eager": lambda: F.cross_entropy(hidden @ unembedding.t(), targets, reduction="none"),
        "eager tiled": min(tiled, key=lambda losses: min(milliseconds(losses) for _ in range(2))),
        "devinterp": devinterp,
    }


def gradient_variants(hidden: Tensor, unembedding: Tensor, targets: Tensor) -> Variants:
    h, w = hidden.clone().requires_grad_(), unembedding.clone().requires_grad_()
    mean = torch.full((len(hidden),), 1 / len(hidden))
    full, dh, dw = torch.empty(len(hidden), len(unembedding)), torch.empty_like(h), torch.empty_like(w)

    def differentiated(total: Callable[[], Tensor]) -> Callable[[], tuple[Tensor | None, ...]]:
        def step() -> tuple[Tensor | None, ...]:
            h.grad = w.grad = None
            total().backward()
            return h.grad, w.grad

        return step

    def products() -> None:
        torch.mm(hidden, unembedding.t(), out=full)
        torch.mm(full, unembedding, out=dh)
        torch.mm(full.t(), hidden, out=dw)

    return {
        "ours": differentiated(lambda: ops.token_loss(h, w, targets, backend="native").mean()),
        "ours weighted": differentiated(
            lambda: ops.token_loss(h, w, targets, token_weights=mean, backend="native").total
        ),
        "floor: mm": products,
        "eager": differentiated(lambda: F.cross_entropy(h @ w.t(), targets)),
    }


def milliseconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def measure(variants: Variants, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of every variant in every round; short ones are the least of several, as the floor of a round."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    repeats = {
        name: int(min(20, max(1, 20 / min(milliseconds(step), milliseconds(step))))) for name, step in variants.items()
    }
    for _ in range(rounds):
        for name, step in variants.items():
            times[name].append(min(milliseconds(step) for _ in range(repeats[name])))
    return {name: np.array(taken) for name, taken in times.items()}


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of all variants (default 7)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file to write")
    options = parser.parse_args()

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    facts = [str(datetime.date.today()), commit, str(_C.build_facts()["isa"]), cpu_name()]
    rows = []
    print(f"{'pass':9} {'variant':14} {'N × d × V':>18} threads {'p20':>9} {'p50':>9} {'p80':>9} ms   / ours")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for shape in SHAPES:
            tokens, depth, vocabulary = shape
            g = torch.Generator().manual_seed(0)
            hidden, unembedding = (torch.randn(n, depth, generator=g) for n in (tokens, vocabulary))
            targets = torch.randint(vocabulary, (tokens,), generator=g)
            for name, make in (("forward", forward_variants), ("gradient", gradient_variants)):
                variants = make(hidden, unembedding / depth**0.5, targets)
                refuse_unless_close(f"{name} at {tokens} × {depth} × {vocabulary}", variants, ("eager",))
                times = measure(variants, options.rounds)
                for variant, taken in times.items():
                    low, middle, high = np.percentile(taken, (20, 50, 80))
                    ratio = float(np.median(taken / times["ours"]))
                    size = f"{tokens} × {depth} × {vocabulary}"
                    numbers = f"{low:9.3f} {middle:9.3f} {high:9.3f}    {ratio:7.2f}"
                    print(f"{name:9} {variant:14} {size:>18} {threads:7} {numbers}", flush=True)
                    cells = [f"{x:.4g}" for x in (low, middle, high)]
                    rows.append([name, variant, *shape, threads, *cells, f"{ratio:.3f}", options.rounds, *facts])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
