"""Norms of every item's gradient, and its products with one direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.losses import LossFn
from sltfast.per_sample.alone import product
from sltfast.per_sample.items import Items, prepared
from sltfast.per_sample.passes import Passed, agrees_alone, all_alone, pass_over
from sltfast.per_sample.uses import Use, squared_norms
from sltfast.restriction import ParamMasks


class Products:
    """Running |g_i|² and ⟨g_i, v⟩ of a batch, float64 [B], parameter by parameter.

    Args:
        items: the model made ready.
        size: B.
        norms: whether |g_i|² is wanted.
        direction: v by name, flat, zero outside the masks; None: ⟨g_i, v⟩ is not wanted.
    """

    def __init__(self, items: Items, size: int, *, norms: bool, direction: Mapping[str, Tensor] | None) -> None:
        self.items, self.size, self.norms, self.direction = items, size, norms, direction
        self.squared = torch.zeros(size, dtype=torch.float64, device=items.device)
        self.along = torch.zeros_like(self.squared)

    def add(self, name: str, uses: Sequence[Use], part: slice) -> None:
        """Add one parameter's share."""
        if self.norms:
            shape = self.items.parameters[name].shape
            self.squared[part] += squared_norms(uses, shape, self.items.masks[name])
        if self.direction is not None and name in self.direction:
            v = self.direction[name]
            for use in uses:
                self.along[part] += use.along(v)

    def reset(self) -> None:
        """Start again."""
        self.squared.zero_()
        self.along.zero_()

    def of(self, gradients: Mapping[str, Tensor]) -> tuple[float, float]:
        """(|g|², |g|²) or, where norms are not wanted, (⟨g, v⟩, |g|·|v|) of one item's flat gradients."""
        masks = self.items.masks
        counted = [g if masks[name] is None else g[masks[name]] for name, g in gradients.items()]
        norm = sum(product(g, g) for g in counted)
        if self.norms or self.direction is None:
            return norm, norm
        along = sum(product(gradients[name], v) for name, v in self.direction.items())
        return along, math.sqrt(norm * sum(product(v, v) for v in self.direction.values()))


def products(
    items: Items,
    batch: Any,
    *,
    norms: bool,
    direction: Mapping[str, Tensor] | None,
    check: bool,
) -> tuple[Products, Passed]:
    """|g_i|² and ⟨g_i, v⟩ of a batch; with ``check``, one item is passed alone and must agree."""
    batch, size = items.take(batch)
    result = Products(items, size, norms=norms, direction=direction)
    passed = pass_over(items, batch, size, result)
    if check and size > 1:
        values = result.squared if norms else result.along
        index = int(values.abs().argmax())
        if not agrees_alone(items, batch, passed, index, result.of)(float(values[index])):
            reason = (
                "the model does not keep items in the first dimension of its activations (sequence first, or tokens "
                "routed across items)"
            )
            passed = all_alone(items, batch, passed, result, reason)
    return result, passed


def gradient_norms(
    model: nn.Module,
    batch: Any,
    loss_fn: LossFn | None = None,
    *,
    param_masks: ParamMasks = None,
    check: bool = True,
) -> Tensor:
    """The norm |g_i| of every item's gradient g_i = ∇ℓ_i, from one forward and one backward pass.

    ℓ_i is the mean of the item's own losses, Σ_t a_it·ℓ_it / Σ_t a_it (a: the weights of ``loss_fn``, or which tokens
    count), so g_i is the gradient SGLD would use for a batch of that one item. No g_i is stored: for a layer with
    inputs X and output gradients D, |Σ_t D_tᵀ X_t|² = Σ_{t,t'} ⟨D_t, D_t'⟩·⟨X_t, X_t'⟩, or the gradient is formed and
    reduced a few items at a time, whichever is less work; tied and reused weights include their cross terms.

    The caller's model, its mode, gradients and every random state are left alone; the loss is that of eval mode.

    Args:
        model: see ``sltfast.sample``; Hugging Face causal LMs and TransformerLens models need no ``loss_fn``.
        batch: B items: a tensor, or a tuple or dict of tensors [B, …].
        loss_fn: ``loss_fn(model, batch) -> losses`` of shape [B] or [B, T], or a pair (losses, weights).
        param_masks: which coordinates count, as in ``sltfast.sample``.
        check: also pass one item alone and compare, a 1/B of the work: this is what notices a model that mixes its
            items, or does not keep them in the first dimension.

    Returns:
        |g_i| [B], in nats per unit of weight; float64 where the losses are, else float32.

    Raises:
        ValueError: a batch, mask or loss that is none; items that are mixed (batch norm by batch statistics).
        TypeError: as ``sltfast.sample`` for the model, ``loss_fn`` and ``param_masks``.

    Warns:
        UserWarning: parameters used in unknown ways; they are taken one item at a time.

    Source: Goodfellow 1510.01799; Li et al. 2110.05679 (ghost norms).
    """
    with prepared(model, loss_fn, param_masks) as items:
        result, passed = products(items, batch, norms=True, direction=None, check=check)
    passed.tell()
    # rounding may leave a cross term's sum of an item without gradient just below 0
    return result.squared.clamp(min=0).sqrt().to(passed.losses.dtype)


def inner_products(
    model: nn.Module,
    batch: Any,
    direction: Mapping[str, Tensor],
    loss_fn: LossFn | None = None,
    *,
    check: bool = True,
) -> Tensor:
    """⟨g_i, v⟩ for every item's gradient g_i = ∇ℓ_i, from one forward and one backward pass.

    To first order −η·⟨g_i, v⟩ is what a step −η·v does to the item's loss.

    Args:
        model: see ``gradient_norms``.
        batch: see ``gradient_norms``.
        direction: v: ``{name: tensor of the parameter's shape}``; parameters it does not name have none of it.
        loss_fn: see ``gradient_norms``.
        check: see ``gradient_norms``.

    Returns:
        ⟨g_i, v⟩ [B]; float64 where the losses are, else float32.

    Raises:
        ValueError: an unknown name or wrong shape in ``direction``; otherwise as ``gradient_norms``.
        TypeError: as ``gradient_norms``.

    Warns:
        UserWarning: see ``gradient_norms``.
    """
    if not isinstance(direction, Mapping) or not direction:
        raise ValueError(f"direction must map parameter names to tensors, got {type(direction).__name__} of nothing")
    with prepared(model, loss_fn, list(direction)) as items:
        flat = flat_direction(items, direction)
        result, passed = products(items, batch, norms=False, direction=flat, check=check)
    passed.tell()
    return result.along.to(passed.losses.dtype)


def flat_direction(items: Items, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The direction under the parameters' first names, flat, on their device and in the precision of their gradients.

    Raises:
        ValueError: a shape that is not the parameter's, or one tied parameter under two names.
    """
    flat: dict[str, Tensor] = {}
    for name, value in direction.items():
        first = items.first_names[name]
        parameter = items.parameters[first]
        if not isinstance(value, Tensor) or value.shape != parameter.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"direction[{name!r}] must have the parameter's shape {tuple(parameter.shape)}, got {got}")
        if first in flat:
            raise ValueError(f"direction names {first!r} twice (as {name!r}, to which it is tied): give it once")
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        flat[first] = value.detach().to(items.device, dtype).reshape(-1)
    return flat
