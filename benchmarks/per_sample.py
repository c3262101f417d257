"""Per-sample gradient norms of a 2-layer transformer (P11): sltfast, vmap(grad), Opacus and one item at a time.

The floor is one plain forward and backward pass of the same batch. All variants run in turn within each round, so that
a slow minute hits all; a ratio is the median over rounds of variant / floor (or / ours). "ours" is the public call,
which copies the module tree and passes one item alone as a check; "ours, warm" is the pass without either, as every
batch of `noise_scale` has it. vmap cannot be further from ours than it is from the floor, where ours is at the floor.
Opacus is measured where it can be imported (pip install --no-deps opacus opt_einsum). Before any timing every variant's
norms are compared with those of one item at a time.

Memory: the peak of a fresh process above what it had before the first pass, for growing batches.
Rows go to results/per_sample.csv and results/per_sample_memory.csv.
"""

import argparse
import csv
import datetime
import importlib.util
import itertools
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from langevin_step import cpu_name
from torch import Tensor, nn

from sltfast import per_sample
from sltfast.per_sample.items import Items
from sltfast.per_sample.norms import products

RESULTS = Path(__file__).parent / "results"
SHAPES = [(64, 512, 32, 32), (128, 1000, 16, 64), (128, 1000, 32, 128), (256, 1000, 32, 8), (128, 50_304, 8, 16)]
"""d, V, B, T: long sequences are arithmetic for everyone; with few tokens an item, gradients are what is large."""
MEMORY_SHAPE = (256, 1000, 16)  # d, V, T: parameters outweigh activations
MEMORY_VARIANTS = ("floor: forward + backward", "ours", "vmap(grad)", "Opacus")
COLUMNS = [
    *("variant", "width", "vocabulary", "items", "tokens", "parameters", "threads", "ms_p20", "ms_p50", "ms_p80"),
    *("ratio_to_floor", "ratio_to_ours", "rounds", "date", "commit", "cpu"),
]
MEMORY_COLUMNS = ["variant", "items", "peak_mib", "mib_an_item", "gradient_mib", "date", "commit", "cpu"]
Variants = dict[str, Callable[[], Tensor | None]]


def transformer(width: int, vocabulary: int) -> nn.Module:
    """GPT-NeoX with 2 layers; eager attention, which vmap needs, is what every variant runs."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=512,
        attn_implementation="eager",
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPTNeoXForCausalLM(config).eval()


def item_losses(model: Callable[..., object], ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean next-token cross-entropy of every item, [B]."""
    logits = model(ids, **({} if mask is None else {"attention_mask": mask})).logits  # type: ignore[attr-defined]
    losses = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return losses.view(len(ids), -1).mean(1)


def total_norms(gradients: list[Tensor]) -> Tensor:
    """|g_i| [B] of explicit rows."""
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()


def plain(model: nn.Module, ids: Tensor) -> Callable[[], None]:
    def run() -> None:
        item_losses(model, ids).mean().backward()
        model.zero_grad(set_to_none=True)

    return run


def warm(model: nn.Module, ids: Tensor) -> Callable[[], Tensor]:
    items = Items(model, None, None)
    return lambda: products(items, ids, norms=True, direction=None, check=False)[0].squared.sqrt()


def vmap_of_grad(model: nn.Module, ids: Tensor) -> Callable[[], Tensor]:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    positions = ids.shape[1]
    mask = torch.full((positions, positions), -torch.inf).triu(1)[None, None]  # vmap cannot build the causal one

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        call = lambda *a, **k: torch.func.functional_call(model, parameters, a, k)  # noqa: E731
        return item_losses(call, row[None], mask)[0]

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    return lambda: total_norms(list(gradients(parameters, ids).values()))


def one_by_one(model: nn.Module, ids: Tensor) -> Callable[[], Tensor]:
    parameters = list(model.parameters())

    def norm(row: Tensor) -> Tensor:
        gradients = torch.autograd.grad(item_losses(model, row[None])[0], parameters)
        return torch.stack([g.square().sum() for g in gradients]).sum().sqrt()

    return lambda: torch.stack([norm(row) for row in ids])


def opacus(model: nn.Module, ids: Tensor) -> Callable[[], Tensor]:
    import copy

    from opacus.grad_sample import GradSampleModule

    # its hooks look only in train mode; the model has no dropout
    wrapped = GradSampleModule(copy.deepcopy(model).train(), loss_reduction="sum")

    def run() -> Tensor:
        item_losses(wrapped, ids).sum().backward()
        norms = total_norms([p.grad_sample for p in wrapped.parameters()])
        wrapped.zero_grad(set_to_none=True)
        return norms

    return run


