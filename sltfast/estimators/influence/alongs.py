"""Every item's gradient along several directions, from one forward and one backward pass of its batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sltfast.per_sample.alone import product
from sltfast.per_sample.items import Items
from sltfast.per_sample.passes import Passed, agrees_alone, all_alone, pass_over
from sltfast.per_sample.uses import Use


class Alongs:
    """Running ⟨g_i, v_k⟩ of a batch, float64 [K, B], parameter by parameter; no g_i is stored.

    Args:
        items: the model made ready.
        size: B.
        directions: v_k by parameter name, zero outside the masks.
    """

    def __init__(self, items: Items, size: int, directions: Sequence[Mapping[str, Tensor]]) -> None:
        self.values = torch.zeros(len(directions), size, dtype=torch.float64, device=items.device)
        self.directions = [
            {name: v.reshape(-1).to(torch.promote_types(v.dtype, torch.float32)) for name, v in direction.items()}
            for direction in directions
        ]

    def add(self, name: str, uses: Sequence[Use], part: slice) -> None:
        """Add one parameter's share."""
        for row, direction in zip(self.values, self.directions, strict=True):
            for use in uses:
                row[part] += use.along(direction[name])

    def reset(self) -> None:
        """Start again."""
        self.values.zero_()

    def of(self, gradients: Mapping[str, Tensor]) -> tuple[float, float]:
        """⟨g, v_0⟩ and |g|·|v_0| of one item's flat gradients."""
        first = self.directions[0]
        along = sum(product(gradients[name], v) for name, v in first.items())
        sizes = [sum(product(v, v) for v in tensors.values()) for tensors in (gradients, first)]
        return along, math.sqrt(sizes[0] * sizes[1])


def alongs(
    items: Items, batch: Any, directions: Sequence[Mapping[str, Tensor]], *, check: bool
) -> tuple[Tensor, Passed]:
    """⟨g_i, v_k⟩ [K, B]; with ``check``, one item is passed alone and must agree."""
    batch, size = items.take(batch)
    result = Alongs(items, size, directions)
    passed = pass_over(items, batch, size, result)
    if check and size > 1:
        index = int(result.values[0].abs().argmax())
        if not agrees_alone(items, batch, passed, index, result.of)(float(result.values[0, index])):
            passed = all_alone(
                items, batch, passed, result, "the model does not keep items in the first dimension of its activations"
            )
    return result.values, passed
