"""Digests of what decides a run and has no natural equality: functions, closures, modules, tensors."""

from __future__ import annotations

import functools
import hashlib
import pickle
import types
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SAMPLED_VALUES = 4096


class Digest:
    """A running digest over nested values; two equal digests mean equal behaviour, as far as values can tell.

    Functions count by their code, constants, defaults, closures and the globals they use; modules by type, attributes,
    parameters and buffers. What can be neither read nor pickled makes the digest unique, so that nothing is ever
    mistaken for it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # keeps ids in _seen from being used again

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
            self._tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._text(f"{value.dtype}{value.shape}")
            self._hash.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, types.ModuleType | types.BuiltinFunctionType | type):
            self._text(getattr(value, "__qualname__", value.__name__))
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, types.MethodType):
            self.add(value.__func__).add(value.__self__)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, functools.partial):
            self.add(value.func).add(value.args).add(value.keywords)
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                self.add(key).add(inner)
        elif isinstance(value, tuple | list):
            self._text(type(value).__name__)
            for inner in value:
                self.add(inner)
        else:
            self._object(value)
        return self

    def _text(self, text: str) -> None:
        self._hash.update(text.encode() + b"\0")

    def _tensor(self, value: Tensor) -> None:
        """Shape, precision, an XOR over all bits and a sample of the values in order."""
        flat = value.detach().reshape(-1)
        self._text(f"{tuple(value.shape)}{value.dtype}")
        if flat.numel() and not flat.is_meta:
            if not flat.is_complex() and (flat.element_size() > 1 or not flat.is_floating_point()):
                self._text(str(int(torch.hash_tensor(flat).item())))
            spread = flat[:: max(1, flat.numel() // SAMPLED_VALUES)].cpu().contiguous()
            self._hash.update(spread.view(torch.uint8).numpy().tobytes())

    def _module(self, module: nn.Module) -> None:
        for name, inner in module.named_modules():
            self._text(f"{name}:{type(inner).__module__}.{type(inner).__qualname__}")
            for key, value in sorted(vars(inner).items()):
                if isinstance(value, bool | int | float | str | tuple) and key != "training":
                    self._text(f"{key}={value!r}")
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            self._text(name)
            self.add(tensor)

    def _code(self, code: types.CodeType) -> None:
        self._hash.update(code.co_code)
        self.add(code.co_names).add(code.co_consts)

    def _function(self, function: types.FunctionType) -> None:
        self.add(function.__code__).add(function.__defaults__).add(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            self.add(cell.cell_contents)
        for name in function.__code__.co_names:
            if name in function.__globals__ and not _of_a_library(function):
                self.add(function.__globals__[name])

    def _object(self, value: Any) -> None:
        self._text(f"{type(value).__module__}.{type(value).__qualname__}")
        try:
            self._hash.update(pickle.dumps(value))
        except Exception:  # whatever an object's own pickling raises
            state = getattr(value, "__dict__", None)
            if state is None:
                self._text(uuid.uuid4().hex)
            else:
                self.add(type(value).__dict__.get("__call__")).add(state)


def _of_a_library(function: types.FunctionType) -> bool:
    return function.__module__ is not None and function.__module__.partition(".")[0] in (
        "torch",
        "numpy",
        "transformers",
    )