def variants(width: int, vocabulary: int, items: int, tokens: int) -> tuple[Variants, int]:
    """What to time, floor and ours first, and the number of parameters."""
    model = transformer(width, vocabulary)
    ids = torch.randint(0, vocabulary, (items, tokens), generator=torch.Generator().manual_seed(1))
    direction = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    table: Variants = {
        "floor: forward + backward": plain(model, ids),
        "ours": lambda: per_sample.gradient_norms(model, ids),
        "ours, warm": warm(model, ids),
        "ours: inner products": lambda: per_sample.inner_products(model, ids, direction),
        "vmap(grad)": vmap_of_grad(model, ids),
        "one item at a time": one_by_one(model, ids),
    }
    if importlib.util.find_spec("opacus"):
        table["Opacus"] = opacus(model, ids)
    return table, sum(p.numel() for p in model.parameters())


def refuse_wrong(table: Variants) -> None:
    """No timing of what gives other norms."""
    true = table["one item at a time"]()
    for name in ("ours", "ours, warm", "vmap(grad)", "Opacus"):
        if name in table:
            torch.testing.assert_close(table[name](), true, rtol=1e-4, atol=0, check_dtype=False)


def milliseconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def measure(table: Variants, rounds: int) -> dict[str, np.ndarray]:
    times: dict[str, list[float]] = {name: [] for name in table}
    for round_ in range(rounds + 1):
        for name, step in table.items():
            taken = milliseconds(step)
            if round_:
                times[name].append(taken)
    return {name: np.array(taken) for name, taken in times.items()}


def peak_of(variant: str, items: int) -> float:
    """MiB that two passes of a fresh process add to its peak."""
    command = [sys.executable, __file__, "--peak-of", variant, "--items", str(items)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def resident(field: str) -> float:
    """A field of /proc/self/status in MiB: VmRSS, or VmHWM, its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def print_peak(variant: str, items: int) -> None:
    width, vocabulary, tokens = MEMORY_SHAPE
    variants(width, vocabulary, 2, tokens)[0][variant]()  # code and workspaces are not the batch's
    table = variants(width, vocabulary, items, tokens)[0]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of imports, is forgotten
    before = resident("VmRSS")
    for _ in range(2):
        table[variant]()
    print(resident("VmHWM") - before)


def write(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def memory(sizes: list[int], facts: list[str], output: Path) -> None:
    width, vocabulary, _ = MEMORY_SHAPE
    gradient = 4 * sum(p.numel() for p in transformer(width, vocabulary).parameters()) / 2**20
    rows: list[list[object]] = []
    for variant in MEMORY_VARIANTS:
        if variant == "Opacus" and not importlib.util.find_spec("opacus"):
            continue
        peaks = {items: peak_of(variant, items) for items in sizes}
        slope = (peaks[sizes[-1]] - peaks[sizes[0]]) / (sizes[-1] - sizes[0])
        for items, peak in peaks.items():
            print(
                f"{variant:26} {items:4} items {peak:9.1f} MiB   {slope:7.3f} MiB an item (a gradient: {gradient:.1f})"
            )
            rows.append([variant, items, f"{peak:.1f}", f"{slope:.3f}", f"{gradient:.1f}", *facts])
    write(output, MEMORY_COLUMNS, rows)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of all variants (default 9)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the CSV files")
    parser.add_argument("--peak-of", help="print the peak memory of one variant (what the fresh processes run)")
    parser.add_argument("--items", type=int, nargs="+", default=[16, 64, 128], help="batches of the memory table")
    options = parser.parse_args()

    warnings.simplefilter("ignore")
    if options.peak_of:
        torch.set_num_threads(1)
        print_peak(options.peak_of, options.items[0])
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    facts = [str(datetime.date.today()), commit, cpu_name()]
    rows: list[list[object]] = []
    print(f"{'variant':26} {'d':>4} {'V':>5} {'B':>3} {'T':>4} threads {'p50':>9} ms / floor  / ours")
    for shape, threads in itertools.product(SHAPES, options.threads):
        torch.set_num_threads(threads)
        table, parameters = variants(*shape)
        refuse_wrong(table)
        times = measure(table, options.rounds)
        for name, taken in times.items():
            low, middle, high = np.percentile(taken, (20, 50, 80))
            to_floor = float(np.median(taken / times["floor: forward + backward"]))
            to_ours = float(np.median(taken / times["ours"]))
            width, vocabulary, items, tokens = shape
            where = f"{width:4} {vocabulary:5} {items:3} {tokens:4} {threads:7}"
            print(f"{name:26} {where} {middle:9.2f}    {to_floor:7.2f} {to_ours:7.2f}", flush=True)
            numbers = [f"{x:.3f}" for x in (low, middle, high, to_floor, to_ours)]
            rows.append([name, *shape, parameters, threads, *numbers, options.rounds, *facts])
    write(options.output / "per_sample.csv", COLUMNS, rows)
    memory(options.items, facts, options.output / "per_sample_memory.csv")


if __name__ == "__main__":
    main()
