"""Digests of what decides a run and has no natural equality: functions, closures, modules, tensors."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.results.content import content

LIBRARIES = {"torch", "numpy", "transformers", "transformer_lens", "sltfast", *sys.stdlib_module_names} - {"__main__"}


class Digest:
    """A running digest over nested values; two equal digests mean equal behaviour, as far as values can tell.

    Functions count by their code, constants, defaults, closures and the globals they use; objects by their class's
    functions and by what pickling would take of them; modules by type, attributes, parameters and buffers. It is the
    same in every process: no address, no order of a set, no name of a file and no docstring enters it.

    Attributes:
        unread: types of what can be neither read nor taken apart (locks, open files): of these only the type counts.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # keeps ids in _seen from being used again
        self.unread: list[str] = []

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()

    def add(self, value: Any) -> Digest:
        """Take in a value; returns self."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
            self._text(f"{type(value).__name__}:{value!r}")
            return self
        if id(value) in self._seen:
            return self
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, Tensor):
            self._text(f"{tuple(value.shape)}{value.dtype}")
            self._hash.update(content(value))
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._text(f"{value.dtype}{value.shape}")
            self._hash.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, types.ModuleType | types.BuiltinFunctionType):
            self._text(getattr(value, "__qualname__", value.__name__))
        elif isinstance(value, types.CodeType):
            self._code(value, None)
        elif isinstance(value, types.MethodType):
            self.add(value.__func__).add(value.__self__)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, functools.partial):
            self.add(value.func).add(value.args).add(value.keywords)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                self.add(key).add(inner)
        elif isinstance(value, Set):
            for inner in sorted(Digest().add(inner).hexdigest() for inner in value):
                self._text(inner)
        elif isinstance(value, tuple | list):
            self._text(type(value).__name__)
            for inner in value:
                self.add(inner)
        else:
            self._object(value)
        return self

    def _text(self, text: str) -> None:
        self._hash.update(text.encode() + b"\0")

    def _module(self, module: nn.Module) -> None:
        for name, inner in module.named_modules():
            self._text(f"{name}:{_named(type(inner))}")
            for key, value in sorted(vars(inner).items()):
                if isinstance(value, bool | int | float | str | tuple) and key != "training":
                    self._text(f"{key}={value!r}")
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            self._text(name)
            self.add(tensor)

    def _class(self, kind: type) -> None:
        """A class by its name, and one that is no library's by its functions too."""
        self._text(kind.__qualname__)
        for base in kind.__mro__ if not _of_a_library(kind) else ():
            if _of_a_library(base):
                continue
            for name, member in sorted(vars(base).items()):
                function = getattr(member, "__func__", member)
                if isinstance(function, types.FunctionType):
                    self._text(name)
                    self.add(function)

    def _code(self, code: types.CodeType, documentation: str | None) -> None:
        self._hash.update(code.co_code)
        kept = [constant for constant in code.co_consts if documentation is None or constant != documentation]
        self.add(code.co_names).add(tuple(kept))

    def _function(self, function: types.FunctionType) -> None:
        self._code(function.__code__, function.__doc__)
        self.add(function.__defaults__).add(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:  # a name that is not bound yet
                self._text("an empty cell")
        if not _of_a_library(function):
            for name in dict.fromkeys(_names(function.__code__)):
                if name in function.__globals__:
                    self.add(function.__globals__[name])

    def _object(self, value: Any) -> None:
        """An object by its class and the parts that pickling would put it together from."""
        kind = type(value)
        self._text(_named(kind))
        if not _of_a_library(kind):
            self._class(kind)
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # whatever an object's own pickling raises
            parts = getattr(value, "__dict__", None)
            if parts is None:
                self.unread.append(_named(kind))
                return
        if isinstance(parts, str | Mapping):
            self.add(parts)
            return
        for part in parts:
            self.add(list(part) if isinstance(part, Iterator) else part)


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that a function uses, those of the functions within it too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _of_a_library(thing: Any) -> bool:
    module = getattr(thing, "__module__", None)
    return module is not None and module.partition(".")[0] in LIBRARIES
