"""Items one at a time: the gradient of a batch of one, by autograd alone. Slow, and right by definition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.per_sample.items import Items, item_of

PIECE = 1 << 14
"""Numbers of a scalar product that float32 sums by itself."""


def gradients_alone(
    items: Items, batch: Any, index: int, names: Iterable[str] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """ℓ_i (detached) and ∇ℓ_i by parameter (zero where it has no part), of one item passed through the model alone."""
    chosen: Mapping[str, nn.Parameter] = items.parameters
    if names is not None:
        chosen = {name: items.parameters[name] for name in names}
    means, _ = items.losses(item_of(batch, index))
    loss = means[0]
    if not loss.requires_grad:
        return loss, {name: torch.zeros_like(parameter) for name, parameter in chosen.items()}
    found = torch.autograd.grad(loss, list(chosen.values()), allow_unused=True)
    return loss.detach(), {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(chosen.items(), found, strict=True)
    }


def tolerance(items: Items) -> float:
    """Relative error that rounding alone may bring: half the digits of the coarsest arithmetic in play."""
    dtypes = {parameter.dtype for parameter in items.parameters.values()}
    kind = items.device.type
    if torch.is_autocast_enabled(kind):
        dtypes.add(torch.get_autocast_dtype(kind))
    coarsest = max(torch.finfo(dtype).eps for dtype in dtypes)
    if torch.get_float32_matmul_precision() != "highest" and torch.float32 in dtypes:
        coarsest = max(coarsest, torch.finfo(torch.float16).eps)  # TF32 keeps 10 bits
    return coarsest**0.5


def product(a: Tensor, b: Tensor) -> float:
    """⟨a, b⟩ of flat tensors: pieces in their own precision, summed in float64."""
    pieces = zip(a.split(PIECE), b.split(PIECE), strict=True)
    return sum(torch.stack([x @ y for x, y in pieces]).tolist()) if len(a) else 0.0
