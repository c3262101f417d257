"""A state to go on from, in a file: all of it or the one before, and nothing that the disk has changed since."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import IO, Any

import torch

from sltfast.results.durable import sync_directory

State = dict[str, Any]
_END = struct.Struct("<4sI")  # mark, crc32 of all before it; torch's reader looks for its own end and finds it
_MARK = b"SLTs"


def write_state(path: Path, state: State) -> None:
    """Write a state so that a reader sees all of it or the one before, after a power cut too."""
    partial = path.with_suffix(".partial")
    with open(partial, "w+b") as file:
        torch.save(state, file)
        file.write(_END.pack(_MARK, _checksum(file, file.seek(0, os.SEEK_END))))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_directory(path.parent)


def read_state(path: Path) -> State | None:
    """What was written; None where there is nothing, or something that the disk has changed (a warning says so)."""
    if not path.exists():
        return None
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END) - _END.size
        if size > 0:
            file.seek(size)
            mark, checksum = _END.unpack(file.read())
            if mark == _MARK and checksum == _checksum(file, size):
                file.seek(0)
                state: State = torch.load(file, map_location="cpu", weights_only=True)
                return state
    warnings.warn(f"{path} is damaged: its chains begin anew", UserWarning, stacklevel=2)
    return None


def _checksum(file: IO[bytes], size: int) -> int:
    """Of the first ``size`` bytes; the file is left there."""
    file.seek(0)
    checksum = 0
    while size:
        part = file.read(min(size, 1 << 20))
        if not part:
            raise EOFError(f"the file ends {size} bytes early")
        checksum, size = zlib.crc32(part, checksum), size - len(part)
    return checksum
