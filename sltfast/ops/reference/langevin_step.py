"""`langevin_step_` in plain PyTorch.

All arithmetic is in float64 and rounded once, to the dtype of the tensor it is written to.
"""

import math

import torch
from torch import Tensor

from sltfast.ops.langevin_arguments import check_langevin_step
from sltfast.ops.reference.philox import philox_normals, philox_words, segment_elements
from sltfast.ops.reference.rounding import stochastic_round
from sltfast.ops.streams import STREAM_ROUNDING

_BLOCK = 1 << 18  # coordinates at a time: bounds the float64 temporaries


def langevin_step_(
    w: Tensor,
    grads: list[Tensor],
    anchors: list[Tensor],
    segments: Tensor,
    hyper: Tensor,
    step: Tensor,
    chains: Tensor,
    seed: int,
    stream: int,
    method: str,
    v: Tensor | None,
    momentum: Tensor | None,
    thermostat: Tensor | None,
    low: list[Tensor],
    masks: list[Tensor],
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    metrics: Tensor | None,
    noise: list[Tensor],
    rms_alpha: float,
    rms_eps: float,
    friction: float,
    stochastic_rounding: bool,
) -> None:
    """`sltfast::reference_langevin_step_`; the equation and the shapes are in `ops.langevin_step_`."""
    check_langevin_step(
        w, grads, anchors, segments, hyper, step, chains, seed, stream, method,
        v, momentum, thermostat, low, masks, loss, alive, death_step, metrics, noise, rms_alpha, rms_eps,
        friction, stochastic_rounding,
    )  # fmt: skip
    count = w.shape[0]
    t = int(step)
    moves = torch.ones(count, dtype=torch.bool, device=w.device)
    if alive is not None:
        moves &= alive.bool()
    healthy = moves.clone()
    if loss is not None:
        healthy &= torch.isfinite(loss)
    hotness = friction if momentum is not None else 1.0  # the noise is √(hotness·ε)·σ·ξ
    correction = 1.0 - rms_alpha ** (t + 1) if method == "rmsprop_sgld_hh" else 1.0
    sums = torch.zeros(count, 9, dtype=torch.float64, device=w.device)
    finite = torch.ones(count, dtype=torch.bool, device=w.device)
    for c in healthy.nonzero().flatten().tolist():
        ids = {"seed": seed, "step": t, "chain": int(chains[c])}
        loses = friction if thermostat is None else float(thermostat[c])
        moving, heat = 0, 0.0
        for s, segment in enumerate(segments.tolist()):
            offset, n = segment[:2]
            for start in range(0, n, _BLOCK):
                stop = min(start + _BLOCK, n)
                here = slice(offset + start, offset + stop)

                def values(tensors: list[Tensor], s: int = s, c: int = c, a: int = start, b: int = stop) -> Tensor:
                    return tensors[s].reshape(count, -1)[c, a:b].double()

                elements = segment_elements(segment, start, stop, w.device)
                xi = values(noise) if noise else philox_normals(elements, stream=stream, **ids)
                in_play = torch.ones_like(xi, dtype=torch.bool)
                if masks and masks[s].numel():
                    in_play = masks[s].reshape(-1)[start:stop]
                m = momentum[c, here] if momentum is not None else None
                finite[c] &= _move_block(
                    w[c, here],
                    values(grads) if grads[s].numel() else torch.zeros_like(xi),
                    anchors[s].reshape(-1)[start:stop].double(),
                    xi,
                    in_play,
                    v[c, here] if v is not None else None,
                    m,
                    hyper[c].tolist(),
                    (rms_alpha, rms_eps, correction),
                    (1.0 - loses, hotness),
                    sums[c],
                )
                if m is not None:
                    moving += int(in_play.sum())
                    heat += float(m[in_play].double().square().sum())
                if low and low[s].numel():
                    copy, new = low[s].view(count, -1)[c, start:stop], w[c, here].float()
                    if stochastic_rounding:
                        words = philox_words(elements, stream=STREAM_ROUNDING, **ids)
                        new = stochastic_round(new, words, copy.dtype)
                    copy.copy_(new)
        if thermostat is not None and moving and bool(finite[c]):
            thermostat[c] += heat / moving - float(hyper[c, 0]) / (2.0 - loses)
    died = moves & ~(healthy & finite)
    if alive is not None:
        alive.masked_fill_(died, 0)
    if death_step is not None:
        death_step.masked_fill_(died, t)
    if metrics is not None:
        sums[:, :6].sqrt_()
        metrics.copy_(sums.masked_fill_(~healthy[:, None], math.nan))


def _move_block(
    w: Tensor,
    g: Tensor,
    anchor: Tensor,
    xi: Tensor,
    in_play: Tensor,
    v: Tensor | None,
    momentum: Tensor | None,
    hyper: list[float],
    rms: tuple[float, float, float],
    inertia: tuple[float, float],
    sums: Tensor,
) -> Tensor:
    """Move one block of one chain in place; add its parts to `sums` (squares, then dots); were all values finite?

    `rms` is (α, eps, 1 − α^{t+1} or 1); `inertia` is (1 − ζ, A), the noise being √(A·ε·G)·σ·ξ.
    """
    lr, n_beta, gamma, weight_decay, noise_level, box = hyper
    alpha, eps, correction = rms
    kept, hotness = inertia
    old = w.double()
    distance = old - anchor
    precondition: Tensor | float = 1.0
    if v is not None:
        mean_square = alpha * v.double() + (1.0 - alpha) * g * g
        precondition = 1.0 / (torch.sqrt(mean_square / correction) + eps)
    half = 0.5 * lr * precondition
    unscaled = 0.5 * lr * n_beta * g
    scaled = precondition * unscaled
    localization = half * gamma * distance
    decay = half * weight_decay * old
    kick = (hotness * lr * precondition) ** 0.5 * noise_level * xi
    move = kick - (scaled + localization + decay)
    if momentum is not None:
        move = kept * momentum.double() + move
    new = (old + move).to(w.dtype)
    finite = torch.isfinite(new) & torch.isfinite(move.to(w.dtype))
    if v is not None:
        mean_square = mean_square.to(v.dtype)
        finite &= torch.isfinite(mean_square)
    if math.isfinite(box):
        held = torch.clamp(new, (anchor - box).to(w.dtype), (anchor + box).to(w.dtype))
        move, new = torch.where(held == new, move, -move), held
    moves = in_play & finite
    prior = localization + decay
    pairs = (
        (scaled, scaled),
        (unscaled, unscaled),
        (localization, localization),
        (decay, decay),
        (kick, kick),
        (distance, distance),
        (scaled, prior),
        (scaled, kick),
        (prior, kick),
    )
    sums += torch.stack([(a * b)[in_play].sum() for a, b in pairs])
    w.copy_(torch.where(moves, new, w))
    if v is not None:
        v.copy_(torch.where(moves, mean_square, v))
    if momentum is not None:
        momentum.copy_(torch.where(moves, move.to(w.dtype), momentum))
    return finite[in_play].all()
