"""The output projection of lanes that own some heads each: y_l = base_r + z_l W_l, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FEW_COLUMNS = 16  # a product with fewer is several times faster as its transpose, copied back


class HeadOutput(torch.autograd.Function):
    """y [L·B, T, d] with y_l = base_{r(l)} + z_l W_l for lanes l = r·C + c; W_l moves in its first rows alone.

    Per lane one product of [B·T, n] and [n, d], onto a copy of the base: nothing of size L is made but y itself. The
    base is constant.
    """

    @staticmethod
    def forward(ctx: Any, base: Tensor, z: Tensor, moved: Tensor | None, rest: Tensor | None, lanes: int) -> Tensor:
        """Arguments: base [R, B, T, d], z [B, T, L·n] (lane-major), moved [L, k, d] and rest [R, n - k, d], L."""
        parts, batch, tokens, width = base.shape
        weight = _joined(moved, rest, lanes)
        rows = _by_lane(z, lanes)
        flat = base.reshape(parts, batch * tokens, width)
        out = flat.repeat_interleave(lanes // parts, dim=0).baddbmm_(rows, weight)
        ctx.save_for_backward(z, moved, rest)
        ctx.lanes = lanes
        return out.view(lanes * batch, tokens, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of z and of what moves, [L, k, d] in its own order of strides."""
        z, moved, rest = ctx.saved_tensors
        lanes = ctx.lanes
        rows = _by_lane(z, lanes)
        flat = grad.reshape(lanes, -1, grad.shape[-1])
        grad_z = grad_moved = None
        if ctx.needs_input_grad[1]:
            weight = _joined(moved, rest, lanes)
            grad_z = torch.empty_like(z, memory_format=torch.contiguous_format)
            _into(_by_lane(grad_z, lanes), flat, weight.transpose(1, 2))
        if ctx.needs_input_grad[2]:
            own = rows[..., : moved.shape[1]]
            grad_moved = torch.empty_like(moved)
            if moved.stride(-1) == 1:
                _into(grad_moved, own.transpose(1, 2), flat)
            else:
                _into(grad_moved.transpose(1, 2), flat.transpose(1, 2), own)
        return None, grad_z, grad_moved, None, None


def _by_lane(z: Tensor, lanes: int) -> Tensor:
    """[B, T, L·n] -> [L, B·T, n], a view where z is contiguous."""
    return z.reshape(-1, lanes, z.shape[-1] // lanes).transpose(0, 1)


def _into(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Out <- left · right, lane by lane."""
    if right.shape[-1] > FEW_COLUMNS:
        torch.bmm(left, right, out=out)
    else:
        out.copy_(torch.bmm(right.transpose(1, 2), left.transpose(1, 2)).transpose(1, 2))


def _joined(moved: Tensor | None, rest: Tensor | None, lanes: int) -> Tensor:
    """[L, n, d]: what moves and what all chains of a restriction share."""
    if rest is None:
        assert moved is not None
        return moved
    chains = lanes // len(rest)
    shared = rest[:, None].expand(-1, chains, -1, -1).flatten(0, 1)
    return shared if moved is None else torch.cat([moved, shared], dim=1)
