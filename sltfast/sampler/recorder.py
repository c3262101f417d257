"""What a pass records on its way: kept on the device, handed over in blocks, without a wait between draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sltfast.results.store import Section
from sltfast.results.writer import Writer

FLUSH_SECONDS = 0.25
FLUSH_STEPS = 64
FLUSH_BYTES = 16 << 20


class Target(NamedTuple):
    """Where some lanes are recorded: a section of a store, the first of its chains, the lanes, whose they are."""

    section: Section
    chain: int
    lanes: slice
    cell: int


class Recorder:
    """Collects rows of all lanes of a pass, and gives them to the writer a block at a time.

    A lane's rows end where it died: what a dead lane computes is never recorded.

    Args:
        targets: where each lane is recorded.
        writer: who writes.
        death_step: int64 [L] on the device, −1 while alive.
        seen: called with (first step, losses [L, steps], death steps [L]) of every block, in the writer's thread.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        writer: Writer,
        death_step: Tensor,
        seen: Callable[[int, np.ndarray, np.ndarray], None],
    ) -> None:
        self.targets, self.writer, self.death_step, self.seen = targets, writer, death_step, seen
        self._rows: dict[str, list[Tensor]] = {}
        self._at: dict[str, list[tuple[int, int]]] = {}  # (row, step) of each
        self._bytes, self._steps, self._flushed = 0, 0, time.monotonic()

    def add(self, row: int, step: int, values: Mapping[str, Tensor]) -> None:
        """One row of some arrays, [L, …] each (or [1, …], the same for all lanes), as of a step.

        The tensors are kept as they are: they must not be written to afterwards.
        """
        for name, tensor in values.items():
            self._rows.setdefault(name, []).append(tensor)
            self._at.setdefault(name, []).append((row, step))
            self._bytes += tensor.nbytes

    def step_done(self) -> None:
        """All rows of a step are in; hand over a block now and then."""
        self._steps += 1
        full = self._steps >= FLUSH_STEPS or self._bytes >= FLUSH_BYTES
        if full or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand over what was collected."""
        if self._rows:
            blocks = {name: _to_host(torch.stack(rows, dim=1)) for name, rows in self._rows.items()}
            at, deaths, nbytes = self._at, _to_host(self.death_step.clone()), self._bytes
            self._rows, self._at, self._bytes = {}, {}, 0
            self.writer.submit(lambda: self._write(blocks, at, deaths), nbytes)
        self._steps, self._flushed = 0, time.monotonic()

    def _write(
        self,
        blocks: Mapping[str, Callable[[], np.ndarray]],
        at: Mapping[str, list[tuple[int, int]]],
        deaths: Callable[[], np.ndarray],
    ) -> None:
        died = deaths()
        for name, block in blocks.items():
            values, steps = block(), [step for _, step in at[name]]
            for target in self.targets:
                for lanes, rows in _recorded(died[target.lanes], steps):
                    first = target.lanes.start + lanes.start
                    if len(values) == len(died):
                        kept = values[first : first + len(lanes), :rows]
                    else:  # the same for all lanes
                        kept = np.broadcast_to(values[:, :rows], (len(lanes), rows, *values.shape[2:]))
                    target.section.put(name, target.chain + lanes.start, at[name][0][0], kept)
            if name == "loss":
                self.seen(steps[0], values, died)


def _recorded(deaths: np.ndarray, steps: Sequence[int]) -> list[tuple[range, int]]:
    """Runs of neighbouring lanes that record equally many of these steps, and how many: all before their death."""
    counts = [len(steps) if death < 0 else sum(step < death for step in steps) for death in deaths.tolist()]
    runs, start = [], 0
    for lane in range(1, len(counts) + 1):
        if lane == len(counts) or counts[lane] != counts[start]:
            if counts[start]:
                runs.append((range(start, lane), counts[start]))
            start = lane
    return runs


def _to_host(tensor: Tensor) -> Callable[[], np.ndarray]:
    """Start copying to the host; the result is waited for when it is called."""
    if tensor.device.type != "cuda":
        return lambda: np.asarray(tensor)
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def arrived() -> np.ndarray:
        copied.synchronize()
        return np.asarray(host)

    return arrived
