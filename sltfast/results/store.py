"""Where recorded rows go: arrays in memory, or a journal folded into full zarr chunks as they fill."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sltfast.results.journal import Journal, read_journal
from sltfast.results.layout import ArraySpec

State = dict[str, Any]
SPECS = "specs.json"


class Store(Protocol):
    """What the sampling loop needs of a place for results."""

    def put(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Record one row of an array that has rows; rows of a chain arrive in ascending order."""

    def put_whole(self, name: str, values: np.ndarray, chain: int | None = None) -> None:
        """Record all of an array without rows, or one chain's part of it."""

    def is_done(self, chain: int) -> bool:
        """Whether the chain was finished by an earlier, interrupted call."""

    def restore(self, chain: int) -> State | None:
        """The state to go on from, or None to start the chain anew."""

    def save_state(self, chain: int, state: State) -> None:
        """Keep a state to go on from; all rows of steps before ``state["step"]`` are recorded already."""

    def finish_chain(self, chain: int) -> None:
        """The chain is complete."""

    def close(self, completed: bool) -> None:
        """Put everything where a reader finds it."""


class MemoryStore:
    """Arrays in memory; what all chains share is kept once."""

    def __init__(self, specs: Sequence[ArraySpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.arrays = {
            spec.name: np.full(spec.shape[1:] if spec.shared else spec.shape, spec.fill, spec.dtype) for spec in specs
        }

    def put(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Set one row."""
        target = self.arrays[name] if self.specs[name].shared else self.arrays[name][chain]
        target[row] = values

    def put_whole(self, name: str, values: np.ndarray, chain: int | None = None) -> None:
        """Set an array, or a chain's part of it."""
        if chain is None:
            self.arrays[name][...] = values
        else:
            self.arrays[name][chain] = values

    def is_done(self, chain: int) -> bool:
        """Never: nothing came before."""
        return False

    def restore(self, chain: int) -> State | None:
        """Never: nothing came before."""
        return None

    def save_state(self, chain: int, state: State) -> None:
        """Nothing to keep: what is in memory does not outlive the process."""

    def finish_chain(self, chain: int) -> None:
        """Nothing to fold."""

    def close(self, completed: bool) -> None:
        """Nothing to flush."""

    def views(self) -> dict[str, np.ndarray]:
        """The arrays in their full shapes; shared ones are read-only views."""
        return {
            name: np.broadcast_to(array, self.specs[name].shape) if self.specs[name].shared else array
            for name, array in self.arrays.items()
        }


def sidecar(path: Path) -> Path:
    """Where an unfinished run keeps its journal and states; gone once the run is complete."""
    return path.with_name(path.name + ".journal")


class ZarrStore:
    """A zarr group at ``path``, with a journal beside it until the run is complete.

    Args:
        path: the group's directory. ``specs``: its arrays. ``attrs``: root attributes.
        resume: the directory holds this very run, interrupted.
        step_of: (spec.rows, row) -> the step at which the row is recorded.
    """

    def __init__(
        self,
        path: Path,
        specs: Sequence[ArraySpec],
        attrs: Mapping[str, Any],
        step_of: Callable[[str, int], int],
        *,
        resume: bool,
    ) -> None:
        import zarr

        self.path, self.specs, self.step_of = path, list(specs), step_of
        self.index = {spec.name: k for k, spec in enumerate(specs)}
        self.side = sidecar(path)
        if not resume:
            self._create(attrs)
        self.group = zarr.open_group(str(path), mode="r+")
        self.arrays: dict[str, Any] = {spec.name: self.group[spec.name] for spec in specs}
        self._journals: dict[int, Journal] = {}
        self._chunks: dict[tuple[str, int], tuple[int, np.ndarray]] = {}

    def _create(self, attrs: Mapping[str, Any]) -> None:
        """Lay out an empty group beside ``path`` and move it there whole: a crash leaves all of it or none."""
        import zarr

        shutil.rmtree(self.side, ignore_errors=True)
        self.side.mkdir(parents=True)
        write_atomically(self.side / SPECS, json.dumps([list(spec) for spec in self.specs]).encode())
        group = zarr.open_group(str(self.side / "new"), mode="w", zarr_format=3)
        for spec in self.specs:
            group.create_array(
                spec.name,
                shape=spec.shape,
                dtype=spec.dtype,
                chunks=tuple(max(1, c) for c in spec.chunks),
                dimension_names=spec.dims,
                fill_value=spec.fill,
            )
        group.attrs.update({**attrs, "completed": 0})
        if self.path.exists():  # this very run without its journal: nothing to go on from
            shutil.rmtree(self.path)
        os.replace(self.side / "new", self.path)

    def put(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Journal one row, and stage it for its zarr chunk."""
        journal = self._journals.get(chain)
        if journal is None:
            journal = self._journals[chain] = Journal(self._file(chain, "journal"), self.specs)
        journal.append(self.index[name], chain, row, values)
        self._stage(name, chain, row, values)

    def _stage(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Hold a row until its chunk is full, then write the chunk."""
        spec = self.specs[self.index[name]]
        size = spec.chunks[1]
        start = row - row % size
        held = self._chunks.get((name, chain))
        if held is None or held[0] != start:
            if held is not None:
                self._fold(name, chain)
            length = min(size, spec.shape[1] - start)
            held = (start, np.full((length, *spec.shape[2:]), spec.fill, spec.dtype))
            self._chunks[name, chain] = held
        held[1][row - start] = values

    def _fold(self, name: str, chain: int) -> None:
        start, block = self._chunks.pop((name, chain))
        self.arrays[name][chain, start : start + len(block)] = block

    def put_whole(self, name: str, values: np.ndarray, chain: int | None = None) -> None:
        """Set an array, or a chain's part of it."""
        if chain is None:
            self.arrays[name][...] = values
        else:
            self.arrays[name][chain] = values

    def is_done(self, chain: int) -> bool:
        """Whether the chain's rows are all in zarr chunks."""
        return self._file(chain, "done").exists()

    def restore(self, chain: int) -> State | None:
        """The last saved state, the journal cut back to it; None (and no journal) where there is none."""
        journal, saved = self._file(chain, "journal"), self._file(chain, "state")
        if not (journal.exists() and saved.exists()):
            journal.unlink(missing_ok=True)
            return None
        state: State = torch.load(saved, map_location="cpu", weights_only=True)
        kept = self._file(chain, "kept")
        kept.unlink(missing_ok=True)
        rewritten = Journal(kept, self.specs)
        for record in read_journal(journal, self.specs):
            spec = self.specs[record.array]
            if self.step_of(spec.rows, record.row) < state["step"]:
                rewritten.append(record.array, chain, record.row, record.values)
                self._stage(spec.name, chain, record.row, record.values)
        rewritten.close()
        os.replace(kept, journal)
        return state

    def save_state(self, chain: int, state: State) -> None:
        """Put the journal on disk, then the state that it leads up to."""
        if chain in self._journals:
            self._journals[chain].flush()
        target = self._file(chain, "state")
        partial = target.with_suffix(".partial")
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)

    def finish_chain(self, chain: int) -> None:
        """Write the last, partial chunks; the journal has then served."""
        for name, owner in [key for key in self._chunks if key[1] == chain]:
            self._fold(name, owner)
        write_atomically(self._file(chain, "done"), b"")
        if chain in self._journals:
            self._journals.pop(chain).close()
        for kind in ("journal", "state"):
            self._file(chain, kind).unlink(missing_ok=True)

    def close(self, completed: bool) -> None:
        """Flush the journals; a complete run needs none of them any more."""
        for journal in self._journals.values():
            journal.close()
        if completed:
            self.group.attrs["completed"] = 1
            shutil.rmtree(self.side)

    def _file(self, chain: int, kind: str) -> Path:
        return self.side / f"chain-{chain:04d}.{kind}"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
