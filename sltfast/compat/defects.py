"""Where devinterp is wrong: what it does, what its faces here do instead, why, and the native call that does it right.

A face keeps the documented contract and says so once per process, through ``warn_once``. The docs' table is this one.
"""

import warnings
from dataclasses import dataclass
from threading import Lock


class CompatWarning(UserWarning):
    """A face keeps a contract of devinterp's that gives worse numbers than the native call it names."""


@dataclass(frozen=True)
class Defect:
    """One row of the table.

    Attributes:
        theirs: what devinterp does.
        ours: what the face does.
        why: why it matters.
        native: the native call that does it right.
    """

    theirs: str
    ours: str
    why: str
    native: str

    @property
    def message(self) -> str:
        """The warning's text."""
        return f"devinterp's contract: {self.ours}. {self.why}. Natively: {self.native}"


DEFECTS: dict[str, Defect] = {
    "burn-in in the LLC": Defect(
        theirs="llc and compute_llc average the loss over every step, the burn-in and the loss at w* included",
        ours="llc_mean, llc_std and llc_per_chain average over every step, the burn-in included",
        why="the chain starts at the minimum, so the estimate is too low until it forgets where it started",
        native="sltfast.llc, which averages over the draws after the burn-in and gives a standard error",
    ),
}

_SAID: set[str] = set()
_LOCK = Lock()


def warn_once(key: str, *, stacklevel: int = 3) -> None:
    """Warn of a row of ``DEFECTS`` the first time this process meets it.

    Args:
        key: the row.
        stacklevel: as ``warnings.warn`` counts it; the default names the caller of the function that calls this.
    """
    with _LOCK:
        if key in _SAID:
            return
        _SAID.add(key)
    warnings.warn(DEFECTS[key].message, CompatWarning, stacklevel=stacklevel)


def forget_warnings() -> None:
    """Let every row be said again."""
    with _LOCK:
        _SAID.clear()
