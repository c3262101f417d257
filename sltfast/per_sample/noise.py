"""Estimates of the gradient's noise at w, from two passes over some items of a data set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.batches import BatchStream
from sltfast.data import Source, as_source
from sltfast.losses import LossFn
from sltfast.per_sample.alone import product
from sltfast.per_sample.items import Items, prepared
from sltfast.per_sample.norms import Products, products
from sltfast.per_sample.passes import Passed
from sltfast.per_sample.sgld_noise import NoiseScale
from sltfast.per_sample.sums import gradient_sum
from sltfast.restriction import ParamMasks


def noise_scale(
    model: nn.Module,
    dataset: Any,
    loss_fn: LossFn | None = None,
    *,
    batch_size: int = 32,
    lr: float | None = None,
    n_beta: float | None = None,
    noise_level: float = 1.0,
    localization: float = 0.0,
    num_items: int = 1024,
    param_masks: ParamMasks = None,
    seed: int = 0,
    buffer_size: int | None = None,
    check: bool = True,
) -> NoiseScale:
    """The gradient-noise scale tr Σ/|G|² at w, and SGLD's mini-batch noise against the noise it injects.

    From N items drawn without replacement, with shares s_i of mean 1 (all 1 where every item has as many losses):

        Ḡ = (1/N)·Σ s_i g_i,   tr Σ = 1/(N − 1)·Σ s_i²·|g_i − Ḡ|²,   |G|² = |Ḡ|² − tr Σ·(1/N − 1/n)

    The gradient of a batch of m is Ḡ + noise of covariance Σ·(1/m − 1/n), and SGLD's step moves by ε·nβ/2 times it:
    one step gains (ε·nβ)²/4·tr Σ·(1/m − 1/n) in E|Δw|² from mini-batches, and ε·σ²·d from ξ. Σ is far from isotropic as
    a rule, so the same is told of the direction of Ḡ, by products of each g_i with the mean of the others. Two forward
    and two backward passes over the N items; no item's gradient is stored.

    Args:
        model: see ``gradient_norms``.
        dataset: as for ``sltfast.sample``; n items.
        loss_fn: see ``gradient_norms``.
        batch_size: m of SGLD's steps, and of the passes here.
        lr: ε, to compare the noises; None: only Σ and G are estimated.
        n_beta: nβ, likewise.
        noise_level: σ.
        localization: γ, to compare the noise with the pull back to w*.
        num_items: N >= 2, at most n.
        param_masks: which coordinates move, as in ``sltfast.sample``.
        seed: which items are drawn.
        buffer_size: see ``sltfast.sample``.
        check: see ``gradient_norms``; in the first batch only.

    Returns:
        ``NoiseScale``; its ``ratio`` and ``advice()`` are about SGLD's step, ``signal_to_noise`` is of a mini-batch
        gradient, ``ratio_to_localization`` sets its noise against γ.

    Raises:
        ValueError: fewer than 2 items, or lr, n_beta, noise_level, localization, batch_size or num_items out of range;
            otherwise as ``gradient_norms``.
        TypeError: as ``gradient_norms``.

    Warns:
        UserWarning: see ``gradient_norms``.

    Source: McCandlish et al. 1812.06162 (noise scale); Welling & Teh 2011 (SGLD).
    """
    for name, value, least in (("batch_size", batch_size, 1), ("num_items", num_items, 2)):
        if isinstance(value, bool) or int(value) != value or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    for name, number in (("lr", lr), ("n_beta", n_beta), ("noise_level", noise_level), ("localization", localization)):
        if number is not None and not (math.isfinite(number) and number >= 0 and (number > 0 or name != "lr")):
            raise ValueError(f"{name} must be finite and {'> 0' if name == 'lr' else '>= 0'}, got {number!r}")
    source = as_source(dataset, buffer_size=buffer_size)
    total = len(source)
    if total < 2:
        raise ValueError("a variance needs at least 2 items, and the data set has 1")
    rows = BatchStream(source, total, seed).rows(0)[:num_items]
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with prepared(model, loss_fn, param_masks) as items:
        mean, mean_count = _mean_gradient(items, source, parts)
        deviations = _Deviations(mean, len(rows))
        first: Passed | None = None
        for part in parts:
            result, passed = products(items, source.fetch(part), norms=True, direction=mean, check=check and not first)
            first = first or passed
            deviations.add(result, passed.weights / mean_count)
    if first is not None:
        first.tell()
    return NoiseScale(
        **deviations.estimates(total),
        items=len(rows),
        dataset_items=total,
        numel=items.numel,
        batch_size=min(batch_size, total),
        lr=lr,
        n_beta=n_beta,
        noise_level=float(noise_level),
        localization=float(localization),
    )


def _mean_gradient(items: Items, source: Source, parts: list[np.ndarray]) -> tuple[dict[str, Tensor], Tensor]:
    """Ḡ by name, flat, and the mean count of an item's losses."""
    sums: dict[str, Tensor] = {}
    total: Tensor | float = 0.0
    for part in parts:
        batch, _ = items.take(source.fetch(part))
        gradients, counts = gradient_sum(items, batch, None)
        share = counts.sum()
        for name, gradient in gradients.items():
            wide = gradient.reshape(-1) if gradient.dtype == torch.float64 else gradient.reshape(-1).float()
            sums[name] = sums[name].add_(wide * share) if name in sums else wide * share
        total = total + share
    return {name: value / total for name, value in sums.items()}, torch.as_tensor(total) / sum(map(len, parts))


class _Deviations:
    """Sums over the items of how far their gradients are from the mean."""

    def __init__(self, mean: dict[str, Tensor], count: int) -> None:
        self.mean_squared = sum(product(g, g) for g in mean.values())
        self.count = count
        self.apart: list[Tensor] = []
        self.along: list[Tensor] = []
        self.along_others: list[Tensor] = []

    def add(self, of: Products, shares: Tensor) -> None:
        """Take in a batch: s_i²·|g_i − Ḡ|², s_i·⟨g_i − Ḡ, Ḡ⟩, and s_i·⟨g_i − Ḡ, the others' mean⟩."""
        s, count = shares.double(), self.count
        along = of.along - self.mean_squared
        self.apart.append(s**2 * (of.squared - 2 * of.along + self.mean_squared))
        self.along.append(s * along)
        self.along_others.append(s * (count * along - s * (of.squared - of.along)) / (count - 1))

    def estimates(self, total: int) -> dict[str, float]:
        """The estimates of ``NoiseScale``, for a data set of ``total`` items."""
        apart, along, others = torch.cat(self.apart), torch.cat(self.along), torch.cat(self.along_others)
        unread = 1 - self.count / total
        trace = float(apart.sum()) / (self.count - 1)
        variance = float(others.square().sum()) / (self.count - 1)
        return {
            "trace": trace,
            "trace_se": float(apart.std()) * math.sqrt(unread / self.count),
            "variance_along_mean": variance / self.mean_squared if self.mean_squared else 0.0,
            "gradient_squared": self.mean_squared - trace * unread / self.count,
            # to leading order Var |Ḡ|² = 4·Gᵀ Cov(Ḡ) G
            "gradient_squared_se": 2 * float(along.std()) * math.sqrt(unread / self.count),
        }
