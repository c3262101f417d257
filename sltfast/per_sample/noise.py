"""The gradient-noise scale, and the noise that SGLD's mini-batches add to the noise it means to inject."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.batches import BatchStream
from sltfast.data import Source, as_source
from sltfast.losses import LossFn
from sltfast.per_sample.items import Items, prepared
from sltfast.per_sample.norms import Products, products
from sltfast.per_sample.passes import Passed
from sltfast.per_sample.sums import gradient_sum
from sltfast.restriction import ParamMasks

SMALL_RATIO = 0.1
"""Mini-batch noise below this part of the injected noise is called small: the chain runs at most 10 % too hot."""


@dataclass(frozen=True)
class NoiseScale:
    """How noisy mini-batch gradients are at w, beside the gradient and beside SGLD's own noise.

    Attributes:
        trace: tr Σ, of the covariance of one item's gradient (unbiased); (nats per weight)².
        trace_se: its standard error.
        gradient_squared: |G|² of the data set's gradient (unbiased, so it may come out negative near a minimum).
        gradient_squared_se: its standard error.
        items: N, items read; ``dataset_items``: n, items of the data set.
        numel: d, coordinates that move.
        batch_size: m of a step; ``lr``: ε; ``n_beta``: nβ; ``noise_level``: σ.
    """

    trace: float
    trace_se: float
    gradient_squared: float
    gradient_squared_se: float
    items: int
    dataset_items: int
    numel: int
    batch_size: int
    lr: float | None
    n_beta: float | None
    noise_level: float

    @property
    def noise_scale(self) -> float:
        """B = tr Σ / |G|², in items: the batch size at which a gradient is as much noise as signal; inf where G is not
        told from 0.
        """
        return self.trace / self.gradient_squared if self.gradient_squared > 0 else math.inf

    @property
    def batch_trace(self) -> float:
        """Trace of Cov(g_batch) = tr Σ·(1/m − 1/n), the covariance of a mean over m of n items without replacement."""
        return self.trace * (1 / self.batch_size - 1 / self.dataset_items)

    @property
    def batch_noise(self) -> float:
        """(ε·nβ/2)²·tr Cov(g_batch): what mini-batches add to E|Δw|² of one step. NaN without lr and n_beta."""
        return (self._lr * self._n_beta / 2) ** 2 * self.batch_trace

    @property
    def injected_noise(self) -> float:
        """ε·σ²·d: what SGLD injects into E|Δw|² of one step. NaN without lr."""
        return self._lr * self.noise_level**2 * self.numel

    @property
    def ratio(self) -> float:
        """The mini-batches' noise over the injected, ε·(nβ)²·tr Cov(g_batch)/(4σ²d): where the noise is isotropic, the
        chain samples at temperature 1 + ratio. Inf without injected noise, NaN without lr and n_beta.
        """
        if self.injected_noise == 0:
            return math.inf
        return self.batch_noise / self.injected_noise

    @property
    def lr_limit(self) -> float:
        """The largest ε whose ratio at this batch size is at most 0.1."""
        per_lr = self.ratio / self._lr
        return math.inf if per_lr == 0 else SMALL_RATIO / per_lr

    @property
    def batch_size_limit(self) -> float:
        """The smallest m whose ratio at this ε is at most 0.1; NaN without lr and n_beta."""
        if math.isnan(self.ratio) or self.injected_noise == 0:
            return math.nan
        spread = self._lr * self._n_beta**2 * self.trace / (4 * self.noise_level**2 * self.numel)
        if spread == 0:
            return 1
        return min(math.ceil(1 / (SMALL_RATIO / spread + 1 / self.dataset_items)), self.dataset_items)

    @property
    def _lr(self) -> float:
        return math.nan if self.lr is None else self.lr

    @property
    def _n_beta(self) -> float:
        return math.nan if self.n_beta is None else self.n_beta

    def advice(self) -> str:
        """One sentence on lr and batch size."""
        if math.isnan(self.ratio):
            return "give lr and n_beta to compare the mini-batches' noise with SGLD's own"
        if math.isinf(self.ratio):
            return "no noise is injected (noise_level 0): all noise is the mini-batches'"
        said = f"one step's mini-batch noise is {self.ratio:.2g} of the injected noise (batch size {self.batch_size})"
        if self.ratio <= SMALL_RATIO:
            return f"{said}: small, the chain samples the tempered posterior and not the mini-batches"
        return (
            f"{said}: the chain runs up to {1 + self.ratio:.3g} times too hot and λ̂ is biased up; lower lr to "
            f"{self.lr_limit:.2g}, or raise batch_size to {self.batch_size_limit}"
        )


def noise_scale(
    model: nn.Module,
    dataset: Any,
    loss_fn: LossFn | None = None,
    *,
    batch_size: int = 32,
    lr: float | None = None,
    n_beta: float | None = None,
    noise_level: float = 1.0,
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
    one step gains (ε·nβ)²/4·tr Σ·(1/m − 1/n) in E|Δw|² from mini-batches, and ε·σ²·d from ξ. Two forward and two
    backward passes over the N items; no item's gradient is stored.

    Args:
        model: see ``gradient_norms``.
        dataset: as for ``sltfast.sample``; n items.
        loss_fn: see ``gradient_norms``.
        batch_size: m of SGLD's steps, and of the passes here.
        lr: ε, to compare the noises; None: only Σ and G are estimated.
        n_beta: nβ, likewise.
        noise_level: σ.
        num_items: N >= 2, at most n.
        param_masks: which coordinates move, as in ``sltfast.sample``.
        seed: which items are drawn.
        buffer_size: see ``sltfast.sample``.
        check: see ``gradient_norms``; in the first batch only.

    Returns:
        ``NoiseScale``; its ``ratio`` and ``advice()`` are about SGLD's step.

    Raises:
        ValueError: fewer than 2 items, or lr, n_beta, noise_level, batch_size or num_items out of range; otherwise as
            ``gradient_norms``.
        TypeError: as ``gradient_norms``.

    Warns:
        UserWarning: see ``gradient_norms``.

    Source: McCandlish et al. 1812.06162 (noise scale); Welling & Teh 2011 (SGLD).
    """
    for name, value, least in (("batch_size", batch_size, 1), ("num_items", num_items, 2)):
        if isinstance(value, bool) or int(value) != value or value < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    for name, number in (("lr", lr), ("n_beta", n_beta), ("noise_level", noise_level)):
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
        deviations = _Deviations(mean)
        first: Passed | None = None
        for part in parts:
            result, passed = products(items, source.fetch(part), norms=True, direction=mean, check=check and not first)
            first = first or passed
            deviations.add(result, passed.weights / mean_count)
    if first is not None:
        first.tell()
    return NoiseScale(
        *deviations.estimates(total),
        items=len(rows),
        dataset_items=total,
        numel=items.numel,
        batch_size=min(batch_size, total),
        lr=lr,
        n_beta=n_beta,
        noise_level=float(noise_level),
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
    """Of every item: s_i²·|g_i − Ḡ|² and s_i·⟨g_i − Ḡ, Ḡ⟩."""

    def __init__(self, mean: dict[str, Tensor]) -> None:
        self.mean_squared = sum(float(g.double().square().sum()) for g in mean.values())
        self.apart: list[Tensor] = []
        self.along: list[Tensor] = []

    def add(self, of: Products, shares: Tensor) -> None:
        shares = shares.double()
        self.apart.append(shares**2 * (of.squared - 2 * of.along + self.mean_squared))
        self.along.append(shares * (of.along - self.mean_squared))

    def estimates(self, total: int) -> tuple[float, float, float, float]:
        """Estimates of tr Σ and |G|² of a data set of ``total`` items, each with its standard error."""
        apart, along = torch.cat(self.apart), torch.cat(self.along)
        count = len(apart)
        unread = 1 - count / total
        trace = float(apart.sum()) / (count - 1)
        trace_se = float(apart.std()) * math.sqrt(unread / count)
        # to leading order Var |Ḡ|² = 4·Gᵀ Cov(Ḡ) G
        squared_se = 2 * float(along.std()) * math.sqrt(unread / count)
        return trace, trace_se, self.mean_squared - trace * unread / count, squared_se
