"""The update step on a GPU: milliseconds and the share of the memory's bandwidth, native and Triton.

10^8 float32 coordinates a chain, in 16 tensors, w* shared; 50 steps between two events after 10 to warm up. Floor:
the bytes that a step must move, 12 + 4/C a coordinate and chain (20 + 4/C with v or m), at the bandwidth that a copy of
the same size reaches in this run. One row a backend, method and C, written to results/gpu_langevin_step.csv.
"""

import argparse
import csv
import datetime
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sltfast import ops
from sltfast.ops.backend import refusals

RESULTS = Path(__file__).parent / "results" / "gpu_langevin_step.csv"
COLUMNS = ("backend", "method", "chains", "numel", "ms", "floor_ms", "of_floor", "GB_s", "device", "torch", "date")
TENSORS, WARM_UP, STEPS = 16, 10, 50


def milliseconds(run: Callable[[], object], device: str) -> float:
    """Of one call, over STEPS calls in a row."""
    for _ in range(WARM_UP):
        run()
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(STEPS):
            run()
        return 1e3 * (time.perf_counter() - start) / STEPS
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(STEPS):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / STEPS


def copied_bytes_a_ms(numel: int, device: str) -> float:
    """What a copy of `numel` floats moves, read and written."""
    source = torch.zeros(numel, device=device)
    target = torch.empty_like(source)
    return 8 * numel / milliseconds(lambda: target.copy_(source), device)


def step(backend: str, method: str, chains: int, numel: int, device: str) -> Callable[[], None]:
    """One step of `chains` chains, its arguments bound."""
    n = numel // TENSORS
    anchors = [torch.randn(n, device=device) for _ in range(TENSORS)]
    grads = [torch.randn(chains, n, device=device) for _ in range(TENSORS)]
    w = torch.cat(anchors).repeat(chains, 1)
    state = {"v": torch.zeros_like(w)} if method == "rmsprop_sgld" else {}
    if method == "sghmc":
        state = {"momentum": torch.zeros_like(w)}
    move = ops.LangevinStep(
        w,
        anchors,
        torch.tensor([[s * n, n, s * n, n, 0] for s in range(TENSORS)]),
        torch.tensor([[1e-5, 10.0, 100.0, 0.0, 1.0, torch.inf]] * chains, dtype=torch.float64, device=device),
        torch.zeros((), dtype=torch.int64, device=device),
        torch.arange(chains, device=device),
        seed=1,
        method=method,
        backend=backend,
        **state,
    )
    return lambda: move(grads)


def main() -> None:
    """Time every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--numel", type=int, default=10**8)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    device, numel = options.device, options.numel // (4 * TENSORS) * 4 * TENSORS
    name = torch.cuda.get_device_name() if device == "cuda" else device
    rate = copied_bytes_a_ms(numel, device)
    rows = []
    for backend in ("native", "triton"):
        if backend in refusals("langevin_step_", device):
            continue
        for method, own in (("sgld", 12), ("rmsprop_sgld", 20), ("sghmc", 20)):
            for chains in (1, 4):
                moved = (own + 4 / chains) * numel * chains
                ms = milliseconds(step(backend, method, chains, numel, device), device)
                floor = moved / rate
                speed = f"{moved / ms / 1e6:.0f}"
                row = (backend, method, chains, numel, f"{ms:.3f}", f"{floor:.3f}", f"{floor / ms:.3f}", speed)
                rows.append((*row, name, torch.__version__, datetime.date.today().isoformat()))
                print(*rows[-1])
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
