"""Whether an engine computes what one chain alone computes: tried before the first step, at weights that differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sltfast.arena import Leaf
from sltfast.clone import structural_clone
from sltfast.losses import ItemLoss
from sltfast.sampler.engines.engine import Engine, LaneBatch

PERTURBATION = 0.02  # of the mean absolute weight: equal weights would hide lanes that are mixed up
# In units of the precision's rounding: sums of a model's depth and width in another order. A mix-up moves the losses by
# the perturbation's share of them, a hundred times as much in float32.
LOSS_ROUNDINGS, GRADIENT_ROUNDINGS = 1e3, 1e4
LOW_ROUNDINGS = 32.0


@torch.no_grad()
def _perturb(engine: Engine) -> None:
    generator = torch.Generator().manual_seed(0)
    for block in engine.arena.blocks:
        for index in range(len(block.leaves)):
            rows = block.rows(index)
            scale = PERTURBATION * (rows.abs().mean() + 1e-3)
            noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
            for share in block.shares:
                mask = share.masks[index]
                kept = noise[share.lanes].to(rows.device)
                rows[share.lanes] += scale * (kept if mask.numel() == 0 else kept * mask)
        block.refresh_low()


def disagreement(engine: Engine, clone: nn.Module, loss: ItemLoss, data: Any, device: torch.device) -> str | None:
    """How losses or gradients of an engine differ from one chain's at the same weights; None where they agree.

    The first and the last lane are compared. The arena is at w* again afterwards.

    Args:
        engine: to be tried.
        clone: the model at w*, untouched.
        loss: the run's.
        data: a batch that all lanes share.
        device: where.
    """
    arena = engine.arena
    with torch.autocast(device.type, enabled=False):
        try:
            _perturb(engine)
            total, losses = engine.objective(LaneBatch(data, True), 1.0)
            arena.backward(total)
            gradients = [g for block in arena.take_gradients() for g in block]
            for lane in sorted({0, arena.lanes - 1}):
                reason = _differs(engine, lane, losses.values, gradients, structural_clone(clone, device), loss, data)
                if reason is not None:
                    return reason
        finally:
            arena.take_gradients()
            arena.reset()
    return None


def _differs(
    engine: Engine,
    lane: int,
    values: torch.Tensor,
    gradients: list[torch.Tensor | None],
    alone: nn.Module,
    loss: ItemLoss,
    data: Any,
) -> str | None:
    arena, parameters = engine.arena, dict(alone.named_parameters())
    leaves: list[Leaf] = arena.leaves
    restriction = lane // (arena.lanes // arena.num_restrictions)
    with torch.no_grad():
        for name in {leaf.segments[restriction].name for leaf in leaves}:
            parameters[name].data = parameters[name].detach().clone()
        for leaf in leaves:
            segment = leaf.segments[restriction]
            block = segment.of(parameters[segment.name].data)
            block.copy_(leaf.tensor[lane].reshape(block.shape))
    moved = {leaf.segments[restriction].name: parameters[leaf.segments[restriction].name] for leaf in leaves}
    for parameter in moved.values():
        parameter.requires_grad_()
    total, expected = loss.objective(alone, data, 1, 1.0)
    total.backward(inputs=list(moved.values()))
    rounding = max(float(torch.finfo(parameter.dtype).eps) for parameter in moved.values())
    of_loss, of_gradient = (LOSS_ROUNDINGS, GRADIENT_ROUNDINGS) if rounding < 1e-6 else (LOW_ROUNDINGS, LOW_ROUNDINGS)
    mine = values.unflatten(0, (arena.lanes, -1))[lane].double()
    theirs = expected.values.double()
    if mine.shape != theirs.shape:
        return f"it gives losses of shape {list(mine.shape)} where one chain gives {list(theirs.shape)}"
    apart = float((mine - theirs).nan_to_num(0.0).abs().max())
    allowed = of_loss * rounding * (1.0 + float(theirs.nan_to_num(0.0).abs().max()))
    if apart > allowed or not torch.equal(mine.isnan(), theirs.isnan()):
        return f"its losses differ from one chain's by {apart:.3g} (rounding explains {allowed:.3g})"
    square = difference = 0.0
    for leaf, gradient in zip(leaves, gradients, strict=True):
        segment = leaf.segments[restriction]
        whole = moved[segment.name].grad
        expected_gradient = None if whole is None else segment.of(whole).double().flatten()
        given = None if gradient is None else _lane(gradient, leaf, lane).double().flatten()
        if segment.mask is not None:
            moving = segment.mask.to(mine.device)
            expected_gradient = None if expected_gradient is None else expected_gradient[moving]
            given = None if given is None else given[moving]
        one = next((g for g in (expected_gradient, given) if g is not None), None)
        if one is None:
            continue
        nothing = torch.zeros_like(one)
        a, b = (nothing if g is None else g for g in (expected_gradient, given))
        square += float(a.square().sum())
        difference += float((a - b).square().sum())
    if difference**0.5 > of_gradient * rounding * square**0.5 + of_loss * rounding:
        return f"its gradient differs from one chain's by {difference**0.5:.3g} of {square**0.5:.3g}"
    return None


def _lane(gradient: torch.Tensor, leaf: Leaf, lane: int) -> torch.Tensor:
    return gradient[lane] if gradient.shape == leaf.tensor.shape else gradient
