"""The output projection of lanes that own one head each: y_l = base_r + z_l W_l^T, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class HeadOutput(torch.autograd.Function):
    """y [L·B, T, d] with y_l = base_{r(l)} + z_l W_l for lanes l = r·C + c.

    Per lane one product of [B·T, n] and [n, d]: nothing of size L is made but y itself. The base is constant.
    """

    @staticmethod
    def forward(ctx: Any, base: Tensor, z: Tensor, weight: Tensor, lanes: int) -> Tensor:
        """Arguments: base [R, B, T, d], z [B, T, L·n] (lane-major), weight [L or R, n, d] (any strides), L."""
        parts, batch, tokens, width = base.shape
        rows = _by_lane(z, lanes)
        flat = base.reshape(parts, batch * tokens, width)
        out = z.new_empty(lanes, batch * tokens, width)
        for lane in range(lanes):
            own = weight[lane * weight.shape[0] // lanes]
            torch.addmm(flat[lane * parts // lanes], rows[lane], own, out=out[lane])
        ctx.save_for_backward(z, weight)
        ctx.lanes = lanes
        return out.view(lanes * batch, tokens, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of z and of the weight, [L, n, d] in the weight's own order of strides."""
        z, weight = ctx.saved_tensors
        lanes = ctx.lanes
        rows = _by_lane(z, lanes)
        flat = grad.reshape(lanes, -1, grad.shape[-1])
        grad_z = grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_z = torch.empty_like(z, memory_format=torch.contiguous_format)
            per_lane = _by_lane(grad_z, lanes)
            for lane in range(lanes):
                own = weight[lane * weight.shape[0] // lanes]
                torch.mm(flat[lane], own.t(), out=per_lane[lane])
        if ctx.needs_input_grad[2]:
            if weight.stride(-1) == 1:
                grad_weight = torch.bmm(rows.transpose(1, 2), flat)
            else:
                grad_weight = torch.bmm(flat.transpose(1, 2), rows).transpose(1, 2)
        return None, grad_z, grad_weight, None


def _by_lane(z: Tensor, lanes: int) -> Tensor:
    """[B, T, L·n] -> [L, B·T, n], a view where z is contiguous."""
    return z.reshape(-1, lanes, z.shape[-1] // lanes).transpose(0, 1)
