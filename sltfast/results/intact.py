"""Whether what a complete run left on disk is all there: files counted and measured; a checksum guards what is in each.

A chunk that holds nothing but fill values is never written, so that one that is lost would read as values that were
never recorded: NaN. A run therefore notes, when it is complete, how many files each array has and their bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sltfast.errors import OutputMismatch

FILES = "files"  # where the note is, among the attributes of ours


def compressor() -> Any:
    """What chunks are compressed by: zarr's default, and a checksum that any reader of Zstandard holds them against."""
    from zarr.codecs import ZstdCodec

    return ZstdCodec(level=0, checksum=True)


def measured(path: Path, arrays: Iterable[str]) -> dict[str, list[int]]:
    """By array, [files, bytes in them]."""
    return {name: _measured(str(path / name)) for name in arrays}


def _measured(folder: str) -> list[int]:
    files = size = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            inner = _measured(entry.path) if entry.is_dir() else [1, entry.stat().st_size]
            files, size = files + inner[0], size + inner[1]
    return [files, size]


def check_intact(path: Path, attrs: Mapping[str, Any]) -> None:
    """Hold a complete run against its own note; runs that have none (of other packages) pass.

    Raises:
        OutputMismatch: files are missing or cut, or there are others.
    """
    own = attrs.get("sltfast")
    noted = own.get(FILES) if isinstance(own, Mapping) else None
    if attrs.get("completed") != 1 or not isinstance(noted, Mapping):
        return
    for name, then in noted.items():
        try:
            now = _measured(str(path / name))
        except OSError as error:
            now = [0, 0]
            reason = f" ({error.strerror})"
        else:
            reason = ""
        if now != list(then):
            raise OutputMismatch(
                f"{path} is damaged: array {name!r} was written as {then[0]} files of {then[1]} bytes, and {now[0]} of "
                f"{now[1]} are there{reason}. Put them back, or remove the run (or give overwrite=True) and sample "
                "again; xarray.open_zarr reads what is left"
            )
