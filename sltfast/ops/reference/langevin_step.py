"""`langevin_step_` in plain PyTorch.

All arithmetic is in float64 and rounded once, to the dtype of the tensor it is written to.
"""

import math

import torch
from torch import Tensor

from sltfast.ops.langevin_arguments import check_langevin_step
from sltfast.ops.reference.philox import philox_normals, segment_elements

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
    low: list[Tensor],
    masks: list[Tensor],
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    metrics: Tensor | None,
    noise: list[Tensor],
    rms_alpha: float,
    rms_eps: float,
) -> None:
    """`sltfast::reference_langevin_step_`; the equation and the shapes are in `ops.langevin_step_`."""
    check_langevin_step(
        w, grads, anchors, segments, hyper, step, chains, seed, stream, method,
        v, low, masks, loss, alive, death_step, metrics, noise, rms_alpha, rms_eps,
    )  # fmt: skip
    count = w.shape[0]
    t = int(step)
    moves = torch.ones(count, dtype=torch.bool, device=w.device)
    if alive is not None:
        moves &= alive.bool()
    healthy = moves.clone()
    if loss is not None:
        healthy &= torch.isfinite(loss)
    correction = 1.0 - rms_alpha ** (t + 1) if method == "rmsprop_sgld_hh" else 1.0
    sums = torch.zeros(count, 9, dtype=torch.float64, device=w.device)
    finite = torch.ones(count, dtype=torch.bool, device=w.device)
    for c in healthy.nonzero().flatten().tolist():
        ids = {"seed": seed, "stream": stream, "step": t, "chain": int(chains[c])}
        for s, segment in enumerate(segments.tolist()):
            offset, n = segment[:2]
            for start in range(0, n, _BLOCK):
                stop = min(start + _BLOCK, n)
                here = slice(offset + start, offset + stop)

                def values(tensors: list[Tensor], s: int = s, c: int = c, a: int = start, b: int = stop) -> Tensor:
                    return tensors[s].reshape(count, -1)[c, a:b].double()

                if noise:
                    xi = values(noise)
                else:
                    xi = philox_normals(segment_elements(segment, start, stop, w.device), **ids)
                finite[c] &= _move_block(
                    w[c, here],
                    values(grads) if grads[s].numel() else torch.zeros_like(xi),
                    anchors[s].reshape(-1)[start:stop].double(),
                    xi,
                    masks[s].reshape(-1)[start:stop] if masks and masks[s].numel() else None,
                    v[c, here] if v is not None else None,
                    low[s].view(count, -1)[c, start:stop] if low and low[s].numel() else None,
                    hyper[c].tolist(),
                    (rms_alpha, rms_eps, correction),
                    sums[c],
                )
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
    mask: Tensor | None,
    v: Tensor | None,
    low: Tensor | None,
    hyper: list[float],
    rms: tuple[float, float, float],
    sums: Tensor,
) -> Tensor:
    """Move one block of one chain in place; add its parts to `sums` (squares, then dots); were all values finite?"""
    lr, n_beta, gamma, weight_decay, noise_level, box = hyper
    alpha, eps, correction = rms
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
    kick = (lr * precondition) ** 0.5 * noise_level * xi
    new = (old - (scaled + localization + decay) + kick).to(w.dtype)
    finite = torch.isfinite(new)
    if v is not None:
        mean_square = mean_square.to(v.dtype)
        finite &= torch.isfinite(mean_square)
    if math.isfinite(box):
        new = torch.clamp(new, (anchor - box).to(w.dtype), (anchor + box).to(w.dtype))
    in_play = torch.ones_like(finite) if mask is None else mask
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
    if low is not None:
        low.copy_(w)
    return finite[in_play].all()
