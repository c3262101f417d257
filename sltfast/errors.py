"""What goes wrong while sampling, as types a caller can catch."""

from __future__ import annotations

from typing import Any


class ChainDiverged(RuntimeWarning):
    """A chain met a non-finite loss or update: it was stopped and is excluded from every mean."""


class AllChainsDied(RuntimeError):
    """Every chain met a non-finite loss or update, so there is nothing to average.

    Attributes:
        samples: what was recorded until then, an ``xr.DataTree``, of several restrictions one by name (or None).
    """

    def __init__(self, message: str, samples: Any = None) -> None:
        super().__init__(message)
        self.samples = samples


class PassShrunk(RuntimeWarning):
    """Memory ran out, and the run goes on with fewer chains through the model together; the plan on record says so."""


class NotEnoughMemory(MemoryError):
    """Memory ran out where nothing smaller is left to try: one chain alone has no room.

    What was recorded before is kept at ``output_path``, and the same call goes on from it.
    """


class RunDeleted(UserWarning):
    """``overwrite=True`` is about to delete a run: the message says which, how much of it there is, and its time.

    Where warnings are errors nothing is deleted.
    """


class OutputMismatch(ValueError):
    """``output_path`` holds another run (other model, data or settings) or something that is no run."""


class OutputBusy(RuntimeError):
    """Another process, or another call in this one, is writing to ``output_path``: the message says which."""
