"""Whether an engine computes what one chain alone computes: tried before the first step, at weights that differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.arena import Arena, Leaf
from sltfast.clone import structural_clone
from sltfast.data import map_leaves
from sltfast.losses import ItemLoss, ItemLosses
from sltfast.sampler.engines.engine import Engine, LaneBatch

# Of the mean absolute weight, in the first and in the last lane: equal weights would hide lanes that are mixed up, and
# nearly equal ones a choice among all rows (the largest k) that falls on the same rows of each lane.
PERTURBATIONS = 0.02, 0.5
# In units of the precision's rounding: sums of a model's depth and width in another order. A mix-up moves the losses by
# the perturbation's share of them, a hundred times as much in float32.
LOSS_ROUNDINGS, GRADIENT_ROUNDINGS = 1e3, 1e4
LOW_ROUNDINGS = 32.0


PART = 1 << 16  # coordinates looked at together: the trial needs no memory of the model's size for itself


@torch.no_grad()
def _perturb(engine: Engine) -> None:
    generator = torch.Generator().manual_seed(0)
    least, most = map(math.log10, PERTURBATIONS)
    shares = torch.logspace(least, most, engine.arena.lanes).unsqueeze(1)
    for block in engine.arena.blocks:
        width = max(1, PART // len(block.w))
        longest = min(width, max(int(block.shares[0].table[:, 1].max()), 1))
        # drawn once, and read from another place for every part: a model's size of normals takes longer than its check
        drawn = torch.randn(len(block.w), 2 * longest, generator=generator, dtype=block.w.dtype)
        for index in range(len(block.leaves)):
            rows = block.rows(index)
            scale = shares * (float(torch.linalg.vector_norm(rows, 1)) / max(1, rows.numel()) + 1e-3)
            for start in range(0, rows.shape[1], width):
                part = rows[:, start : start + width]
                at = int(torch.randint(longest, (), generator=generator))
                noise = (drawn[:, at : at + part.shape[1]] * scale).to(rows.device)
                for share in block.shares:
                    mask = share.masks[index]
                    kept = noise[share.lanes]
                    part[share.lanes] += kept * mask[start : start + width] if mask.numel() else kept
        block.refresh_low()


def disagreement(
    engine: Engine, clone: nn.Module, loss: ItemLoss, data: Any, device: torch.device, *, shared: bool = True
) -> str | None:
    """How losses or gradients of an engine differ from one chain's at the same weights; None where they agree.

    The first, the middle and the last lane are compared, each gradient as soon as it is formed: beside the engine's
    weights and gradients no more than a tensor is held. The arena is at w* again afterwards.

    Args:
        engine: to be tried.
        clone: the model at w*, untouched.
        loss: the run's.
        data: a batch, the same for all lanes.
        device: where.
        shared: whether the engine is told so, or given rows for each lane.
    """
    arena = engine.arena
    rows = data if shared else map_leaves(lambda part: part.repeat(arena.lanes, *[1] * (part.ndim - 1)), data)
    runs_under_autocast = torch.is_autocast_enabled(device.type)
    with torch.autocast(device.type, enabled=False):
        try:
            _perturb(engine)
            if runs_under_autocast:  # compared without it, but it has to work with it
                with torch.autocast(device.type, torch.get_autocast_dtype(device.type), cache_enabled=False):
                    arena.backward(engine.objective(LaneBatch(rows, shared), 1.0).total)
                arena.take_gradients()
            total, losses = engine.objective(LaneBatch(rows, shared), 1.0)
            arena.backward(total)
            del total
            gradients = [g for block in arena.take_gradients() for g in block]
            counted = _counted(losses)
            for lane in sorted({0, arena.lanes // 2, arena.lanes - 1}):
                reason = _differs(arena, lane, counted, gradients, structural_clone(clone, device), loss, data)
                if reason is not None:
                    return reason
        finally:
            arena.take_gradients()
            arena.reset()
    return None


class _Comparison:
    """Squared norms of one chain's gradient, and of its difference from a lane's."""

    def __init__(self, arena: Arena, lane: int, gradients: list[Tensor | None]) -> None:
        self.lane, self.restriction = lane, lane // (arena.lanes // arena.num_restrictions)
        self.square = self.difference = 0.0
        self._left: dict[str, list[tuple[Leaf, Tensor | None]]] = {}
        for leaf, gradient in zip(arena.leaves, gradients, strict=True):
            self._left.setdefault(leaf.name, []).append((leaf, gradient))

    def add(self, name: str, expected: Tensor | None) -> None:
        """Compare a parameter's gradient (None: there is none)."""
        for leaf, gradient in self._left.pop(name, []):
            segment = leaf.segments[self.restriction]
            mask = None if segment.mask is None else segment.mask.view(segment.shape)
            block = None if expected is None else segment.of(expected).reshape(segment.shape)
            given = None
            if gradient is not None:
                given = gradient[self.lane] if gradient.shape == leaf.tensor.shape else gradient
            for a, b in _parts(block, given, mask):
                self.square += float(a.square().sum())
                self.difference += float(a.sub_(b).square().sum())

    def add_unused(self) -> None:
        """Parameters that one chain's loss does not use."""
        for name in list(self._left):
            self.add(name, None)


