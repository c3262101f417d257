"""Rows on their way to a zarr store: buffered by array and chain, written by a few threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

SAFE_DTYPE_STRINGS = frozenset(
    [
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *(f"float{bits}" for bits in (16, 32, 64)),
        *(f"complex{bits}" for bits in (64, 128)),
    ]
)
"""Names that mean the same dtype to torch and NumPy."""


def validate_dtype_str_torch_numpy_compat(dtype_str: str) -> None:
    """Refuse a dtype that torch and NumPy do not share.

    Raises:
        ValueError: such a dtype.
    """
    if dtype_str not in SAFE_DTYPE_STRINGS:
        raise ValueError(f"Unsupported dtype: {dtype_str!r}. Use one of: {sorted(SAFE_DTYPE_STRINGS)}")


class RowBuffer:
    """Consecutive rows of one array and chain, held until ``rows`` [capacity, …] is full."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.first, self.count = rows, 0, 0

    @property
    def full(self) -> bool:
        """Whether no row fits in any more."""
        return self.count >= len(self.rows)

    def push(self, row: Tensor, index: int) -> None:
        """Take row number ``index``, the one after the last.

        Raises:
            RuntimeError: it is full.
            AssertionError: another row comes next.
        """
        if self.full:
            raise RuntimeError("the buffer is full: flush it before the next row")
        expected = self.first + self.count
        assert index == expected, f"Row index mismatch: expected {expected}, got {index}"
        self.rows[self.count].copy_(row)
        self.count += 1

    def flush(self) -> tuple[np.ndarray, slice] | None:
        """The rows held and which they are; None where there are none."""
        if not self.count:
            return None
        rows = self.rows[: self.count].numpy(force=True).copy()
        where = slice(self.first, self.first + self.count)
        self.first, self.count = where.stop, 0
        return rows, where


@dataclass
class ZarrWriter:
    """Writes rows of many chains to zarr arrays; use ``ZarrWriter.open``.

    Attributes:
        arrays: by name, each with named dimensions.
        chain_buffer_size: rows held of each array and chain.
        buffer_device: where they are held.
        executor: writes in the background; None: at once.
    """

    arrays: dict[str, Any]
    chain_buffer_size: int
    buffer_device: torch.device
    executor: ThreadPoolExecutor | None = None
    _waiting: list[Future[None]] = field(default_factory=list, init=False)
    _buffers: dict[tuple[str, int], RowBuffer] = field(default_factory=dict, init=False)

    @classmethod
    @contextmanager
    def open(
        cls, arrays: dict[str, Any], chain_buffer_size: int, buffer_device: torch.device, max_write_threads: int = 4
    ) -> Iterator[ZarrWriter]:
        """A writer whose rows are all in the store when the block ends, however it ends.

        Args:
            arrays: see the class.
            chain_buffer_size: likewise.
            buffer_device: likewise.
            max_write_threads: 0: write without threads.
        """
        threads = ThreadPoolExecutor(max_write_threads, "zarr_write") if max_write_threads > 0 else nullcontext()
        with threads as executor:
            writer = cls(arrays, chain_buffer_size, buffer_device, executor)
            try:
                yield writer
            finally:
                writer.flush_all_buffers()
                writer.wait_for_writes()

    def write(self, path: str, data: np.ndarray | Tensor, /, **dim_indices: int | slice) -> None:
        """Write part of an array now: ``writer.write("init_loss", losses, chain=0)``.

        Raises:
            ValueError: a dimension that the array does not have.
        """
        array = self.arrays[path]
        dims = array.metadata.dimension_names or ()
        unknown = [name for name in dim_indices if name not in dims]
        if unknown:
            raise ValueError(f"Unexpected dimensions: {unknown}. Valid: {list(dims)}")
        where = tuple(dim_indices.get(dim, slice(None)) for dim in dims)
        values = data.numpy(force=True).copy() if isinstance(data, Tensor) else data
        if self.executor is None:
            array.set_basic_selection(where, values)
        else:
            self._waiting.append(self.executor.submit(array.set_basic_selection, where, values))

    def push(self, path: str, data: Tensor, /, *, chain: int, **dim_indices: int | slice) -> None:
        """Hold one row of an array of chains and rows: ``writer.push("loss", row, chain=0, step=3)``."""
        dims = self.arrays[path].metadata.dimension_names
        assert dims[0] == "chain", f"{path} has dimensions {dims}: the first must be 'chain'"
        index = dim_indices[dims[1]]
        assert isinstance(index, int), f"one row is pushed at a time, got {dims[1]}={index}"
        self._buffer(path, chain).push(data, index)

    def flush_full_buffers(self) -> None:
        """Write what is held by buffers that no row fits in any more."""
        self._flush([key for key, buffer in self._buffers.items() if buffer.full])

    def flush_all_buffers(self) -> None:
        """Write everything that is held."""
        self._flush(list(self._buffers))

    def wait_for_writes(self) -> None:
        """Return when all writes are in the store.

        Raises:
            Exception: the one that a write met; of several, an ExceptionGroup.
        """
        waiting, self._waiting = self._waiting, []
        errors = [error for error in (future.exception() for future in waiting) if isinstance(error, Exception)]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(f"{len(errors)} zarr write(s) failed", errors)

    def _flush(self, keys: list[tuple[str, int]]) -> None:
        for path, chain in keys:
            held = self._buffers[path, chain].flush()
            if held is not None:
                rows, where = held
                self.write(path, rows, chain=chain, **{self.arrays[path].metadata.dimension_names[1]: where})

    def _buffer(self, path: str, chain: int) -> RowBuffer:
        key = (path, chain)
        if key not in self._buffers:
            array = self.arrays[path]
            dtype = getattr(torch, str(array.dtype))
            shape = (self.chain_buffer_size, *array.shape[2:])
            self._buffers[key] = RowBuffer(torch.zeros(shape, dtype=dtype, device=self.buffer_device))
        return self._buffers[key]
