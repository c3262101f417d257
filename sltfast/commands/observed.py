"""Texts whose losses are read at every draw: what the commands that measure responses share."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.commands import language_model
from sltfast.commands.language_model import SAMPLING
from sltfast.commands.settings import Setting

if TYPE_CHECKING:
    from torch import nn

DATA = "data"  # what the observable of DATA itself is called
OBSERVED = (
    Setting("observable", list, "NAME=FILE, text whose losses are read at every draw; repeatable"),
    Setting("batches_per_draw", int, "batches read of each at a draw, where it holds as many", 3),
    Setting("obs_seed", int, "seed that picks their rows", 1337),
)
OUTPUT = (
    Setting("output_dir", str, "folder for the runs and the result; makes them resumable and is what a report reads"),
    Setting("overwrite", bool, "delete runs that stand where these go, and begin anew", False),
    Setting("json", bool, "print JSON instead of a table", False),
    Setting("quiet", bool, "no progress bars", False),
)
# what a grid or a single pattern chooses is chosen by the restrictions there
CHAINS = tuple(setting for setting in SAMPLING if setting.name != "restriction")


def named_files(given: list[str] | None) -> dict[str, str]:
    """File by name, from ``NAME=FILE``.

    Raises:
        ValueError: no name or no file, a name twice, or the name that DATA has.
    """
    files: dict[str, str] = {}
    for text in given or []:
        name, separator, file = text.partition("=")
        if not (name and separator and file):
            raise ValueError(f"--observable must be NAME=FILE, got {text!r}")
        if name in files or name == DATA:
            reason = "is what DATA itself is called" if name == DATA else "is given twice"
            raise ValueError(f"--observable {text}: the name {name!r} {reason}; choose another")
        files[name] = file
    return files


def observables(model: nn.Module, rows: Any, settings: Mapping[str, Any]) -> dict[str, tuple[Any, int]]:
    """DATA and every --observable with the batches that are read of it.

    Raises:
        ValueError: one with fewer rows than a batch.
    """
    files = named_files(settings["observable"])
    read = language_model.reader(model, dict(settings)) if files else None
    texts = {DATA: rows} | {name: read([file]) for name, file in files.items() if read is not None}
    wanted, batch_size = settings["batches_per_draw"], settings["batch_size"]
    return {name: batches_of(name, data, wanted, batch_size) for name, data in texts.items()}


def batches_of(name: str, data: Any, batches_per_draw: int, batch_size: int) -> tuple[Any, int]:
    """The rows of an observable, and how many batches are read of it at a draw: as many as wanted, where it has them.

    Raises:
        ValueError: fewer rows than a batch.
    """
    count = len(data["input_ids"] if isinstance(data, dict) else data)
    batches = min(batches_per_draw, count // batch_size)
    if batches < 1:
        raise ValueError(
            f"observable {name!r} has {count} rows, fewer than a batch of {batch_size}: give more text, or a smaller "
            "--batch-size or --context"
        )
    return data, batches


def how_to_report(settings: Mapping[str, Any]) -> str:
    """The command that makes a page of what was kept."""
    folder = settings["output_dir"]
    if folder is None:
        return "page      none: --output-dir keeps what sltfast report shows"
    tokenizer = settings["tokenizer"] or settings["model"]
    return f"page      sltfast report {shlex.quote(str(Path(folder)))} --tokenizer {shlex.quote(tokenizer)}"
