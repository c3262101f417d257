"""Where recorded rows go: arrays in memory, or a journal folded into full zarr chunks as they fill.

A pass of the sampler records some consecutive chains at once: its *section* of the store.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sltfast.results.durable import SPECS, discard, sync_directory, write_atomically
from sltfast.results.intact import FILES, compressor, measured
from sltfast.results.journal import Journal, read_journal
from sltfast.results.layout import ArraySpec
from sltfast.results.state import State, read_state, write_state


class Section(Protocol):
    """Some consecutive chains of a store, written by one pass."""

    def put(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Record values [chains, rows, …] from this chain and row on; rows arrive in ascending order."""

    def flush(self) -> None:
        """What was put is on disk when this returns."""

    def save_state(self, state: State) -> None:
        """Keep a state to go on from; all rows of steps before ``state["step"]`` are flushed already."""

    def hand_over(self, state: State) -> None:
        """Leave a state to the section of the same chains that is opened next, in this process or another."""

    def load_state(self) -> State | None:
        """The last saved state, or None."""

    def cut_back(self, step: int) -> None:
        """Forget the rows of this step and later ones; 0 forgets all of them and the state."""

    def finish(self) -> None:
        """The chains are complete."""


class Store(Protocol):
    """What the sampling loop needs of a place for results."""

    def put_whole(self, name: str, values: np.ndarray, chains: slice | None = None) -> None:
        """Record all of an array without rows, or some chains' part of it."""

    def put_plan(self, plan: Mapping[str, Any]) -> None:
        """Record how the run went through the machine, where that was not known at its start."""

    def put_deaths(self, deaths: Mapping[str, Any]) -> None:
        """Record what is known of chains that were stopped, by chain, beside what an earlier call found."""

    def is_done(self, chains: range) -> bool:
        """Whether these chains were finished by an earlier, interrupted call."""

    def section(self, chains: range) -> Section:
        """The part of the store that a pass over these chains writes."""

    def divide(self, chains: range, parts: Sequence[range], *, forget: bool) -> None:
        """Give up the section of these chains for smaller ones, which get its rows, or none of them (``forget``).

        Its state is gone; each part goes on from what is handed over to it, or anew.
        """

    def close(self, completed: bool) -> None:
        """Put everything where a reader finds it."""


