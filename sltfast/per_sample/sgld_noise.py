"""What the noise of mini-batch gradients is to SGLD, beside the noise that it means to inject."""

from __future__ import annotations

import math
from dataclasses import dataclass

SMALL_RATIO = 0.1
"""Mini-batch noise below this part of the injected noise is called small: the chain runs at most 10 % too hot."""


@dataclass(frozen=True)
class NoiseScale:
    """How noisy mini-batch gradients are at w, beside the gradient and beside SGLD's own noise.

    Attributes:
        trace: tr Σ, of the covariance of one item's gradient (unbiased); (nats per weight)².
        trace_se: its standard error.
        variance_along_mean: uᵀΣu with u the direction of the items' mean gradient. Where that mean is mostly noise,
            near a minimum, u leans to the large directions of Σ: about tr Σ²/tr Σ.
        gradient_squared: |G|² of the data set's gradient (unbiased, so it may come out negative near a minimum).
        gradient_squared_se: its standard error.
        items: N, items read.
        dataset_items: n, items of the data set.
        numel: d, coordinates that move.
        batch_size: m, items of a step.
        lr: ε, or None.
        n_beta: nβ, or None.
        noise_level: σ.
        localization: γ.
    """

    trace: float
    trace_se: float
    variance_along_mean: float
    gradient_squared: float
    gradient_squared_se: float
    items: int
    dataset_items: int
    numel: int
    batch_size: int
    lr: float | None
    n_beta: float | None
    noise_level: float
    localization: float = 0.0

    @property
    def noise_scale(self) -> float:
        """B = tr Σ / |G|², in items: the batch size at which a gradient is as much noise as signal; inf where G is not
        told from 0.
        """
        return self.trace / self.gradient_squared if self.gradient_squared > 0 else math.inf

    @property
    def batch_trace(self) -> float:
        """Trace of Cov(g_batch) = Σ·(1/m − 1/n), the covariance of a mean over m of n items without replacement."""
        return self.trace * self._of_a_batch

    @property
    def signal_to_noise(self) -> float:
        """|G|²/tr Cov(g_batch) = m/B·1/(1 − m/n): a mini-batch gradient is mostly noise below 1.

        0 where G is not told from 0, as at a minimum; inf where one batch is the whole data set.
        """
        signal = max(self.gradient_squared, 0.0)
        return signal / self.batch_trace if self.batch_trace > 0 else math.inf

    @property
    def localization_pull(self) -> float:
        """(ε/2)²·γ·d: E|(ε/2)·γ(w − w*)|² where only γ holds the weights, Var w = 1/γ; curvature makes it less. NaN
        without lr.
        """
        return (self._lr / 2) ** 2 * self.localization * self.numel

    @property
    def ratio_to_localization(self) -> float:
        """The mini-batches' noise over the pull back to w*, (nβ)²·tr Cov(g_batch)/(γ·d), both in one step's |Δw|².

        Inf without localization, NaN without lr and n_beta.
        """
        if self.localization == 0:
            return math.nan if math.isnan(self.batch_noise) else math.inf
        return self.batch_noise / self.localization_pull

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
        """The mini-batches' noise over the injected, ε·(nβ)²·tr Cov(g_batch)/(4σ²d): the mean over all coordinates.

        In a direction where the ratio is r the chain samples at temperature 1 + r. Inf without injected noise, NaN
        without lr and n_beta.
        """
        return self._ratio(self.trace / self.numel)

    @property
    def ratio_along_mean(self) -> float:
        """The same in the direction u of the mean gradient, ε·(nβ)²·uᵀ Cov(g_batch) u/(4σ²)."""
        return self._ratio(self.variance_along_mean)

    @property
    def lr_limit(self) -> float:
        """The largest ε at which both ratios are at most 0.1 with this batch size; NaN without n_beta."""
        per_lr = self._per_lr(self._largest) * self._of_a_batch
        return math.inf if per_lr == 0 else SMALL_RATIO / per_lr

    @property
    def batch_size_limit(self) -> float:
        """The smallest m at which both ratios are at most 0.1 with this ε; NaN without lr and n_beta."""
        one_item = self._lr * self._per_lr(self._largest)
        if math.isnan(one_item) or math.isinf(one_item):
            return one_item if math.isnan(one_item) else self.dataset_items
        return math.ceil(1 / (SMALL_RATIO / one_item + 1 / self.dataset_items)) if one_item else 1

    @property
    def _of_a_batch(self) -> float:
        return 1 / self.batch_size - 1 / self.dataset_items

    @property
    def _largest(self) -> float:
        return max(self.trace / self.numel, self.variance_along_mean)

    def _per_lr(self, variance: float) -> float:
        """The ratio of batches of one, per unit of ε, in a direction where g_i has this variance."""
        if self.noise_level == 0:
            return math.inf
        return self._n_beta**2 * variance / (4 * self.noise_level**2)

    def _ratio(self, variance: float) -> float:
        return self._lr * self._per_lr(variance) * self._of_a_batch

    @property
    def _lr(self) -> float:
        return math.nan if self.lr is None else self.lr

    @property
    def _n_beta(self) -> float:
        return math.nan if self.n_beta is None else self.n_beta

    def advice(self) -> str:
        """One sentence on lr and batch size."""
        if self.lr is None or self.n_beta is None:
            return "give lr and n_beta to compare the mini-batches' noise with SGLD's own"
        if self.noise_level == 0:
            return "no noise is injected (noise_level 0): all noise is the mini-batches'"
        along = self.ratio_along_mean
        said = (
            f"mini-batches of {self.batch_size} add {self.ratio:.2g} of the injected noise on average over the "
            f"coordinates, and {along:.2g} of it along the mean gradient"
        )
        if max(self.ratio, along) <= SMALL_RATIO:
            return f"{said}: small"
        return (
            f"{said}: there the chain runs up to {1 + max(self.ratio, along):.3g} times too hot, and λ̂ is biased up; "
            f"lower lr to {self.lr_limit:.2g}, or raise batch_size to {self.batch_size_limit:.0f}"
        )
