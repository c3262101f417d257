"""How far a model can be compressed before its loss rises by a tolerance: quantised, factorised or pruned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

Scheme = Literal["quantisation", "factorisation", "pruning"]
MOST_LEVELS = 2**16


class CriticalCompression(NamedTuple):
    """The strongest compression that the loss tolerates.

    Attributes:
        scheme: "quantisation", "factorisation" or "pruning".
        level: what is left: levels n_q of a weight, rank of a matrix, or number of weights. The smaller, the simpler.
        bits: log₂ of the level, a description length of a weight (of a matrix' rank, of the number of weights).
        loss: at that level.
        loss_before: L₀, without compression.
        evaluations: of the loss.
    """

    scheme: Scheme
    level: int
    bits: float
    loss: float
    loss_before: float
    evaluations: int


def critical_compression(
    model: nn.Module, loss: Callable[[nn.Module], float], tolerance: float, scheme: Scheme = "quantisation"
) -> CriticalCompression:
    """The smallest level at which the loss stays within a tolerance, L(level) <= L₀ + tolerance, by bisection.

    A level is the number of values a weight may take (2 … 65536; see ``quantised``), the rank of every matrix (0 … the
    largest smaller side; ``factorised``), or the number of weights that are kept (0 … all; ``pruned``). Only matrices,
    parameters of two and more dimensions, are compressed; biases and gains are not. Where the loss is no monotone
    function of the level, bisection finds one level that is tolerated while the one below it is not.

    Args:
        model: it is copied and left alone.
        loss: of a model, such as its mean over a data set.
        tolerance: ε > 0, in the units of the loss.
        scheme: how the weights are compressed.

    Returns:
        The level with its loss.

    Raises:
        ValueError: an unknown scheme, a tolerance that is not above 0, a model without matrices, a loss that is not
            finite, or one that no level tolerates.

    Source: Urdshals et al. 2510.12077.
    """
    if scheme not in _SCHEMES:
        raise ValueError(f"scheme must be one of {list(_SCHEMES)}, got {scheme!r}")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be finite and > 0, got {tolerance!r}")
    matrices = {name: value.detach() for name, value in model.named_parameters() if value.ndim >= 2}
    if not matrices:
        raise ValueError("the model has no parameter of two or more dimensions: there is nothing to compress")
    before = _number(loss(model), "uncompressed")
    compress = _SCHEMES[scheme]
    least, most = _range(scheme, matrices)
    tried: dict[int, float] = {}

    def tolerated(level: int) -> bool:
        trial = copy.deepcopy(model)
        with torch.no_grad():
            parameters = dict(trial.named_parameters())
            for name, value in compress(matrices, level).items():
                parameters[name].copy_(value)
        tried[level] = _number(loss(trial), f"at level {level}")
        return tried[level] <= before + tolerance

    if tolerated(least):
        most = least
    elif not tolerated(most):
        raise ValueError(
            f"even the weakest {scheme}, level {most}, raises the loss from {before:.6g} to {tried[most]:.6g}, by more "
            f"than tolerance={tolerance:g}: give a larger tolerance"
        )
    low = least
    while most - low > 1:
        middle = (low + most) // 2 if scheme != "quantisation" else max(low + 1, math.isqrt(low * most))
        low, most = (low, middle) if tolerated(middle) else (middle, most)
    bits = math.log2(most) if most else 0.0
    return CriticalCompression(scheme, most, bits, tried[most], before, len(tried) + 1)


def quantised(weights: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Each tensor rounded to evenly spaced values, symmetric around 0: w ↦ Δ·(round(w/Δ − s) + s), |w| <= max|w|.

    Δ = 2·max|w|/(n − 1), and s = ½ where n is even, so that all n values are used and ±max|w| are among them.

    Args:
        weights: tensors by name.
        levels: n >= 2.

    Returns:
        New tensors by name, of the same shapes and types.

    Raises:
        ValueError: n below 2.
    """
    if levels < 2:
        raise ValueError(f"levels must be >= 2, got {levels!r}")
    rounded = {}
    for name, weight in weights.items():
        spacing = 2 * weight.abs().max() / (levels - 1)
        shift = 0.5 if levels % 2 == 0 else 0.0
        safe = torch.where(spacing > 0, spacing, torch.ones_like(spacing))
        rounded[name] = ((weight / safe - shift).round() + shift).clamp(-(levels - 1) / 2, (levels - 1) / 2) * spacing
    return rounded


def factorised(weights: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Each matrix' nearest of a rank, U_r·S_r·V_rᵀ; dimensions beyond the second count as columns.

    Args:
        weights: tensors of two and more dimensions by name.
        rank: r >= 0.

    Returns:
        New tensors by name, of the same shapes and types.

    Raises:
        ValueError: r below 0, or a tensor of fewer than two dimensions.
    """
    if rank < 0:
        raise ValueError(f"rank must be >= 0, got {rank!r}")
    if vectors := [name for name, weight in weights.items() if weight.ndim < 2]:
        raise ValueError(f"only tensors of two and more dimensions have a rank: leave out {vectors}")
    near = {}
    for name, weight in weights.items():
        u, s, vh = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
        near[name] = ((u[:, :rank] * s[:rank]) @ vh[:rank]).view_as(weight).to(weight.dtype)
    return near


def pruned(weights: Mapping[str, Tensor], kept: int) -> dict[str, Tensor]:
    """All weights but the largest in size set to 0, over all tensors together; among equals the first are kept.

    Args:
        weights: tensors by name.
        kept: how many stay, >= 0.

    Returns:
        New tensors by name, of the same shapes and types.

    Raises:
        ValueError: a count below 0, or no tensor.
    """
    if kept < 0 or not weights:
        raise ValueError(f"kept must be >= 0 of one tensor and more, got kept={kept!r} of {len(weights)} tensors")
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    order = flat.abs().argsort(descending=True, stable=True)
    flat[order[kept:]] = 0
    pieces = flat.split([weight.numel() for weight in weights.values()])
    return {name: piece.view_as(weight) for (name, weight), piece in zip(weights.items(), pieces, strict=True)}


_SCHEMES: dict[str, Callable[[Mapping[str, Tensor], int], dict[str, Tensor]]] = {
    "quantisation": quantised,
    "factorisation": factorised,
    "pruning": pruned,
}


def _range(scheme: Scheme, matrices: Mapping[str, Tensor]) -> tuple[int, int]:
    """The strongest level and the weakest."""
    if scheme == "quantisation":
        return 2, MOST_LEVELS
    if scheme == "factorisation":
        return 0, max(min(weight.flatten(1).shape) for weight in matrices.values())
    return 0, sum(weight.numel() for weight in matrices.values())


def _number(value: float, where: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"the loss {where} is {number}: it must be finite")
    return number
