"""The checkpoints of a training run: which there are, and at which step each was kept."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from sltfast.inputs.weights import is_checkpoint

NAMED_STEP = re.compile(r"(?:step|checkpoint|ckpt|epoch|iter(?:ation)?)s?[-_ =]*(\d+)", re.IGNORECASE)
ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+@[\w.-]+")
LEVELS = 3  # a file's own name, its folder's, and that one's folder's


class Checkpoint(NamedTuple):
    """One checkpoint.

    Attributes:
        step: of training.
        name: for messages and results.
        content: a path, "owner/name@revision" on the hub, a module, or its state dict.
    """

    step: float
    name: str
    content: Path | str | nn.Module | Mapping[str, Tensor]


def list_checkpoints(given: Any) -> list[Checkpoint]:
    """What ``sltfast.over_checkpoints`` is given, ascending by step.

    Args:
        given: a glob pattern or a path; a sequence of them, of modules or of state dicts; or any of these by step. The
            step of a path is the number after "step", "checkpoint", "epoch" or the like in its name, else the name's
            last number, else that of its folder. What has no number counts from 0 in the order given.

    Raises:
        FileNotFoundError: a path that does not exist, or a pattern that nothing matches.
        ValueError: nothing is given, two checkpoints of one step, or a pattern whose matches have no step in the name.
        TypeError: something that is no checkpoint.
    """
    if isinstance(given, Mapping):
        if given and all(isinstance(value, Tensor) for value in given.values()):
            raise TypeError("one state dict is no list of checkpoints: give {step: state dict} or a sequence of them")
        found = [_checkpoint(_as_step(key), value) for key, value in given.items()]
    elif isinstance(given, str | Path):
        paths = _paths(given)
        steps = _steps(paths)
        if steps is None and len(paths) > 1:
            raise ValueError(
                f"{given}: the steps cannot be told from names such as {paths[0]!s} and {paths[1]!s}: give "
                "{step: path}"
            )
        found = [_checkpoint(step, path) for step, path in zip(steps or range(len(paths)), paths, strict=True)]
    elif isinstance(given, Iterable) and not isinstance(given, nn.Module):
        items = [part for one in given for part in (_paths(one) if isinstance(one, str | Path) else [one])]
        told = _steps(items) if all(isinstance(item, Path | str) for item in items) else None
        found = [_checkpoint(step, item) for step, item in zip(told or range(len(items)), items, strict=True)]
    else:
        raise TypeError(
            f"checkpoints must be a glob pattern, a sequence of paths or models, or a mapping from step to these, got "
            f"{type(given).__name__}"
        )
    if not found:
        raise ValueError("no checkpoints were given: give at least one path or model")
    found.sort(key=lambda checkpoint: checkpoint.step)
    for one, other in itertools.pairwise(found):
        if one.step == other.step:
            raise ValueError(f"{one.name} and {other.name} are both of step {one.step}: give {{step: path}}")
    return found


def _checkpoint(step: float, content: Any) -> Checkpoint:
    if isinstance(content, nn.Module):
        return Checkpoint(step, f"{type(content).__name__} at step {step}", content)
    if isinstance(content, Mapping):
        return Checkpoint(step, f"state dict at step {step}", content)
    if isinstance(content, str | Path):
        paths = _paths(content)
        if len(paths) != 1:
            raise ValueError(f"step {step}: {content} matches {len(paths)} checkpoints, give one")
        return Checkpoint(step, str(paths[0]), paths[0])
    raise TypeError(f"step {step}: a checkpoint is a path, a module or a state dict, got {type(content).__name__}")


def _as_step(key: Any) -> float:
    if isinstance(key, int | float | np.integer | np.floating) and not isinstance(key, bool):
        return int(key) if float(key).is_integer() else float(key)
    told = _number_in(key) if isinstance(key, str) else None
    if told is None:
        raise ValueError(f"a step must be a number, or a name that holds one, got {key!r}")
    return told


def _paths(given: str | Path) -> list[Path | str]:
    path = Path(given).expanduser()
    if path.exists():
        if not is_checkpoint(path):
            raise ValueError(
                f"{given} is no checkpoint: give a folder with config.json or weights, a .safetensors file or a torch "
                f"file, or a pattern such as {path / '*' if path.is_dir() else path.parent / '*'}"
            )
        return [path]
    if isinstance(given, str) and ON_THE_HUB.fullmatch(given):
        return [given]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    found: list[Path | str] = [match for match in matches if is_checkpoint(match)]
    if not found:
        others = f" (what matches is none: {matches[0]})" if matches else ""
        raise FileNotFoundError(f"{given}: no such checkpoint{others}")
    return found


def _steps(paths: Sequence[Path | str]) -> list[int] | None:
    """The step of each, from the first level of names that tells all of them apart."""
    for level in range(LEVELS):
        names = [_name(path, level) for path in paths]
        found = [number for number in map(_number_in, names) if number is not None]
        if len(found) == len(paths) and len(set(found)) == len(found):
            return found
    return None


def _name(path: Path | str, level: int) -> str:
    if isinstance(path, str):
        return path.rpartition("@")[2]
    parts = path.absolute().parts
    return parts[-1 - level] if level < len(parts) else ""


def _number_in(name: str) -> int | None:
    found = NAMED_STEP.findall(name) or re.findall(r"\d+", name)
    return int(found[-1]) if found else None
