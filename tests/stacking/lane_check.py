"""A folded forward and gradient held against one lane at a time, before any chain moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.data import leaves, map_leaves
from sltfast.isolation import isolated_rng
from sltfast.losses import token_ids
from sltfast.stacking.guard import GuardedWeight
from sltfast.stacking.pieces import Piece
from sltfast.stacking.refusal import refusal
from sltfast.stacking.stack import Stack

SPREADS = (0.1, 0.01, 0.001)  # relative steps of the weights, the first at which the lanes alone stay finite
ROUNDINGS = 8.0  # folded and single sums round in different orders: this many times the effect of one rounding of w
MOST = 8  # lanes compared at once
Losses = Callable[[nn.Module, Any], Tensor]
Outcome = tuple[Tensor, Tensor]  # losses [rows, T], total norm of the gradient


def check_stack(stack: Stack, losses: Losses, batch: Any, *, seed: int = 0) -> str | None:
    """Compare the stack with its own model run one lane at a time, with other weights in every lane.

    A few lanes, w_l = w* + 0.1·rms(w*)·ξ_l (less where that is not finite), run folded; then each alone, its
    weights in place of the clone's parameters and no patch in the way. Compared are the losses and the total norm of
    each lane's gradient (single gradients may be exactly zero). The batch is cut to an odd number of rows, and token
    sequences to an odd length.

    The allowed difference is measured: folded sums are the exact result for weights a few roundings away, so the
    reference is run again with every weight rounded up or down at random, and 8·√n of that change is allowed (n the
    longest sum; n = 1 in low precision, where sums accumulate in fp32), plus 8 roundings of the value itself.

    On the way each module is settled on its rung; where the losses differ although nothing failed, the model as a
    whole becomes one unit and is checked again. The leaves, their gradients and the clone stay as they are.

    Args:
        stack: what is checked.
        losses: ``(model, batch) -> [rows, T]``.
        batch: first rows of the real data, at least 3 where there are as many.
        seed: of the perturbation.

    Returns:
        None, or why the stack cannot be used.
    """
    if (reason := refusal(stack.model)) is not None:
        return reason
    chosen = _chosen(stack)
    count = len(chosen)
    batch = _odd(batch, count)
    for spread in SPREADS:
        with isolated_rng(seed, leaves(batch)[0].device), torch.enable_grad():
            trial = {
                name: [_moved(piece, frozen, chosen, spread) for piece in stack.pieces[name]]
                for name, frozen in stack.parameters.items()
            }
            with stack.reading(trial, count):
                singles = _singles(stack, losses, batch, trial)
                if isinstance(singles, str):
                    return singles
                if all(value.isfinite().all() for single in singles for value in single):
                    return _settled(stack, losses, batch, trial, singles)
    return "a lane alone has losses or gradients that are not finite on the first rows of the data"


def _singles(stack: Stack, losses: Losses, batch: Any, trial: Mapping[str, Sequence[Piece]]) -> list[Outcome] | str:
    """Every lane alone, and the first again with its weights rounded; or why that cannot be."""
    device = leaves(batch)[0].device
    try:
        with stack.lifted():
            state = _random_state(device)
            singles = [_alone(stack, losses, batch, trial, lane) for lane in range(stack.lanes)]
            if not torch.equal(state, _random_state(device)):
                return "the forward draws random numbers, which lanes alone would draw differently"
            return [*singles, _alone(stack, losses, batch, trial, 0, rounding=True)]
    except RuntimeError as error:
        return f"one lane alone fails on a batch of {len(leaves(batch)[0])} rows: {_line(error)}"


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _settled(
    stack: Stack, losses: Losses, batch: Any, trial: Mapping[str, Sequence[Piece]], outcomes: Sequence[Outcome]
) -> str | None:
    *singles, rounded = outcomes
    allowed = [_allowed(stack, single, other) for single, other in zip(singles[0], rounded, strict=True)]
    while True:
        try:
            found = _folded(stack, losses, batch, trial)
            reason = _difference(singles, found, allowed)
        except Exception as error:
            reason = f"a folded forward fails: {_line(error)}"
            if isinstance(error, GuardedWeight) and stack.promote(error.module):
                continue
        if reason is None or not stack.run_whole():
            return reason


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _chosen(stack: Stack) -> list[int]:
    """The first, middle and last lane, and one of every restriction where lanes differ in what moves (at most 8)."""
    starts = {piece.span[0] for pieces in stack.pieces.values() for piece in pieces}
    lanes = sorted(starts | {0, stack.lanes // 2, stack.lanes - 1})
    return lanes if len(lanes) <= MOST else [lanes[i * (len(lanes) - 1) // (MOST - 1)] for i in range(MOST)]


def _moved(piece: Piece, frozen: Tensor, chosen: Sequence[int], spread: float) -> Piece:
    """The piece with a leaf of its own, moved from w* by another step in every lane."""
    l0, l1 = piece.span
    first, last = sum(lane < l0 for lane in chosen), sum(lane < l1 for lane in chosen)
    own = piece.segment.of(frozen).reshape(piece.leaf.shape[1:])
    centre = own.expand(last - first, *own.shape)
    size = spread * own.double().square().mean().sqrt().clamp(min=0.2).item()
    step = (size * torch.randn(centre.shape, device=centre.device, dtype=torch.float32)).to(centre.dtype)
    if piece.segment.mask is not None:
        step = step * piece.segment.mask.to(centre.device).view(centre.shape[1:])
    return Piece(piece.segment, (centre + step).requires_grad_(), (first, last))


def _odd(batch: Any, lanes: int) -> Any:
    """An odd number of rows, and of tokens, the latter no multiple of the folded rows."""
    rows = len(leaves(batch)[0])
    rows = min(3, rows - 1 + rows % 2)
    batch = map_leaves(lambda part: part[:rows], batch)
    ids = token_ids(batch)
    if ids is None or ids.shape[1] < 3:
        return batch
    whole = ids.shape[1]
    tokens = whole - 1 + whole % 2
    if tokens % (rows * lanes) == 0 and tokens > 3:
        tokens -= 2
    return map_leaves(lambda part: part[:, :tokens] if part.ndim > 1 and part.shape[1] == whole else part, batch)


def _folded(stack: Stack, losses: Losses, batch: Any, trial: Mapping[str, Sequence[Piece]]) -> list[Outcome]:
    count = stack.lanes
    values = losses(stack.model, stack.expand(batch))
    values = values.reshape(count, -1)
    moved = [piece for pieces in trial.values() for piece in pieces]
    gradients = torch.autograd.grad(values.sum(), [piece.leaf for piece in moved], allow_unused=True)
    squares = torch.zeros(count, dtype=torch.float64, device=values.device)
    for piece, gradient in zip(moved, gradients, strict=True):
        if gradient is not None:
            squares[slice(*piece.span)] += (
                _kept(gradient.double().reshape(len(gradient), piece.segment.numel), piece.segment.mask).square().sum(1)
            )
    return [*zip(values.detach().double(), squares.sqrt(), strict=True)]


def _kept(gradient: Tensor, mask: Tensor | None) -> Tensor:
    return gradient if mask is None else gradient.masked_fill(~mask.to(gradient.device).flatten(), 0)


def _alone(
    stack: Stack, losses: Losses, batch: Any, trial: Mapping[str, Sequence[Piece]], lane: int, *, rounding: bool = False
) -> Outcome:
    """One lane: its weights in place of the clone's parameters, nothing patched."""
    places: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for module in stack.model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module._parameters, key))
    parameters = dict(stack.model.named_parameters())
    moved: list[tuple[Tensor, Tensor]] = []
    try:
        for name, pieces in trial.items():
            weight = parameters[name].detach().clone()
            moving = torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
            for piece in pieces:
                _write(piece, weight, moving, lane)
            if rounding:
                up = torch.rand(weight.shape, device=weight.device) < 0.5
                weight *= torch.where(up, 1.0, 1.0 + torch.finfo(weight.dtype).eps).to(weight.dtype)
            lane_weight = nn.Parameter(weight)
            moved.append((lane_weight, moving))
            for held, key in places[id(parameters[name])]:
                held[key] = lane_weight
        values = losses(stack.model, batch).reshape(-1)
        gradients = torch.autograd.grad(values.sum(), [weight for weight, _ in moved], allow_unused=True)
    finally:
        for name, frozen in parameters.items():
            for held, key in places[id(frozen)] if name in trial else []:
                held[key] = frozen
    squares = [
        torch.where(moving, gradient.double(), 0).square().sum()
        for gradient, (_, moving) in zip(gradients, moved, strict=True)
        if gradient is not None
    ]
    return values.detach().double(), torch.stack(squares).sum().sqrt() if squares else values.new_zeros(()).double()


