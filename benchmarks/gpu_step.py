"""A step of all chains on a GPU, captured as a CUDA graph and launch after launch.

Milliseconds a step: what a run of many steps takes more than one of few, by the steps between them, median of RUNS.
One row a model and a number of chains, written to results/gpu_step.csv.
"""

import argparse
import csv
import datetime
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sltfast

RESULTS = Path(__file__).parent / "results" / "gpu_step.csv"
COLUMNS = ("model", "chains", "parameters", "eager_ms", "captured_ms", "ratio", "plan", "device", "torch", "date")
STEPS, RUNS = (20, 120), 5
SETTINGS: dict[str, Any] = {
    "lr": 1e-6, "n_beta": 10.0, "localization": 100.0, "batch_size": 8, "num_draws": 1, "num_init_loss_batches": 0,
    "save_token_losses": False, "progress": False,
}  # fmt: skip


def squares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean(-1)


def network() -> tuple[nn.Module, Any, dict[str, Any]]:
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10))
    return model, (torch.randn(4096, 64), torch.randn(4096, 10)), {"loss_fn": squares}


def gpt2(layers: int, width: int) -> tuple[nn.Module, Any, dict[str, Any]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_embd": width, "n_layer": layers, "n_head": width // 64, "n_positions": 128, "vocab_size": 50257}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0, use_cache=False)).eval()
    return model, torch.randint(0, 50257, (512, 128)), {}


MODELS: dict[str, Callable[[], tuple[nn.Module, Any, dict[str, Any]]]] = {
    "network": network,
    "gpt2, 4 layers of 256": lambda: gpt2(4, 256),
    "gpt2-small": lambda: gpt2(12, 768),
}


def milliseconds(model: nn.Module, rows: Any, device: str, **options: Any) -> tuple[float, str]:
    """(a step's, what the plan says of capture)."""
    found, plan = [], ""
    for _ in range(RUNS):
        seconds = []
        for steps in STEPS:
            begun = time.perf_counter()
            tree = sltfast.sample(model, rows, device=device, num_burnin_steps=steps - 1, **SETTINGS, **options)
            seconds.append(time.perf_counter() - begun)
            plan = tree.attrs["sltfast"]["plan"]["step_capture"]
        found.append(1e3 * (seconds[1] - seconds[0]) / (STEPS[1] - STEPS[0]))
    return statistics.median(found), plan


def main() -> None:
    """Time every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--chains", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    rows = []
    for case in options.models:
        model, data, more = MODELS[case]()
        parameters = sum(p.numel() for p in model.parameters())
        for chains in options.chains:
            eager, _ = milliseconds(model, data, options.device, num_chains=chains, step_capture=False, **more)
            captured, plan = milliseconds(model, data, options.device, num_chains=chains, **more)
            times = (f"{eager:.3f}", f"{captured:.3f}", f"{eager / captured:.2f}")
            today = datetime.date.today().isoformat()
            rows.append((case, chains, parameters, *times, plan, name, torch.__version__, today))
            print(*rows[-1])
    with options.output.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
