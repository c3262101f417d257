"""Embeddings with a padding row under vmap: torch's batching rule forgets that the row gets no gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def has_padding_rows(module: nn.Module) -> bool:
    """Whether an embedding in a module has one."""
    return any(isinstance(below, nn.Embedding) and below.padding_idx is not None for below in module.modules())


class PaddingRows(TorchFunctionMode):
    """While it is on, what ``F.embedding`` reads at ``padding_idx`` is a constant."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace that one function."""
        return (_embedding if func is F.embedding else func)(*args, **(kwargs or {}))


def keeping_padding_rows(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward under ``PaddingRows``."""

    @functools.wraps(forward)
    def kept(*args: Any, **kwargs: Any) -> Any:
        with PaddingRows():
            return forward(*args, **kwargs)

    return kept


def _embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, *rest: Any, **named: Any) -> Tensor:
    rows = F.embedding(input, weight, None, *rest, **named)
    if padding_idx is None:
        return rows
    return torch.where((input == padding_idx % len(weight)).unsqueeze(-1), rows.detach(), rows)
