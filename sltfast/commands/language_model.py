"""A language model, its rows of tokens and how to sample it: what the commands that measure one share."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.commands.settings import Setting, resolve

if TYPE_CHECKING:
    from torch import nn

INPUT = (
    Setting("tokenizer", str, "'bytes', a directory or a hub name (default: the model's own)"),
    Setting("context", int, "tokens in a row of packed text (default: the model's limit, at most 256)"),
    Setting("text_column", str, "field of JSON lines, Parquet and data sets that holds the text", "text"),
    Setting("split", str, "split of a data set", "train"),
    Setting("subset", str, "configuration of a data set on the hub"),
    Setting("max_rows", int, "read no more rows of data than this"),
    Setting("revision", str, "branch, tag or commit of a model on the hub"),
    Setting("dtype", str, "precision of the model", "float32", ("float32", "float64", "bfloat16", "float16")),
)
SAMPLING = (
    Setting("lr", float, "step size ε; start at 0.1 / localization (required)"),
    Setting("n_beta", float, "inverse temperature nβ (default: n / ln n, n = rows behind one gradient)"),
    Setting("localization", float, "γ, precision of the Gaussian that holds the chains near w*", 0.0),
    Setting("num_chains", int, "independent chains", 4),
    Setting("num_draws", int, "draws of each chain", 200),
    Setting("num_burnin_steps", int, "steps before the first draw", 0),
    Setting("num_steps_bw_draws", int, "steps between draws", 1),
    Setting("batch_size", int, "rows of a mini-batch", 32),
    Setting("gradient_accumulation_steps", int, "mini-batches behind one step", 1),
    Setting(
        "sampling_method",
        str,
        "transition of the chains",
        "sgmcmc_sgld",
        ("sgmcmc_sgld", "rmsprop_sgld", "rmsprop_sgld_hh", "sghmc", "sgnht"),
    ),
    Setting("rmsprop_eps", float, "floor of RMSprop's preconditioner"),
    Setting("rmsprop_alpha", float, "decay of RMSprop's running mean"),
    Setting("friction", float, "A of sghmc and sgnht, in (0, 1] (default: 0.1 for sghmc, 0.01 for sgnht)"),
    Setting("restriction", list, "move only this part (l0, 'l0 mlp', l0h1, embed, …) or parameter; globs; repeatable"),
    Setting("noise_level", float, "σ of the injected noise; 1 samples the posterior", 1.0),
    Setting("llc_weight_decay", float, "precision of a Gaussian prior around 0", 0.0),
    Setting("bounding_box_size", float, "half-width of a box around w*"),
    Setting("init_noise", float, "standard deviation of noise added to the start of each chain"),
    Setting("init_seed", int, "seed of noise and data order", 100),
    Setting("shuffle", bool, "a fresh order of the rows each epoch", True),
    Setting("match_sampling_input_ids_across_chains", bool, "all chains see the same batches", True),
    Setting("mode", str, "eval: dropout off", "eval", ("eval", "train")),
    Setting("precision", str, "what the model computes in (default: as --dtype)", None, ("fp32", "tf32", "bf16")),
    Setting("device", str, "where to sample (default: a GPU if there is one)"),
    Setting("threads", int, "CPU threads (default: PyTorch's choice)"),
)
ESTIMATE = (
    Setting("include_burnin", bool, "average over burn-in too, as devinterp does", False),
    Setting(
        "init_loss",
        str,
        "L(w*): of the same batches, the whole data set, or the first batches",
        "paired",
        ("paired", "dataset", "init_batches"),
    ),
    Setting("num_init_loss_batches", int, "batches behind init_batches", 32),
)
PLACES = (
    Setting("model", str, "MODEL"),
    Setting("data", list, "DATA"),
)
NOT_PASSED_ON = {"restriction", "threads", "friction"}


def add_arguments(parser: argparse.ArgumentParser, groups: Sequence[tuple[str, Sequence[Setting]]]) -> None:
    """MODEL, DATA, --config and the settings, group by group."""
    parser.add_argument("model", nargs="?", default=argparse.SUPPRESS, metavar="MODEL")
    parser.add_argument("data", nargs="*", default=argparse.SUPPRESS, metavar="DATA")
    parser.add_argument("--config", metavar="FILE", help="settings from a .toml or .json file; flags override it")
    for title, group in groups:
        arguments = parser.add_argument_group(title)
        for setting in group:
            setting.add_to(arguments)


def check(settings: dict[str, Any]) -> None:
    """Refuse what can be refused before torch is imported.

    Raises:
        ValueError, FileNotFoundError, MissingExtra: what is missing, or not allowed.
    """
    if settings["model"] is None:
        raise ValueError("MODEL is missing: give a model directory, a GGUF file or a hub name")
    if not settings["data"]:
        raise ValueError("DATA is missing: give text files, a folder, .jsonl, .parquet or a data set")
    if settings["lr"] is None:
        raise ValueError("--lr is missing: start at 0.1 / localization and halve it while chains diverge")
    if settings["threads"] is not None and settings["threads"] < 1:
        raise ValueError(f"threads must be >= 1, got {settings['threads']}")
    if settings.get("figure"):
        from sltfast.extras import require

        require("matplotlib", extra="plots", purpose="for --figure")
        folder = Path(settings["figure"]).parent
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder for the figure")


def load(settings: dict[str, Any]) -> tuple[nn.Module, Any]:
    """The model and its rows of tokens."""
    import torch

    from sltfast.inputs.pretrained import load_model

    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    model = load_model(settings["model"], dtype=settings["dtype"], revision=settings["revision"])
    return model, reader(model, settings)(settings["data"])


def reader(model: nn.Module, settings: dict[str, Any]) -> Callable[[Sequence[str]], Any]:
    """What turns the names of files and data sets into the model's rows of tokens."""
    from sltfast.inputs.documents import Sources, token_rows
    from sltfast.inputs.pretrained import context_of, load_tokens

    tokens = load_tokens(settings["tokenizer"], settings["model"], revision=settings["revision"])
    context = context_of(model, settings["context"])

    def read(names: Sequence[str]) -> Any:
        sources = Sources(tuple(names), settings["text_column"], settings["split"], settings["subset"])
        return token_rows(sources, tokens.encode, context, separator=tokens.separator, max_rows=settings["max_rows"])

    return read


