"""One forward and one backward pass, from which every item's gradient is reduced, parameter by parameter."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from sltfast.per_sample.alone import gradients_alone, tolerance
from sltfast.per_sample.captures import Captures
from sltfast.per_sample.convolutions import CONVOLUTIONS
from sltfast.per_sample.elementwise import ELEMENTWISE
from sltfast.per_sample.items import Items
from sltfast.per_sample.layers import RULES
from sltfast.per_sample.uses import Use, Whole

ALL_RULES = {**RULES, **CONVOLUTIONS, **ELEMENTWISE}


class Reduction(Protocol):
    """What is kept of the items' gradients."""

    def add(self, name: str, uses: Sequence[Use], part: slice) -> None:
        """Take in all uses of one parameter by the items of ``part``."""

    def reset(self) -> None:
        """Start again."""


class Passed(NamedTuple):
    """What a pass leaves beside what was reduced.

    Attributes:
        losses: ℓ_i [B], detached.
        weights: Σ_t a_it [B], how much each item counts.
        slow: what was taken one item at a time, and why; empty where nothing was.
    """

    losses: Tensor
    weights: Tensor
    slow: str

    def tell(self) -> None:
        """Warn the caller of a public function of what was slow."""
        if self.slow:
            warnings.warn(f"{self.slow}, {len(self.losses)} more passes", UserWarning, stacklevel=3)


def pass_over(items: Items, batch: Any, size: int, reduction: Reduction) -> Passed:
    """Reduce ∇ℓ_i of all items of ``batch``: from captured factors where the use of a parameter is known, one item at a
    time where it is not.
    """

    def reduce(name: str, uses: Sequence[Use]) -> None:
        reduction.add(name, uses, slice(0, size))

    captures = Captures(items.parameters, size, ALL_RULES, reduce)
    with captures:
        means, weights = items.losses(batch)
    items.refuse_constant(means)
    unknown = captures.unknown(means)
    passed = Passed(means.detach(), weights, "")
    try:
        captures.backward(means.sum())
    except CheckpointError:  # what is computed again in the backward pass is not captured
        return all_alone(items, batch, passed, reduction, "the model recomputes activations (checkpointing)")
    del means, captures
    if unknown:
        _reduce_alone(items, batch, size, reduction, unknown)
        shown = ", ".join(unknown[:4]) + (" …" if len(unknown) > 4 else "")
        passed = passed._replace(
            slow=f"{len(unknown)} parameters are used in ways that per_sample has no rule for ({shown}; param_masks "
            "can leave them out): their gradients are taken one item at a time"
        )
    return passed


def all_alone(items: Items, batch: Any, passed: Passed, reduction: Reduction, reason: str) -> Passed:
    """Reduce all anew, one item at a time."""
    reduction.reset()
    _reduce_alone(items, batch, len(passed.losses), reduction, None)
    return passed._replace(slow=f"{reason}: all gradients are taken one item at a time")


def _reduce_alone(items: Items, batch: Any, size: int, reduction: Reduction, names: Sequence[str] | None) -> None:
    for index in range(size):
        _, gradients = gradients_alone(items, batch, index, names)
        for name, gradient in gradients.items():
            reduction.add(name, [Whole(_float(gradient).reshape(1, -1))], slice(index, index + 1))


def agrees_alone(
    items: Items, batch: Any, passed: Passed, index: int, value: Callable[[dict[str, Tensor]], tuple[float, float]]
) -> Callable[[float], bool]:
    """Pass item ``index`` alone; returns whether a value reduced for it is what its own gradient gives.

    Args:
        items: the model made ready.
        batch: all items.
        passed: what ``pass_over`` left.
        index: the item.
        value: of the item's gradients, what was reduced, and the scale that its rounding errors are held against.

    Raises:
        ValueError: the item's loss depends on the items beside it, so no item has a gradient of its own.
    """
    loss, gradients = gradients_alone(items, batch, index)
    limit = tolerance(items)
    before = float(passed.losses[index])
    if not math.isclose(float(loss), before, rel_tol=limit, abs_tol=limit):
        raise ValueError(
            f"the loss of item {index} is {before:.6g} in its batch and {float(loss):.6g} alone: the items of a batch "
            "are mixed (batch statistics, a contrastive loss), so they have no gradients of their own"
        )
    expected, scale = value({name: _float(gradient).flatten() for name, gradient in gradients.items()})
    return lambda got: abs(got - expected) <= limit * scale


def _float(gradient: Tensor) -> Tensor:
    return gradient if gradient.dtype == torch.float64 else gradient.float()
