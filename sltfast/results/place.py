"""The path that a caller names for results: whether a run can be written there at all."""

from __future__ import annotations

import os
from pathlib import Path

from sltfast.shown import shown

LONGEST_NAME = 255 - len(".journal.partial")  # bytes of a file's name, less what is kept beside a run


def place_of(output_path: str | Path | None) -> Path | None:
    """Where a run goes, absolute; None: memory. Nothing is made there.

    Raises:
        TypeError: no path.
        ValueError: a path that no file system takes, or one without a name.
        NotADirectoryError, PermissionError: a folder above it that is a file, or that may not be written to.
    """
    if output_path is None:
        return None
    path = readable_path(output_path, "output_path")
    try:
        path = path.expanduser().resolve()
        name = os.fsencode(path.name)
    except UnicodeEncodeError as error:
        raise ValueError(f"output_path {output_path!r} has characters that no path may hold: {error.reason}") from error
    except RuntimeError as error:  # of a user whom there is not, or of a loop of links, until Python 3.13
        raise ValueError(f"output_path {output_path} leads nowhere: {error}") from error
    if not path.name:
        raise ValueError(f"output_path {output_path!r} has no name: give one of its own, as {path / 'run.zarr'}")
    if len(name) > LONGEST_NAME:
        raise ValueError(
            f"output_path has a name of {len(name)} bytes ({path.name[:40]!r}…), but at most {LONGEST_NAME} are allowed"
        )
    above = nearest(path)
    if not above.is_dir():
        raise NotADirectoryError(f"output_path {path}: {above} is a file, not a folder; give another path")
    if not path.exists() and not os.access(above, os.W_OK | os.X_OK):  # a complete run is read all the same
        raise PermissionError(f"output_path {path}: {above} may not be written to; give another path")
    return path


def readable_path(path: str | Path, name: str) -> Path:
    """A path as the system takes it.

    Raises:
        TypeError: no path, or an empty one.
        ValueError: a null character, which no path may hold.
    """
    if not isinstance(path, str | os.PathLike) or not str(path).strip():
        raise TypeError(f"{name} must be a path, got {shown(path)}")
    if "\0" in str(path):
        raise ValueError(f"{name} {str(path)!r} holds a null character, which no path may")
    return Path(path)


def nearest(path: Path) -> Path:
    """The nearest thing above a path that exists.

    Raises:
        ValueError: a name on the way that is too long for the file system.
        PermissionError: a folder on the way that may not be read.
    """
    try:
        return next(parent for parent in path.parents if parent.exists())
    except PermissionError as error:
        raise PermissionError(
            f"{path}: {error.filename} may not be read; give another path, or its permission"
        ) from error
    except OSError as error:
        raise ValueError(
            f"output_path {str(path)[:80]}… is no path that the file system takes ({error.strerror})"
        ) from error
