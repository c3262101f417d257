"""`llc()` end to end against devinterp 2.0.1: same model, data, settings and threads, in turn in one process.

devinterp is given `observables={}`, which it does not document and which halves its time; with its documented call
it evaluates observables that an LLC does not use. Times are whole calls, progress bars off; the ratio is the median of
the pairs'. One row a model, written to results/llc.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import io
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import torch

RESULTS = Path(__file__).parent / "results" / "llc.csv"
SETTINGS = {"lr": 1e-4, "n_beta": 10.0, "localization": 100.0, "num_draws": 100}
# each: layers, width, heads, vocabulary, tokens, batch, chains
MODELS = {
    "GPT-NeoX 1 x 32, V 256": (1, 32, 2, 256, 16, 8, 8),
    "GPT-NeoX 2 x 64, V 512": (2, 64, 4, 512, 32, 8, 8),
    "GPT-NeoX 4 x 128, V 5000": (4, 128, 4, 5000, 64, 8, 4),
}


def build(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A random model and random tokens, 256 rows."""
    from datasets import Dataset
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    layers, width, heads, vocabulary, tokens, *_ = shape
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=tokens,
    )
    rows = torch.randint(0, vocabulary, (256, tokens + 1))
    return GPTNeoXForCausalLM(config), Dataset.from_dict({"input_ids": rows.tolist()}).with_format("torch")


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall time of a call and the λ̂ that it gives."""
    start = time.perf_counter()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        result = call()
    return time.perf_counter() - start, float(result["llc_mean"])


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs for each model (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--draws", type=int, default=SETTINGS["num_draws"])
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    from devinterp.slt.llc import llc as peer

    import sltfast

    rows = []
    for name, shape in MODELS.items():
        model, data = build(shape)
        batch, chains = shape[-2:]
        settings = {**SETTINGS, "num_draws": options.draws, "num_chains": chains, "batch_size": batch}

        def theirs(model: Any = model, data: Any = data, settings: dict[str, Any] = settings) -> Any:
            return peer(model, data, {}, device="cpu", num_init_loss_batches=8, **settings)

        def ours(model: Any = model, data: Any = data, settings: dict[str, Any] = settings) -> Any:
            return sltfast.llc(model, data, device="cpu", progress=False, **settings)

        theirs(), ours()
        pairs = [(seconds(theirs), seconds(ours)) for _ in range(options.pairs)]
        ratio = statistics.median(t[0] / o[0] for t, o in pairs)
        middle = [statistics.median(side[k][0] for side in pairs) for k in range(2)]
        rows.append(
            {
                "model": name,
                "chains": chains,
                "draws": options.draws,
                "threads": options.threads,
                "devinterp_s": f"{middle[0]:.2f}",
                "sltfast_s": f"{middle[1]:.2f}",
                "ratio": f"{ratio:.2f}",
                "devinterp_llc": f"{pairs[0][0][1]:.3f}",
                "sltfast_llc": f"{pairs[0][1][1]:.3f}",
                "date": datetime.date.today().isoformat(),
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
        )
        print(rows[-1], file=sys.stderr)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    print(options.output.read_text(), end="")


if __name__ == "__main__":
    main()
