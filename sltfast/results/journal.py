"""An append-only journal of recorded rows: what was written before a crash can be read after it.

A record is  length u32 | crc32 u32 | array u16 | first chain u32 | chains u32 | first row u64 | rows u32 | values: some
rows of some chains that lie together. A torn or damaged record ends the journal: nothing after it is believed.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sltfast.results.durable import sync_directory
from sltfast.results.layout import ArraySpec

_HEAD = struct.Struct("<II")
_KEY = struct.Struct("<HIIQI")
FLUSH_SECONDS = 1.0


class Record(NamedTuple):
    """Rows ``row``… of chains ``chain``… of one array: values [chains, rows, …]."""

    array: int
    chain: int
    row: int
    values: np.ndarray


class Journal:
    """Appends records; they reach the disk within about a second, or when ``flush`` is called."""

    def __init__(self, path: Path, specs: Sequence[ArraySpec]) -> None:
        self.path, self.specs = path, specs
        self._file = open(path, "ab")  # noqa: SIM115  (closed by close)
        try:
            sync_directory(path.parent)  # a state may rely on rows in it, so its name must not be lost
        except OSError:
            self._file.close()
            raise
        self._flushed = time.monotonic()

    def append(self, array: int, chain: int, row: int, values: np.ndarray) -> None:
        """Add values [chains, rows, …] that start at this chain and row."""
        key = _KEY.pack(array, chain, values.shape[0], row, values.shape[1])
        body = key + np.ascontiguousarray(values, self.specs[array].dtype).tobytes()
        self._file.write(_HEAD.pack(len(body), zlib.crc32(body)) + body)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put on disk what was appended so far."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()


def read_journal(path: Path, specs: Sequence[ArraySpec]) -> Iterator[Record]:
    """The whole records of a journal, in order; stops at the first torn or damaged one."""
    with open(path, "rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            body = file.read(length)
            # zeros at the end of a file that lost power pass for a record of nothing
            if len(body) < max(length, _KEY.size) or zlib.crc32(body) != checksum:
                return
            array, chain, chains, row, rows = _KEY.unpack_from(body)
            values = np.frombuffer(body, specs[array].dtype, offset=_KEY.size)
            yield Record(array, chain, row, values.reshape(chains, rows, *specs[array].shape[2:]))
