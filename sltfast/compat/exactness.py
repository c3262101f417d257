"""Whether a call must give devinterp's numbers bit for bit, or the same distribution faster."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_EXACT: ContextVar[bool] = ContextVar("sltfast_compat_exact", default=False)


@contextmanager
def exact(on: bool = True) -> Iterator[None]:
    """Within the block, every call of a devinterp face gives devinterp's numbers bit for bit (CPU, fp32 and fp64).

    Operations run in torch's order with torch's noise stream and the model in train mode; the global random number
    generators are set as devinterp sets them, and restored afterwards. The setting belongs to the current thread.

    Args:
        on: False switches the exact mode off within the block, e.g. inside another ``with exact()``.
    """
    token = _EXACT.set(on)
    try:
        yield
    finally:
        _EXACT.reset(token)


def wants_exact(keyword: bool | None) -> bool:
    """The mode of one call: its ``exact=`` keyword, or where that is None the surrounding ``with exact():``."""
    return _EXACT.get() if keyword is None else keyword
