"""What a campaign's file says, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sltfast.commands.language_model import INPUT, SAMPLING
from sltfast.commands.observed import OBSERVED
from sltfast.commands.settings import Setting, checked_table, parsed
from sltfast.commands.susceptibilities import RESPONSE
from sltfast.shown import shown

Measure = Literal["llc", "susceptibilities"]
FULL = "full"
TOP = (
    Setting("model", str, "a model directory, GGUF file or hub name"),
    Setting("checkpoints", list, "in its place: paths or patterns of checkpoints of one training run"),
    Setting("measure", str, "what is measured", "llc", ("llc", "susceptibilities")),
    Setting("restrictions", list, "parts that move, a run each; 'full', 'all heads', 'all', names and globs"),
    Setting("output_dir", str, "folder for the runs"),
    Setting("threads", int, "CPU threads (default: PyTorch's choice)"),
    *INPUT,
)
NOT_OF_A_CELL = {"restriction", "threads"}
CELL = tuple(setting for setting in SAMPLING if setting.name not in NOT_OF_A_CELL)
RESPONSES = tuple(setting for setting in (*OBSERVED, *RESPONSE) if setting.name not in ("observable", "restrictions"))
TABLES = ("data", "settings", "variants", "susceptibilities")


@dataclass(frozen=True)
class Campaign:
    """What is to be measured.

    Attributes:
        measure: "llc" or "susceptibilities".
        place: the settings of ``TOP`` by name: the model or the checkpoints, how text is read, the output folder.
        restrictions: names of parts, as the file has them.
        data: the files of each data set, by name.
        variants: all settings of the sampler by the variant's name; "" is the name where the file has no variants.
        response: settings of susceptibilities.
    """

    measure: Measure
    place: Mapping[str, Any]
    restrictions: list[str]
    data: Mapping[str, list[str]]
    variants: Mapping[str, Mapping[str, Any]]
    response: Mapping[str, Any]

    @property
    def output_dir(self) -> Path:
        """The folder of the runs."""
        return Path(self.place["output_dir"]).expanduser()

    def into(self, folder: str | None) -> Campaign:
        """The same campaign in another folder; None: in its own."""
        return self if folder is None else replace(self, place={**self.place, "output_dir": folder})


def read(path: str | Path) -> Campaign:
    """Read the file of a campaign.

    Args:
        path: a .toml or .json file. Paths in it are meant from the current folder, as those of a command are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what cannot be parsed, an unknown key, a value of the wrong kind, or a key that is missing.
    """
    path = Path(path)
    content = dict(parsed(path))
    tables = {name: content.pop(name, {}) for name in TABLES}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ValueError(f"{path}: {name} must be a table, [{name}], got {shown(table)}")
    place = checked_table(TOP, content, str(path), also=[f"[{name}]" for name in TABLES])
    measure: Measure = place["measure"]
    if (place["model"] is None) == (place["checkpoints"] is None):
        given = "neither" if place["model"] is None else "both"
        raise ValueError(f"{path}: give one of model and checkpoints, got {given}")
    if place["threads"] is not None and place["threads"] < 1:
        raise ValueError(f"{path}: threads must be >= 1, got {place['threads']}")
    if tables["susceptibilities"] and measure != "susceptibilities":
        raise ValueError(f"{path}: [susceptibilities] means nothing to measure = {measure!r}: remove one of the two")
    data = _data(tables["data"], path)
    response = checked_table(RESPONSES, tables["susceptibilities"], f"{path}: [susceptibilities]")
    response["sampling_task"] = response["sampling_task"] or next(iter(data))
    if response["sampling_task"] not in data:
        raise ValueError(
            f"{path}: [susceptibilities]: sampling_task must be one of {', '.join(data)}, got "
            f"{shown(response['sampling_task'])}"
        )
    if measure == "susceptibilities" and len(data) == 1 and not response["include_sampling_task"]:
        raise ValueError(f"{path}: [data] holds {next(iter(data))!r} alone: susceptibilities need another to answer to")
    default = FULL if measure == "llc" else "all heads"
    place["output_dir"] = place["output_dir"] or path.stem
    variants = _variants(tables["settings"], tables["variants"], path)
    return Campaign(measure, place, place["restrictions"] or [default], data, variants, response)


def _data(table: Mapping[str, Any], path: Path) -> dict[str, list[str]]:
    if not table:
        raise ValueError(f"{path}: [data] is missing: name the files of each data set, such as corpus = 'corpus.txt'")
    files = Setting("files", list, "files of a data set")
    return {str(name): files.checked(value, f"{path}: [data] {name}") for name, value in table.items()}


def _variants(common: Mapping[str, Any], variants: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The settings of every variant: its own, else the common ones, else the defaults."""
    for name, table in variants.items():
        if not isinstance(table, Mapping):
            raise ValueError(f"{path}: [variants] {name} must be a table, [variants.{name}], got {shown(table)}")
        checked_table(CELL, table, f"{path}: [variants.{name}]")
    found = {}
    for name, own in (variants or {"": {}}).items():
        settings = checked_table(CELL, {**common, **own}, f"{path}: [settings]")
        if settings["lr"] is None:
            where = f"[variants.{name}]" if name else "[settings]"
            raise ValueError(f"{path}: {where}: lr is missing: start at 0.1 / localization")
        found[str(name)] = settings
    return found


def named(parts: Sequence[str]) -> str:
    """The name of a cell, from what tells it apart."""
    return ", ".join(part for part in parts if part)
