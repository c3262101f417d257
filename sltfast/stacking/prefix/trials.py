"""Shared forwards held against the plain one, before any chain moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.data import leaves, map_leaves
from sltfast.isolation import reseed
from sltfast.stacking.prefix.growing import tiled
from sltfast.stacking.prefix.hooks import Hooks, On
from sltfast.stacking.prefix.memo import Key

Forward = Callable[[nn.Module, Any], Any]
LANES = 2
AGREEMENT = 64  # roundings of the largest value: the same sums in another order, over the depth of a model
NOISE = 8  # times what the plain forward itself changes by when the batch is given twice


class Trial:
    """One batch in two lanes that are alike, run by the plain model.

    Args:
        model, forward: what is run.
        batch: a few rows.
        once: what the plain forward returned for them.
        device: of the model.
    """

    def __init__(self, model: nn.Module, forward: Forward, batch: Any, once: Any, device: torch.device) -> None:
        self.model, self.forward, self.device = model, forward, device
        self.batch = map_leaves(lambda rows: tiled(rows, LANES), batch)
        self.plain = self._returned()
        dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
        self._eps = max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
        self._noise = [0.0] * len(self.plain)
        for i, (one, two) in enumerate(zip(leaves(once), self.plain, strict=False)):
            if one.ndim and two.shape == (LANES * len(one), *one.shape[1:]):
                self._noise[i] = _apart(tiled(one.detach(), LANES), two)

    def disagreement(self, hooks: Hooks, key: Key | None) -> str | None:
        """Why the shared forward is not the plain one, or None."""
        try:
            with On(hooks, LANES, key):
                shared = self._returned()
        except Exception as error:  # whatever a model raises when lanes come too late
            return f"{type(error).__name__}: {error}".splitlines()[0]
        if not self.plain or [tensor.shape for tensor in shared] != [tensor.shape for tensor in self.plain]:
            shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (shared, self.plain)]
            return f"what is returned has shapes {shapes[0]}, not {shapes[1]}"
        for one, other, noise in zip(shared, self.plain, self._noise, strict=True):
            if not one.is_floating_point():
                if not torch.equal(one, other):
                    return "whole numbers that are returned differ"
                continue
            if not torch.equal(one.isnan(), other.isnan()):
                return "what is returned depends on modules that were skipped"
            if one.numel() == 0:
                continue
            eps = max(self._eps, torch.finfo(one.dtype).eps)
            bound = AGREEMENT * eps * float(other.double().nan_to_num().abs().max()) + NOISE * noise
            if (apart := _apart(one, other)) > bound:
                return f"what is returned differs by {apart:.3g}, more than rounding ({bound:.3g})"
        return None

    def _returned(self) -> list[Tensor]:
        reseed(0, self.device)
        return [tensor.detach() for tensor in leaves(self.forward(self.model, self.batch))]


def _apart(one: Tensor, other: Tensor) -> float:
    if one.numel() == 0 or not one.is_floating_point():
        return 0.0
    return float((one.double().nan_to_num() - other.double().nan_to_num()).abs().max())
