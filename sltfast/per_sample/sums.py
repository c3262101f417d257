"""Weighted sums of the items' gradients: one backward pass, whatever the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sltfast.losses import LossFn
from sltfast.per_sample.items import Items, prepared
from sltfast.restriction import ParamMasks


def weighted_sum(
    model: nn.Module,
    batch: Any,
    weights: Tensor | None = None,
    loss_fn: LossFn | None = None,
    *,
    param_masks: ParamMasks = None,
) -> dict[str, Tensor]:
    """Σ_i ρ_i·∇ℓ_i over the items of a batch, in one forward and one backward pass.

    With the default ρ_i = s_i = Σ_t a_it / Σ_j Σ_t a_jt, an item's share of the losses that count (1/B where all items
    have as many), this is the gradient of the batch's mean loss: the one SGLD moves by.

    Args:
        model: see ``gradient_norms``.
        batch: see ``gradient_norms``.
        weights: ρ [B], of any sign; None for the shares s.
        loss_fn: see ``gradient_norms``.
        param_masks: see ``gradient_norms``; other coordinates of a named parameter are 0.

    Returns:
        By parameter name, a tensor of its shape and dtype.

    Raises:
        ValueError: weights that are not one finite number an item; otherwise as ``gradient_norms``.
        TypeError: as ``gradient_norms``.
    """
    with prepared(model, loss_fn, param_masks) as items:
        batch, size = items.take(batch)
        if weights is not None:
            numbers = torch.as_tensor(weights)
            if numbers.shape != (size,) or not bool(torch.isfinite(numbers).all()):
                raise ValueError(
                    f"weights must be {size} finite numbers, one an item, got shape {tuple(numbers.shape)}"
                )
            weights = numbers.detach()
        return gradient_sum(items, batch, weights)[0]


def gradient_sum(items: Items, batch: Any, weights: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
    """Σ_i ρ_i·∇ℓ_i by name, and how much each item counts, Σ_t a_it [B]; ``weights`` None: ρ_i = s_i."""
    means, counts = items.losses(batch)
    items.refuse_constant(means)
    total_count = counts.sum()
    rho = counts / torch.where(total_count == 0, 1, total_count) if weights is None else weights.to(means, copy=True)
    found = torch.autograd.grad((rho * means).sum(), list(items.parameters.values()), allow_unused=True)
    total = {}
    for (name, parameter), gradient in zip(items.parameters.items(), found, strict=True):
        value = torch.zeros_like(parameter) if gradient is None else gradient
        mask = items.masks[name]
        total[name] = value.detach() if mask is None else value.detach() * mask.view(parameter.shape)
    return total, counts
