"""Files that outlive a power cut: content on disk before its name is, names on disk before what relies on them."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

PARTIAL = ".partial"
SPECS = "specs.json"
_OURS = re.compile(rf"{re.escape(SPECS)}.*|chain-\d+\.(journal|kept|state|done)|.*\.partial|new|old")


def sync_directory(path: Path) -> None:
    """Put on disk what was created, renamed or removed in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, *, named: bool = True, partial: Path | None = None) -> None:
    """Write a file so that a reader sees all of it or what was there before, after a power cut too.

    Args:
        path: of the file.
        content: all of it.
        named: whether its name is on disk as well when this returns.
        partial: where it is written until it is whole; beside it by default.
    """
    partial = partial or path.with_name(path.name + PARTIAL)
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    if named:
        sync_directory(path.parent)


def is_ours(side: Path) -> bool:
    """Whether a directory of journals holds nothing but what runs put there."""
    return side.is_dir() and ((side / SPECS).exists() or all(_OURS.fullmatch(p.name) for p in side.iterdir()))


def discard(side: Path) -> None:
    """Remove a directory of journals; what names its run goes last, so that a stop on the way leaves it known."""
    if not side.exists():
        return
    for path in side.iterdir():
        if path.name == SPECS:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(side)
