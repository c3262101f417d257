"""Convolutions: one grouped convolution whose groups are the lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sltfast.stacking.lanes import Habit
from sltfast.stacking.site import Site


def convolution(site: Site) -> Callable[..., Tensor]:
    """``nn.Conv1d``, ``nn.Conv2d``, ``nn.Conv3d`` with every padding mode."""
    module: Any = site.module
    lanes, habit = site.lanes, Habit(site.lanes)
    convolve: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(module.kernel_size)]

    def merged(name: str) -> Tensor | None:
        """[L·out, …], the lanes' kernels one after another."""
        weights = site.dense(name)
        return None if weights is None else weights.expand(lanes.count, *weights.shape[1:]).flatten(0, 1)

    def forward(input: Tensor) -> Tensor:
        folded = habit.folded(input)
        x = lanes.split(input) if folded else input.expand(lanes.count, *input.shape)
        x = x.transpose(0, 1).flatten(1, 2)  # [n, L·in, …]
        padding = module.padding
        if module.padding_mode != "zeros":
            x, padding = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode), 0
        kernels, offsets, groups = merged("weight"), merged("bias"), lanes.count * module.groups
        y = convolve(x, kernels, offsets, module.stride, padding, module.dilation, groups)
        y = y.unflatten(1, (lanes.count, -1)).transpose(0, 1)  # [L, n, out, …]
        return y.flatten(0, 1) if folded else lanes.spread(y)

    return forward