def _parts(a: Tensor | None, b: Tensor | None, mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Two gradients (None: 0) in float64, some rows at a time, without what stays."""
    one = a if a is not None else b
    if one is None:
        return
    rows = max(1, PART * max(1, len(one)) // max(1, one.numel())) if one.ndim else 1
    for start in range(0, len(one) if one.ndim else 1, rows):
        at = slice(start, start + rows) if one.ndim else ...
        like = one[at]
        both = [torch.zeros_like(like, dtype=torch.float64) if g is None else g[at].double() for g in (a, b)]
        if a is not None and a.dtype == torch.float64:
            both[0] = both[0].clone()
        if mask is not None:
            both = [g * mask[at].to(g.device) for g in both]
        yield both[0], both[1]


def _counted(losses: ItemLosses) -> Tensor:
    """Losses that count, 0 for the others: what an ignored token's is, nobody is told."""
    values, weights = losses
    return values if weights is None else values.masked_fill(weights == 0, 0.0)


def _differs(
    arena: Arena,
    lane: int,
    values: Tensor,
    gradients: list[Tensor | None],
    alone: nn.Module,
    loss: ItemLoss,
    data: Any,
) -> str | None:
    parameters = dict(alone.named_parameters())
    comparison = _Comparison(arena, lane, gradients)
    copied: set[str] = set()
    for leaf in arena.leaves:
        segment, parameter = leaf.segments[comparison.restriction], parameters[leaf.name]
        own = leaf.tensor.detach()[lane]
        if segment.whole and own.dtype == parameter.dtype:
            parameter.data = own
            continue
        if leaf.name not in copied:
            copied.add(leaf.name)
            parameter.data = parameter.detach().clone()
        block = segment.of(parameter.data)
        block.copy_(own.reshape(block.shape))
    moved = {leaf.name: parameters[leaf.name] for leaf in arena.leaves}
    for name, parameter in moved.items():
        parameter.requires_grad_()

        def formed(parameter: Tensor, name: str = name) -> None:
            gradient, parameter.grad = parameter.grad, None
            comparison.add(name, gradient)

        parameter.register_post_accumulate_grad_hook(formed)
    total, expected = loss.objective(alone, data, 1, 1.0)
    mine = values.unflatten(0, (arena.lanes, -1))[lane].double()
    theirs = _counted(expected).double()
    rounding = max(float(torch.finfo(parameter.dtype).eps) for parameter in moved.values())
    of_loss, of_gradient = (LOSS_ROUNDINGS, GRADIENT_ROUNDINGS) if rounding < 1e-6 else (LOW_ROUNDINGS, LOW_ROUNDINGS)
    if mine.shape != theirs.shape:
        return f"it gives losses of shape {list(mine.shape)} where one chain gives {list(theirs.shape)}"
    apart = float((mine - theirs).nan_to_num(0.0).abs().max())
    allowed = of_loss * rounding * (1.0 + float(theirs.nan_to_num(0.0).abs().max()))
    if apart > allowed or not torch.equal(mine.isnan(), theirs.isnan()):
        return f"its losses differ from one chain's by {apart:.3g} (rounding explains {allowed:.3g})"
    total.backward(inputs=list(moved.values()))
    comparison.add_unused()
    square, difference = comparison.square, comparison.difference
    if difference**0.5 > of_gradient * rounding * square**0.5 + of_loss * rounding:
        return f"its gradient differs from one chain's by {difference**0.5:.3g} of {square**0.5:.3g}"
    return None
