"""Modules that keep what they gave last, by the names of devinterp 1.3.2."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn


def prepend_dict(d: Mapping[str, Any], prefix: str, delimiter: str = ".") -> dict[str, Any]:
    """The mapping with "prefix.key" for "key", and "prefix" for ""."""
    return {f"{prefix}{delimiter}{key}" if key else prefix: value for key, value in d.items()}


def hook(module: nn.Module, *paths: str) -> Any:
    """Wrap a module so that ``run_with_cache`` also gives what its parts gave.

    Args:
        module: any; its own parts are wrapped in place.
        paths: parts to watch, "layers.0.norm"; "*" stands for every child of a list. None: every part.

    Returns:
        A ``Hooked``, ``HookedList`` or ``HookedSequential``.
    """
    if not paths:
        return _wrapped_whole(module)
    wrapped = _wrapped(module)
    for path in paths:
        _watch(wrapped, path.split("."))
    return wrapped


def _wrapped(module: nn.Module) -> Any:
    """The module itself, wrapped."""
    if isinstance(module, Hooked | HookedList | HookedSequential):
        return module
    if type(module) is nn.ModuleList:
        return HookedList(module)
    if type(module) is nn.Sequential:
        return HookedSequential(*module)
    return Hooked(module)


def _wrapped_whole(module: nn.Module) -> Any:
    """The module and all below it, wrapped."""
    wrapped = _wrapped(module)
    for name, child in list(wrapped.named_children()):
        setattr(wrapped, name, _wrapped_whole(child))
    return wrapped


def _watch(wrapped: Any, path: list[str]) -> None:
    """Wrap the children along a path, the last of which is watched."""
    head, *rest = path
    children = dict(wrapped.named_children())
    names = list(children) if head == "*" else [head]
    for name in names:
        if name not in children:
            raise AttributeError(f"no part {name!r} to watch among {sorted(children)}")
        child = _wrapped(children[name])
        setattr(wrapped, name, child)
        if rest:
            _watch(child, rest)


class _Caching:
    """Collects what wrapped children gave."""

    def collect_cache(self) -> dict[str, Any]:
        """What the parts gave last, by path."""
        cache: dict[str, Any] = {}
        for name, child in self.named_children():  # type: ignore[attr-defined]
            if isinstance(child, Hooked | HookedList | HookedSequential):
                cache.update(prepend_dict(child.collect_cache(), name))
        return cache

    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """(What the module gives, what its parts gave by path)."""
        output = self(*args, **kwargs)  # type: ignore[operator]
        cache = self.collect_cache()
        cache.pop("", None)
        return output, cache


class HookedList(_Caching, nn.ModuleList):
    """A list of modules of which some are watched."""


class HookedSequential(_Caching, nn.Sequential):
    """A chain of modules of which some are watched."""


class Hooked(_Caching, nn.Module):
    """A module that keeps its output.

    Attributes:
        output: of the last forward; None before the first.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._forward = type(module).forward
        self.output: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives, its own forward seeing the wrapped children."""
        self.output = self._forward(self, *args, **kwargs)
        return self.output

    def collect_cache(self) -> dict[str, Any]:
        """The output under "", and what the parts gave by path."""
        return {"": self.output, **super().collect_cache()}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_module"), name)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own."""
        return self._module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Into the module."""
        return self._module.load_state_dict(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The module's children, wrapped where they are watched."""
        for name, child in self._module.named_children():
            yield name, self._modules.get(name) or child

    def __repr__(self) -> str:
        children = [f"{name}: {child!r}" for name, child in self.named_children()]
        if not children:
            return f"Hooked({self._module!r})"
        inner = textwrap.indent(",\n".join(children), "  ")
        return f"Hooked({type(self._module).__name__}(\n{inner}\n))"