def keywords(
    settings: dict[str, Any], sampling: Sequence[Setting], estimate: Sequence[Setting] = ESTIMATE
) -> dict[str, Any]:
    """What of the settings a function that samples and estimates takes.

    Args:
        settings: by name; ``n_beta`` is filled in where it is left out.
        sampling: the command's settings of the sampler.
        estimate: its settings of the estimate.
    """
    from sltfast import default_nbeta

    if settings["n_beta"] is None:
        settings["n_beta"] = default_nbeta(settings["batch_size"], settings["gradient_accumulation_steps"])
    names = [setting.name for setting in (*sampling, *estimate)] + [
        "output_path",
        "overwrite",
        "save_metrics",
        "save_token_losses",
    ]
    passed = {name: settings[name] for name in names if name in settings and name not in NOT_PASSED_ON}
    if settings["friction"] is not None:
        passed["sampling_method_kwargs"] = {"friction": settings["friction"]}
    if "restriction" in settings:
        passed["param_masks"] = settings["restriction"]
    return {**passed, "progress": not settings["quiet"]}


def facts(model: nn.Module, rows: Any, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What was measured, for a report."""
    return {
        "model": settings["model"],
        "data": settings["data"],
        "rows": _row_count(rows),
        "context": _row_length(rows),
        "coordinates": sum(p.numel() for p in model.parameters()),
        "restriction": settings.get("restriction"),
        "seconds": round(seconds, 1),
        "output_path": settings["output_path"],
        "figure": settings.get("figure"),
    }


def run_in(folder: str | None) -> str | None:
    """``FOLDER/llm.zarr``, the stem of every run that a command with --output-dir writes; the folder is made."""
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return str(Path(folder) / "llm.zarr")


@contextlib.contextmanager
def told_how_to_resume(settings: dict[str, Any]) -> Any:
    """An interruption says what was kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        path = settings["output_path"]
        if path is None:
            raise KeyboardInterrupt("interrupted; nothing was kept (--output-path keeps the draws)") from interrupt
        raise KeyboardInterrupt(
            f"interrupted; {path} keeps the draws so far (sltfast.open reads them); the same command goes on from there"
        ) from interrupt


@contextlib.contextmanager
def silent_libraries() -> Any:
    """Tokenizers and loaders warn about lengths that packing deals with; what is wrong comes as an exception."""
    import logging

    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
        sys.stderr.flush()


def _row_count(rows: Any) -> int:
    return len(rows["input_ids"] if isinstance(rows, dict) else rows)


def _row_length(rows: Any) -> int:
    return int((rows["input_ids"] if isinstance(rows, dict) else rows).shape[1])


def output(path: str, figure: str) -> tuple[Setting, ...]:
    """The settings of what a command leaves behind, with the words for its store and its figure."""
    return (
        Setting("output_path", str, path),
        Setting("overwrite", bool, "delete a run that stands where this one goes, and begin anew", False),
        Setting("save_metrics", bool, "record nine norms and dot products of each step", False),
        Setting("save_token_losses", bool, "record the loss of each token of each step", False),
        Setting("figure", str, figure),
        Setting("json", bool, "print JSON instead of a table", False),
        Setting("quiet", bool, "no progress bars", False),
    )


def estimated(
    arguments: argparse.Namespace, known: Sequence[Setting], estimate: Callable[[Any, Any, dict[str, Any]], Any]
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """Load what the arguments name and estimate; the settings, the result and the facts of the run."""
    if not getattr(arguments, "data", True):
        del arguments.data
    settings = resolve(known, arguments, arguments.config)
    check(settings)
    if "output_dir" in settings:
        settings["output_path"] = run_in(settings["output_dir"])
    started = time.monotonic()
    with silent_libraries():
        model, rows = load(settings)
    with told_how_to_resume(settings):
        result = estimate(model, rows, settings)
    return settings, result, facts(model, rows, settings, time.monotonic() - started)
