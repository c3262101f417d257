"""What a run keeps of its observables: every draw, or moments of blocks of consecutive draws."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sltfast.observables import Observable
from sltfast.sampler.config import SamplerConfig

if TYPE_CHECKING:
    from sltfast.request import Record, Request


@dataclass(frozen=True)
class Recording:
    """Draw d belongs to block d·K // D: K blocks of D draws, whose lengths differ by one at most.

    Attributes:
        record: "traces", "moments" of every token with the sampling task, or "covariances" of sequences.
        task: the sampling task's identifier, "" without one.
        num_blocks: K.
        config: of the sampler.
    """

    record: Record
    task: str
    num_blocks: int
    config: SamplerConfig

    @classmethod
    def of(cls, request: Request, config: SamplerConfig, observables: Sequence[Observable]) -> Recording:
        """What was asked for, checked against the observables and the draws.

        Raises:
            ValueError: moments of no observables, of more blocks than draws, or without a task; a task that is no
                observable.
        """
        record, task, blocks = request.record, request.sampling_task, request.num_blocks
        names = [observable.name for observable in observables]
        if record != "traces":
            if not names:
                raise ValueError(f"record={record!r} needs observables: give {{name: data set}}, or record='traces'")
            if blocks > config.num_draws:
                raise ValueError(
                    f"num_blocks must be at most num_draws, {config.num_draws}, so that each has a draw, got {blocks}: "
                    "give fewer blocks, or more draws"
                )
        if record == "moments" and task is None:
            raise ValueError(f"record='moments' needs a sampling_task, one of the observables {names}")
        if task is not None and task not in names:
            close = difflib.get_close_matches(task, names, n=1)
            mend = f"did you mean {close[0]!r}?" if close else "add it to the observables"
            raise ValueError(f"sampling_task {task!r} is none of the observables {names}: {mend}")
        own = "" if task is None else observables[names.index(task)].id
        return cls(record, own, blocks, config)

    def check_sizes(self, rows: Sequence[int], positions: Sequence[int]) -> None:
        """Refuse covariances that would be larger than the traces they stand for.

        Args:
            rows: sequences of each observable.
            positions: losses of each sequence, by observable.

        Raises:
            ValueError: they would be; the message says both sizes.
        """
        if self.record != "covariances":
            return
        items, draws = sum(rows), self.config.num_draws
        covariances = 8 * self.num_blocks * items * (items + 1)
        traces = 4 * draws * sum(count * width for count, width in zip(rows, positions, strict=True))
        if covariances > traces:
            raise ValueError(
                f"record='covariances' of {items} sequences in {self.num_blocks} blocks would keep {covariances:,} "
                f"bytes a chain, the traces of {draws} draws {traces:,}: give record='traces', fewer blocks, or at "
                f"least {-(-covariances * draws // traces)} draws"
            )

    def block_of(self, draw: int) -> int:
        """The block that a draw belongs to."""
        return draw * self.num_blocks // self.config.num_draws

    def first_draw(self, block: int) -> int:
        """The first draw of a block; of block K: D."""
        return -(-block * self.config.num_draws // self.num_blocks)

    def last_draw(self, block: int) -> int:
        """The last draw of a block."""
        return self.first_draw(block + 1) - 1

    def step_of(self, rows: str, row: int) -> int:
        """The step at which row ``row`` of an array that counts "step", "draw" or "block" is recorded."""
        return self.config.step_of("draw", self.last_draw(row)) if rows == "block" else self.config.step_of(rows, row)

    @property
    def identity(self) -> dict[str, str]:
        """What must agree for two runs to be the same, beside the names of their arrays."""
        if self.record == "traces":
            return {}
        return {"record": f"{self.record} of {self.task or 'no task'} in {self.num_blocks} blocks"}

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        if self.record == "traces":
            return {"record": self.record, "sampling_task": self.task}
        return {"record": self.record, "sampling_task": self.task, "num_blocks": self.num_blocks}
