"""One process a run: who writes to a path holds a lock beside it, which goes with the process."""

from __future__ import annotations

import errno
import os
import socket
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sltfast.errors import OutputBusy

try:
    import fcntl
except ImportError:  # not on this system: who holds the file is then asked of its text
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


class _Held:
    """An open lock file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor


_held: weakref.WeakSet[_Held] = weakref.WeakSet()


def _forget() -> None:
    """A child of a fork holds no lock: the parent's must not outlive the parent in it."""
    for one in list(_held):
        os.close(one.descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def lock_file(path: Path) -> Path:
    """Where who writes to a run says so; gone when nobody does."""
    return path.with_name(path.name + ".lock")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a run.

    The system gives a lock back when its process ends, however it ends. Where a file system has no locks the process
    named in the file counts as the holder as long as it lives, and one of another host until the file is removed.
    In a directory that cannot be written to there is no lock and nothing to guard.

    Raises:
        OutputBusy: another process, or another thread of this one, writes to the run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = lock_file(path)
    try:
        held = _acquire(file, path)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        yield
        return
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:
            _held.discard(held)
            file.unlink(missing_ok=True)
            os.close(held.descriptor)


def _acquire(file: Path, path: Path) -> _Held:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor, path, file)
            with_name = os.path.exists(file) and os.path.samestat(os.fstat(descriptor), os.stat(file))
        except FileNotFoundError:  # given back between two looks at it
            with_name = False
        except BaseException:
            os.close(descriptor)
            raise
        if with_name:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
            held = _Held(descriptor)
            _held.add(held)
            return held
        os.close(descriptor)  # its holder gave it back and took the file away: this one guards nothing


def _take(descriptor: int, path: Path, file: Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no locks")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(_holder(descriptor), path, file) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        holder = _holder(descriptor)
        if holder is not None and _lives(*holder):
            raise _busy(holder, path, file) from None


def _holder(descriptor: int) -> tuple[int, str] | None:
    """Process and host that a lock file names."""
    words = os.pread(descriptor, 1000, 0).decode(errors="replace").split()
    return (int(words[0]), words[1]) if len(words) == 2 and words[0].isdigit() else None


def _lives(process: int, host: str) -> bool:
    if host != socket.gethostname():
        return True  # nobody can ask from here
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _busy(holder: tuple[int, str] | None, path: Path, file: Path) -> OutputBusy:
    who = "another process" if holder is None else f"process {holder[0]} on {holder[1]}"
    if holder == (os.getpid(), socket.gethostname()):
        who = f"another call in this process ({holder[0]})"
    return OutputBusy(
        f"{who} is writing to {path}: wait until it ends, then the same call returns what it recorded or goes on from "
        f"it; give another output_path to run beside it; if that process is gone, remove {file}"
    )
