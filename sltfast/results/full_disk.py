"""A store that cannot be written to: one error that says where, how much room is needed, and how to go on."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sltfast.results.layout import ArraySpec

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def telling(paths: Sequence[Path], specs: Sequence[ArraySpec]) -> Iterator[None]:
    """Add to an error of the system where it happened and how to go on.

    Args:
        paths: the runs that are written, none where all are in memory.
        specs: the arrays of each.
    """
    try:
        yield
    except OSError as error:
        if paths:
            error.add_note(_told(error, paths, specs))
        raise


def _told(error: OSError, paths: Sequence[Path], specs: Sequence[ArraySpec]) -> str:
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} … {paths[-1]}"
    room = ""
    if error.errno in _FULL:
        need = len(paths) * sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in specs)
        free = shutil.disk_usage(paths[0].parent).free
        # arrays and the journals of unfinished chains, before compression
        room = f"; whole it takes up to {2 * need / 1e6:.3g} MB, {free / 1e6:.3g} MB are free there: make room"
    elif error.errno == errno.EFBIG:
        room = "; this process or file system takes no file of that size: raise the limit (ulimit -f)"
    return (
        f"while writing {where}{room}; what was written before can be read (sltfast.open), and the same call goes on "
        "from it"
    )
