"""Losses and gradients of all lanes as one function that torch.compile makes code of."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sltfast.losses import ItemLosses, Objective

OfLane = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, ...]]
"""From one lane's weights and rows to losses [B, T] and, where there are any, their weights."""


class CompiledLanes:
    """vmap(grad_and_value(loss of a lane)), compiled once for every structure and shape of batches.

    Attributes:
        seconds: that first calls took, almost all of it compiling.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._functions: dict[Any, Callable[..., Any]] = {}

    def __call__(self, key: Any, of_lane: OfLane, moved: list[Tensor], rows: list[Tensor], shared: bool) -> Objective:
        """Σ_l L_l, whose backward hands over gradients that are formed already, and all losses [L·B, T].

        Args:
            key: names the structure of ``rows``; ``of_lane`` is a function of it.
            of_lane: of one lane.
            moved: the lanes' weights, [L, …] each.
            rows: [B, …] each, or [L, B, …] where they are not shared.
            shared: which of the two.
        """
        key = (key, shared, *((row.shape, row.dtype) for row in rows))
        is_new = key not in self._functions
        begun = time.perf_counter()
        with warnings.catch_warnings(), torch.no_grad():
            if is_new:
                warnings.simplefilter("ignore")  # the compiler's, about itself
                self._functions[key] = _compiled(of_lane, shared)
            gradients, means, results = self._functions[key]([weight.detach() for weight in moved], rows)
        if is_new:
            self.seconds += time.perf_counter() - begun
        values, *weights = [result.flatten(0, 1) for result in results]
        total = _Formed.apply(means.sum(), gradients, *moved)
        return Objective(total, ItemLosses(values, weights[0] if weights else None))


def _compiled(of_lane: OfLane, shared: bool) -> Callable[..., Any]:
    def mean(moved: list[Tensor], rows: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        results = of_lane(moved, rows)
        return ItemLosses(results[0], results[1] if len(results) > 1 else None).mean(), results

    mapped = torch.func.vmap(
        torch.func.grad_and_value(mean, has_aux=True), in_dims=(0, None if shared else 0), randomness="different"
    )

    def lanes(moved: list[Tensor], rows: list[Tensor]) -> Any:
        gradients, (means, results) = mapped(moved, rows)
        return gradients, means, results

    compiled: Callable[..., Any] = torch.compile(lanes, dynamic=False, fullgraph=True)
    return compiled


class _Formed(torch.autograd.Function):
    """A total whose gradients are known with it."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: list[Tensor], *moved: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dtotal: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * dtotal for gradient in ctx.gradients)
