"""A module called ``devinterp.…`` that looks every name up in the faces, when it is asked for."""

from __future__ import annotations

import dis
import importlib
import linecache
import sys
from contextlib import suppress
from types import FrameType, ModuleType
from typing import Any

from sltfast.compat.versions import FACES, PACKAGE, RELEASES, face_module, has_module, load, where_it_is
from sltfast.compat.wanted_version import wanted_version

_IMPORT_FROM = dis.opmap["IMPORT_FROM"]
_decided: dict[str, str | None] = {}  # by file or notebook cell, in the order of being asked


def forget_decisions() -> None:
    """Let every file be read anew."""
    _decided.clear()


def version_for(frame: FrameType | None) -> str:
    """The version for names that both have: what the asking file's other names tell; else what told last; else 2.

    Args:
        frame: from which a name is asked for; frames of the import system are passed over.
    """
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is not None:
        file = frame.f_code.co_filename
        if file not in _decided:
            _decided[file] = None  # looked up from within, e.g. by a face, it is undecided
            _decided[file] = wanted_version("".join(linecache.getlines(file, frame.f_globals)))
        if (version := _decided[file]) is not None:
            return version
    return next((version for version in reversed(_decided.values()) if version is not None), "2")


class AliasModule(ModuleType):
    """``devinterp`` or one of its modules: names are looked up, set and deleted in the faces' modules.

    Attributes:
        versions: the versions whose face has this module, among those installed.
    """

    versions: tuple[str, ...] = ()

    def face(self, frame: FrameType | None) -> ModuleType:
        """The face's module that a frame is served from first."""
        return load(self._ordered(frame)[0], self.__name__)

    def _ordered(self, frame: FrameType | None) -> list[str]:
        if len(self.versions) < 2:
            return list(self.versions)
        first = version_for(frame)
        return [first, *(version for version in self.versions if version != first)]

    def _holder(self, name: str, frame: FrameType | None) -> ModuleType | ImportError | None:
        """The face's module that has a name; else why one could not be asked; else None."""
        failed = None
        for version in self._ordered(frame):
            try:
                module = load(version, self.__name__)
            except ImportError as error:  # of an extra that is not installed: the other face serves all the same
                failed = error
                continue
            if hasattr(module, name):
                return module
        return failed

    def __getattr__(self, name: str) -> Any:
        frame = sys._getframe(1)
        if name == "__all__":
            return [word for word in dir(self) if not word.startswith("_")]
        holder = self._holder(name, frame)
        if isinstance(holder, ModuleType):
            value = getattr(holder, name)
            if isinstance(value, ModuleType) and value.__name__.startswith(tuple(FACES.values())):
                inner = f"{self.__name__}.{name}"
                if any(value.__name__ == face_module(v, inner) for v in FACES):
                    return importlib.import_module(inner)  # the alias, not the face's own module
            return value
        message = f"{self.__name__} has no {name!r} in {_releases(self.versions)}; {where_it_is(self.__name__, name)}"
        if holder is not None:
            message += f" (one of them could not be imported here: {holder})"
        # IMPORT_FROM swallows an AttributeError and its message
        if frame.f_code.co_code[frame.f_lasti] == _IMPORT_FROM:
            raise ImportError(message, name=self.__name__, path=self.__spec__.origin if self.__spec__ else None)
        raise AttributeError(message, name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, AliasModule) or name == "versions" or (name.startswith("__") and name.endswith("__")):
            super().__setattr__(name, value)
            return
        frame = sys._getframe(1)
        holder = self._holder(name, frame)
        setattr(holder if isinstance(holder, ModuleType) else self.face(frame), name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            super().__delattr__(name)
            return
        holder = self._holder(name, sys._getframe(1))
        if not isinstance(holder, ModuleType):
            raise AttributeError(f"{self.__name__} has no {name!r} to delete", name=name, obj=self)
        delattr(holder, name)

    def __dir__(self) -> list[str]:
        names = set(self.__dict__) - {"versions"}
        for version in self.versions:
            with suppress(ImportError):
                module = load(version, self.__name__)
                names |= set(getattr(module, "__all__", ())) | set(vars(module))
        return sorted(names)


def installed_with(name: str, versions: tuple[str, ...]) -> tuple[str, ...]:
    """The versions among `versions` whose face has a module.

    Raises:
        ModuleNotFoundError: none has; the message says which other version does.
    """
    holders = tuple(version for version in versions if has_module(version, name))
    if not holders:
        raise ModuleNotFoundError(f"No module named {name!r} in {_releases(versions)}; {where_it_is(name)}", name=name)
    return holders


def _releases(versions: tuple[str, ...]) -> str:
    return f"{PACKAGE} {' or '.join(RELEASES[version] for version in versions)}"