class MemoryStore:
    """Arrays in memory; what all chains share is kept once."""

    def __init__(self, specs: Sequence[ArraySpec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.arrays = {
            spec.name: np.full(spec.shape[1:] if spec.shared else spec.shape, spec.fill, spec.dtype) for spec in specs
        }
        self.states: dict[range, State] = {}

    def put_whole(self, name: str, values: np.ndarray, chains: slice | None = None) -> None:
        """Set an array, or some chains' part of it."""
        self.arrays[name][... if chains is None else chains] = values

    def put_plan(self, plan: Mapping[str, Any]) -> None:
        """Attributes are kept by who made the store."""

    def put_deaths(self, deaths: Mapping[str, Any]) -> None:
        """Attributes are kept by who made the store."""

    def is_done(self, chains: range) -> bool:
        """Never: nothing came before."""
        return False

    def section(self, chains: range) -> MemorySection:
        """Rows go straight into the arrays."""
        return MemorySection(self, chains)

    def divide(self, chains: range, parts: Sequence[range], *, forget: bool) -> None:
        """The rows are where they belong already."""
        for spec in self.specs.values():
            if forget and spec.rows and not spec.shared:
                self.arrays[spec.name][chains.start : chains.stop] = spec.fill

    def close(self, completed: bool) -> None:
        """Nothing to flush."""

    def views(self) -> dict[str, np.ndarray]:
        """The arrays in their full shapes; shared ones are read-only views."""
        return {
            name: np.broadcast_to(array, self.specs[name].shape) if self.specs[name].shared else array
            for name, array in self.arrays.items()
        }


class MemorySection:
    """A section of arrays in memory: there is nothing to flush, and nothing that outlives the process."""

    def __init__(self, store: MemoryStore, chains: range) -> None:
        self.store, self.chains = store, chains

    def put(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Set the rows."""
        chains, rows = values.shape[:2]
        array = self.store.arrays[name]
        if self.store.specs[name].shared:
            array[row : row + rows] = values[0]
        else:
            array[chain : chain + chains, row : row + rows] = values

    def flush(self) -> None:
        """Nothing waits."""

    def save_state(self, state: State) -> None:
        """Nothing is kept."""

    def hand_over(self, state: State) -> None:
        """Kept until it is taken up."""
        self.store.states[self.chains] = state

    def load_state(self) -> State | None:
        """What was handed over, once."""
        return self.store.states.pop(self.chains, None)

    def cut_back(self, step: int) -> None:
        """Nothing came before."""

    def finish(self) -> None:
        """Nothing to fold."""


def sidecar(path: Path) -> Path:
    """Where an unfinished run keeps its journals and states; gone once the run is complete."""
    return path.with_name(path.name + ".journal")


class ZarrStore:
    """A zarr group at ``path``, with journals beside it until the run is complete.

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

        from sltfast.results.zarr_files import WholeFiles

        self.path, self.specs, self.step_of = path, list(specs), step_of
        self.index = {spec.name: k for k, spec in enumerate(specs)}
        self.side = sidecar(path)
        if not resume:
            self._create(attrs)
        self.files = WholeFiles(path, self.side)
        self.group = zarr.open_group(self.files, mode="r+")
        self.arrays: dict[str, Any] = {spec.name: self.group[spec.name] for spec in specs}
        self._sections: list[ZarrSection] = []

    def _create(self, attrs: Mapping[str, Any]) -> None:
        """Lay out an empty group beside ``path`` and move it there whole: a crash leaves all of it or none."""
        import zarr

        from sltfast.results.zarr_files import WholeFiles

        discard(self.side)
        self.side.mkdir(parents=True)
        write_atomically(self.side / SPECS, json.dumps([list(spec) for spec in self.specs]).encode())
        files = WholeFiles(self.side / "new", self.side)
        group = zarr.open_group(files, mode="w", zarr_format=3)
        for spec in self.specs:
            group.create_array(
                spec.name,
                shape=spec.shape,
                dtype=spec.dtype,
                chunks=tuple(max(1, c) for c in spec.chunks),
                dimension_names=spec.dims,
                fill_value=spec.fill,
                compressors=[compressor()],
                chunk_key_encoding={"name": "default", "separator": "."},  # "/" is a directory for each dimension
            )
        group.attrs.update({**attrs, "completed": 0})
        files.settle()
        if self.path.exists():  # to be replaced, or this very run without its journal: nothing to go on from
            os.replace(self.path, self.side / "old")
        os.replace(self.side / "new", self.path)
        sync_directory(self.path.parent)
        shutil.rmtree(self.side / "old", ignore_errors=True)

    def put_whole(self, name: str, values: np.ndarray, chains: slice | None = None) -> None:
        """Set an array, or some chains' part of it."""
        self.arrays[name][... if chains is None else chains] = values

    def put_plan(self, plan: Mapping[str, Any]) -> None:
        """Into the group's attributes."""
        own: Any = self.group.attrs["sltfast"]
        self.group.attrs["sltfast"] = {**own, "plan": dict(plan)}

    def put_deaths(self, deaths: Mapping[str, Any]) -> None:
        """Into the group's attributes."""
        own: Any = self.group.attrs["sltfast"]
        self.group.attrs["sltfast"] = {**own, "deaths": {**own.get("deaths", {}), **deaths}}

    def is_done(self, chains: range) -> bool:
        """Whether the chains' rows are all in zarr chunks."""
        return all((self.side / f"chain-{chain:04d}.done").exists() for chain in chains)

    def section(self, chains: range) -> ZarrSection:
        """Rows go to a journal of their own, and to zarr as chunks fill."""
        section = ZarrSection(self, chains)
        self._sections.append(section)
        return section

    def divide(self, chains: range, parts: Sequence[range], *, forget: bool) -> None:
        """Rewrite the section's journal as one for each part."""
        for section in [one for one in self._sections if one.chains == chains]:
            section.close()
            self._sections.remove(section)
        whole = ZarrSection(self, chains)
        if forget:
            whole.cut_back(0)
            for spec in self.specs:
                if spec.rows:
                    self.arrays[spec.name][chains.start : chains.stop] = spec.fill
            return
        whole.divide(parts)

    def close(self, completed: bool) -> None:
        """Flush the journals; a complete run needs none of them any more."""
        for section in self._sections:
            section.close()
        if completed:
            self.files.settle()
            own: Any = self.group.attrs["sltfast"]
            self.group.attrs.update({"sltfast": {**own, FILES: measured(self.path, self.index)}, "completed": 1})
            self.files.settle()
            discard(self.side)


class ZarrSection:
    """Some chains of a zarr store: their journal, and the rows that wait for their chunk to fill."""

    def __init__(self, store: ZarrStore, chains: range) -> None:
        self.store, self.chains = store, chains
        self._journal: Journal | None = None
        self._chunks: dict[str, tuple[int, np.ndarray]] = {}

    def put(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Journal the rows, and stage them for their zarr chunks."""
        if self._journal is None:
            self._journal = Journal(self._file("journal"), self.store.specs)
        self._journal.append(self.store.index[name], chain, row, values)
        self._stage(name, chain, row, values)

    def _stage(self, name: str, chain: int, row: int, values: np.ndarray) -> None:
        """Hold rows until their chunk is full, then write the chunk."""
        spec = self.store.specs[self.store.index[name]]
        size, first = spec.chunks[1], chain - self.chains.start
        while values.shape[1]:
            start = row - row % size
            held = self._chunks.get(name)
            if held is None or held[0] != start:
                if held is not None:
                    self._fold(name)
                length = min(size, spec.shape[1] - start)
                block = np.full((len(self.chains), length, *spec.shape[2:]), spec.fill, spec.dtype)
                held = self._chunks[name] = (start, block)
            fits = min(values.shape[1], start + size - row)
            held[1][first : first + values.shape[0], row - start : row - start + fits] = values[:, :fits]
            row, values = row + fits, values[:, fits:]

    def _fold(self, name: str) -> None:
        start, block = self._chunks.pop(name)
        chains = slice(self.chains.start, self.chains.stop)
        self.store.arrays[name][chains, start : start + block.shape[1]] = block

    def flush(self) -> None:
        """Put the journal on disk."""
        if self._journal is not None:
            self._journal.flush()

    def save_state(self, state: State) -> None:
        """Write a state so that a reader sees all of it or the one before."""
        write_state(self._file("state"), state)

    def hand_over(self, state: State) -> None:
        """Saved like any other."""
        self.save_state(state)

    def divide(self, parts: Sequence[range]) -> None:
        """One journal for each part of the chains, in place of this one; the state is gone."""
        self._file("state").unlink(missing_ok=True)
        sync_directory(self.store.side)
        if not self._file("journal").exists():
            return
        sections = [ZarrSection(self.store, part) for part in parts]
        journals = [Journal(section._file("part"), self.store.specs) for section in sections]
        for record in read_journal(self._file("journal"), self.store.specs):
            for part, journal in zip(parts, journals, strict=True):
                first = max(part.start, record.chain)
                values = record.values[first - record.chain : max(0, part.stop - record.chain)]
                if len(values):
                    journal.append(record.array, first, record.row, values)
        for section, journal in zip(sections, journals, strict=True):
            journal.close()
            os.replace(section._file("part"), section._file("journal"))
        sync_directory(self.store.side)

    def load_state(self) -> State | None:
        """The last saved state, or None."""
        return read_state(self._file("state"))

    def cut_back(self, step: int) -> None:
        """Rewrite the journal without the rows of this step and later ones."""
        journal = self._file("journal")
        if step == 0:
            for kind in ("state", "journal"):
                for chain in self.chains:  # of parts of this section too
                    (self.store.side / f"chain-{chain:04d}.{kind}").unlink(missing_ok=True)
                sync_directory(self.store.side)  # a state must not come back beside a journal that lacks its rows
        if not journal.exists():
            return
        kept = self._file("kept")
        kept.unlink(missing_ok=True)
        rewritten = Journal(kept, self.store.specs)
        for record in read_journal(journal, self.store.specs):
            spec = self.store.specs[record.array]
            rows = range(record.row, record.row + record.values.shape[1])
            values = record.values[:, : sum(self.store.step_of(spec.rows, row) < step for row in rows)]
            if values.shape[1]:
                rewritten.append(record.array, record.chain, record.row, values)
                self._stage(spec.name, record.chain, record.row, values)
        rewritten.close()
        os.replace(kept, journal)
        sync_directory(self.store.side)  # what is appended from now on is found under the journal's name

    def finish(self) -> None:
        """Write the last, partial chunks; the journal has then served."""
        for name in list(self._chunks):
            self._fold(name)
        self.store.files.settle()
        for chain in self.chains:
            write_atomically(self.store.side / f"chain-{chain:04d}.done", b"", named=False)
        sync_directory(self.store.side)
        self.close()
        for kind in ("journal", "state"):
            self._file(kind).unlink(missing_ok=True)

    def close(self) -> None:
        """Flush and close the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _file(self, kind: str) -> Path:
        return self.store.side / f"chain-{self.chains.start:04d}.{kind}"
