"""The versions of devinterp that have a face here, and where each face has a module."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType

PACKAGE = "devinterp"
FACES = {"2": "sltfast.compat.devinterp", "1": "sltfast.compat.devinterp_v1"}
RELEASES = {"2": "2.0.1", "1": "1.3.2"}


def face_module(version: str, name: str) -> str:
    """The face's module that stands for devinterp's.

    Args:
        version: ``"2"`` or ``"1"``.
        name: ``devinterp`` or one of its modules, dotted.
    """
    return FACES[version] + name.removeprefix(PACKAGE)


@cache
def has_module(version: str, name: str) -> bool:
    """Whether a face has a module; its packages are imported to know, the module itself is not."""
    try:
        return importlib.util.find_spec(face_module(version, name)) is not None
    except ImportError:  # it is inside something that cannot be imported
        return False


def load(version: str, name: str) -> ModuleType:
    """Import the face's module."""
    return importlib.import_module(face_module(version, name))


def has_name(version: str, module: str, name: str) -> bool:
    """Whether a face's module has a name, or a module of that name inside it."""
    if not has_module(version, module):
        return False
    try:
        return hasattr(load(version, module), name) or has_module(version, f"{module}.{name}")
    except ImportError:  # of an extra that is not installed: nothing of this module can be used
        return False


def where_it_is(module: str, name: str | None = None) -> str:
    """Which versions have a module, or a name of it, and how to get them: the end of an error message."""
    holders = [v for v in FACES if (has_module(v, module) if name is None else has_name(v, module, name))]
    if not holders:
        return f"neither devinterp {' nor '.join(RELEASES.values())} has it, as far as sltfast knows them"
    ways = " or ".join(f'sltfast.compat.install(version="{v}")' for v in holders)
    return f'it is in devinterp {" and ".join(RELEASES[v] for v in holders)}: {ways}, or version="auto"'
