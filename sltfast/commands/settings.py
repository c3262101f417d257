"""Settings of a command from its defaults, a configuration file and its flags, each overriding the one before."""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sltfast.shown import shown


@dataclass(frozen=True)
class Setting:
    """One setting, a flag and a key of the configuration file at once.

    Attributes:
        name: with underscores, as in the configuration file and the Python API.
        kind: int, float, str, bool, list (of str; the flag may be repeated), or tuple (numbers with commas between).
        help: for `--help`.
        default: None where the setting is left out of the call.
        choices: what is allowed, or empty for anything.
        several: a list whose flag takes several values at once.
    """

    name: str
    kind: type
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    several: bool = False

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return "--" + self.name.replace("_", "-")

    def add_to(self, group: argparse._ActionsContainer) -> None:
        """Give the flag to a parser; a flag that is not used leaves no trace, so that files can be overridden."""
        text = self.help if self.default is None else f"{self.help} (default: {self.default})"
        kept: dict[str, Any] = {"dest": self.name, "default": argparse.SUPPRESS, "help": text}
        if self.kind is bool:
            group.add_argument(self.flag, action=argparse.BooleanOptionalAction, **kept)
        elif self.kind is list and self.several:
            group.add_argument(self.flag, action="extend", nargs="+", metavar="NAME", **kept)
        elif self.kind is list:
            group.add_argument(self.flag, action="append", metavar="PATTERN", **kept)
        elif self.choices:
            group.add_argument(self.flag, choices=self.choices, **kept)
        else:
            read = numbers if self.kind is tuple else self.kind
            group.add_argument(self.flag, type=read, metavar=_METAVAR[self.kind], **kept)

    def checked(self, value: Any, source: str) -> Any:
        """A value from a configuration file.

        Raises:
            ValueError: a value of another kind, or not among the choices.
        """
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            return _as_float(value, f"{source}: {self.name}")
        if self.kind is tuple:
            values = value if isinstance(value, list) else [value]
            fits = all(isinstance(item, int | float) and not isinstance(item, bool) for item in values)
            value = tuple(_as_float(item, f"{source}: {self.name}") for item in values) if fits else value
        elif self.kind is list:
            values = [value] if isinstance(value, str) else value
            fits = isinstance(values, list) and all(isinstance(item, str) for item in values)
            value = values
        else:
            fits = isinstance(value, self.kind) and not (self.kind is not bool and isinstance(value, bool))
        if not fits:
            raise ValueError(f"{source}: {self.name} must be {_SPOKEN[self.kind]}, got {shown(value)}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{source}: {self.name} must be one of {', '.join(self.choices)}, got {shown(value)}")
        return value


def numbers(text: str) -> tuple[float, ...]:
    """The numbers of a flag such as ``1e-5,1e-4``; what is between two commas must be one."""
    return tuple(float(part) for part in text.split(","))


def _as_float(value: float, what: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{what} must be a number that a float can hold, got {shown(value)}") from error


_METAVAR: dict[type, str] = {int: "N", float: "X", str: "TEXT", tuple: "X,Y,…"}
_SPOKEN = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    list: "a text or a list of texts",
    tuple: "a number or a list of numbers",
}


def resolve(settings: Sequence[Setting], arguments: argparse.Namespace, config: str | None) -> dict[str, Any]:
    """Every setting by name: flag, else configuration file, else default.

    Raises:
        ValueError: an unknown key or a value of the wrong kind in the file, or a file that cannot be parsed.
        FileNotFoundError: no such file.
    """
    values = {setting.name: setting.default for setting in settings}
    if config is not None:
        values.update(_from_file(settings, Path(config)))
    given = vars(arguments)
    return {name: given.get(name, value) for name, value in values.items()}


def _from_file(settings: Sequence[Setting], path: Path) -> dict[str, Any]:
    known = {setting.name: setting for setting in settings}
    found: dict[str, Any] = {}
    for key, value in parsed(path).items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; it may hold {', '.join(known)}"
            raise ValueError(f"{path}: unknown setting {shown(key)}{hint}")
        found[name] = known[name].checked(value, str(path))
    return found


def checked_table(
    settings: Sequence[Setting], table: Mapping[str, Any], source: str, also: Sequence[str] = ()
) -> dict[str, Any]:
    """Every setting of a table by name: as given there, else its default.

    Args:
        settings: what the table may hold.
        table: from a configuration file.
        source: the file and the table, for errors.
        also: what else the file may hold, for errors.

    Raises:
        ValueError: an unknown key, or a value of the wrong kind.
    """
    known = {setting.name: setting for setting in settings}
    found = {name: setting.default for name, setting in known.items()}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"{source}: unknown key {shown(key)}; {hint}It may hold {', '.join([*known, *also])}")
        found[name] = known[name].checked(value, source)
    return found


def parsed(path: Path) -> Mapping[str, Any]:
    """What a configuration file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is neither TOML nor JSON, or cannot be parsed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            content = json.loads(text)
            if isinstance(content, dict):
                return content
            raise ValueError("the file must hold one object")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: brackets within brackets, too deep to read: no setting needs them") from error
    raise ValueError(f"{path}: a configuration file ends in .toml or .json")