def _write(piece: Piece, weight: Tensor, moving: Tensor, lane: int) -> None:
    first, last = piece.span
    if not first <= lane < last:
        return
    value = piece.leaf.detach()[lane - first]
    if piece.segment.mask is not None:
        weight.copy_(value.view(weight.shape))
        moving.copy_(piece.segment.mask.view(weight.shape))
        return
    for target, source in ((weight, value), (moving, torch.ones_like(value, dtype=torch.bool))):
        block = piece.segment.of(target)
        block.copy_(source.reshape(block.shape))


def _allowed(stack: Stack, single: Tensor, rounded: Tensor) -> float:
    dtypes = {parameter.dtype for parameter in stack.model.parameters() if parameter.is_floating_point()}
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    longest = max(max(parameter.shape, default=1) for parameter in stack.model.parameters())
    terms = 1 if eps > torch.finfo(torch.float32).eps else longest
    change, size = (single - rounded).abs().max().item(), single.abs().max().item()
    return ROUNDINGS * math.sqrt(terms) * max(change, eps * size)


def _difference(singles: Sequence[Outcome], found: Sequence[Outcome], allowed: Sequence[float]) -> str | None:
    for lane, (single, folded) in enumerate(zip(singles, found, strict=True)):
        for what, one, many, bound in zip(("losses", "gradient norm"), single, folded, allowed, strict=True):
            if one.shape != many.shape:
                return f"folded, lane {lane} has {many.numel()} losses, alone {one.numel()}"
            apart = (one - many).abs().max().item()
            if not apart <= bound:
                return f"folded, the {what} of lane {lane} are {apart:.2g} from its own (allowed {bound:.2g})"
    return None
