"""Normalisation layers: the statistics are those of each row, the gain and offset those of its lane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sltfast.stacking.lanes import Habit
from sltfast.stacking.site import Site


def _affine(site: Site, normalised: Callable[[Tensor], Tensor], channel_dim: int | None) -> Callable[..., Tensor]:
    """y_l = n(x)·w_l + b_l; ``channel_dim`` is where the weight lies in x (None: it covers the last dimensions)."""
    lanes, habit = site.lanes, Habit(site.lanes)

    def shaped(weight: Tensor, ndim: int) -> Tensor:
        """[L, *shape] to something that broadcasts against [L, n, …]."""
        if channel_dim is None:
            return weight.view(len(weight), *(1,) * (ndim - weight.ndim), *weight.shape[1:])
        return weight.view(len(weight), *(1,) * channel_dim, -1, *(1,) * (ndim - channel_dim - 2))

    def forward(input: Tensor) -> Tensor:
        folded = habit.folded(input)
        x = normalised(input)
        x = lanes.split(x) if folded else x.unsqueeze(0)
        weight, bias = site.dense("weight"), site.dense("bias")
        if weight is not None and bias is not None:
            x = torch.addcmul(shaped(bias, x.ndim), x, shaped(weight, x.ndim))
        elif weight is not None:
            x = x * shaped(weight, x.ndim)
        elif bias is not None:
            x = x + shaped(bias, x.ndim)
        return x.flatten(0, 1) if folded else lanes.spread(x)

    return forward


def layer_norm(site: Site) -> Callable[..., Tensor]:
    """``nn.LayerNorm``."""
    module: Any = site.module
    return _affine(site, lambda x: F.layer_norm(x, module.normalized_shape, None, None, module.eps), None)


def rms_norm(site: Site) -> Callable[..., Tensor]:
    """``nn.RMSNorm``."""
    module: Any = site.module
    return _affine(site, lambda x: F.rms_norm(x, module.normalized_shape, None, module.eps), None)


def group_norm(site: Site) -> Callable[..., Tensor]:
    """``nn.GroupNorm``: the weight counts channels, the dimension after the rows."""
    module: Any = site.module
    return _affine(site, lambda x: F.group_norm(x, module.num_groups, None, None, module.eps), 1)


def batch_norm(site: Site) -> Callable[..., Tensor]:
    """``nn.BatchNorm*`` in eval mode: running statistics shared, gain and offset of the lane."""
    module: Any = site.module

    def normalised(x: Tensor) -> Tensor:
        return F.batch_norm(x, module.running_mean, module.running_var, None, None, False, 0.0, module.eps)

    return _affine(site, normalised, 1)


def own_rms_norm(site: Site) -> Callable[..., Tensor]:
    """A model's own RMSNorm class: its own forward on [L, n, …, d] with weights [L, 1, …, d].

    So what it makes of its weight (w, 1 + w, a cast to fp32 before or after) needs no knowledge here.
    """
    lanes, habit, held = site.lanes, Habit(site.lanes), site.module._parameters

    def forward(hidden_states: Tensor) -> Tensor:
        folded = habit.folded(hidden_states)
        x = lanes.split(hidden_states) if folded else hidden_states.unsqueeze(0)
        weight = site.dense("weight")
        assert weight is not None
        guard = held["weight"]
        held["weight"] = weight.view(len(weight), *(1,) * (x.ndim - 2), -1)  # type: ignore[assignment]
        try:
            y: Tensor = site.forward(x)
        finally:
            held["weight"] = guard
        return y.flatten(0, 1) if folded else lanes.spread(y)

    return forward
