"""What is called at every draw of a run, by the names of devinterp 1.3.2."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch


class NotOverridden(NotImplementedError):
    """A callback lacks a method that it must have."""


class SamplerCallback:
    """Base class of callbacks: ``__call__`` at every draw, ``finalize`` at the end of the run.

    ``__call__`` receives by name what the sampling loop holds: chain, draw, loss (the mini-batch mean loss at w before
    the step), model (after the step), optimizer, data, results, i (the mini-batch counted from 0), and the settings.

    Args:
        device: where the callback keeps its numbers.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device

    def share_memory_(self) -> SamplerCallback:
        """Move the tensors among the public attributes to shared memory, so that processes see each other's."""
        if str(self.device) == "mps":
            warnings.warn("tensors on an mps device cannot be shared between processes", UserWarning, stacklevel=2)
            return self
        for name, value in list(vars(self).items()):
            if not name.startswith("_") and hasattr(value, "share_memory_"):
                value.share_memory_()
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Read a draw.

        Raises:
            NotOverridden: (a NotImplementedError) the class does not say how.
        """
        raise NotOverridden(f"{type(self).__name__} must define __call__(self, chain, draw, **kwargs)")

    def finalize(self, *args: Any, **kwargs: Any) -> None:
        """Called once, after the last chain."""

    def get_results(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The callback's numbers by name.

        Raises:
            NotOverridden: (a NotImplementedError) the class does not say which.
        """
        raise NotOverridden(f"{type(self).__name__} has no get_results: read its attributes, or define it")


def results_of(callback: Any) -> dict[str, Any]:
    """A callback's results, {} where it defines none."""
    if getattr(type(callback), "get_results", None) in (None, SamplerCallback.get_results):
        return {}
    return dict(callback.get_results())


def validate_callbacks(callbacks: Sequence[Callable[..., Any]]) -> bool:
    """Whether derivative callbacks (those with a ``base_callback``) come after what they read.

    Args:
        callbacks: in the order they are called.

    Returns:
        True.

    Raises:
        ValueError: a base callback stands behind its derivative, or is not there.
    """
    for index, callback in enumerate(callbacks):
        if not isinstance(callback, SamplerCallback) or not hasattr(callback, "base_callback"):
            continue
        base = callback.base_callback
        places = [place for place, other in enumerate(callbacks) if other is base]
        if not places:
            raise ValueError(
                f"Base callback {base} of derivative callback {callback} was not passed: add it before it."
            )
        if max(places) > index:
            raise ValueError(f"Derivative callback {callback} must be called after base callback {base}: swap them.")
    return True
