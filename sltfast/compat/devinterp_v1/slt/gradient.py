"""Histograms of gradients draw by draw, by the name of devinterp 1.3.2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback
from sltfast.extras import require

FAINT, STRONG = 0.35, 0.85  # how opaque a bin with one gradient, and the fullest, are


class GradientDistribution(SamplerCallback):
    """Counts of gradients in bins that all parameters share; bins are added, and merged in pairs, as draws need it.

    Args:
        num_chains: C, as in ``sample``.
        num_draws: D, as in ``sample``.
        min_bins: there are this many to twice as many bins.
        param_names: parameters to look at; None: all.
        device: where the counts are kept.

    Attributes:
        grad_dists: counts by parameter, int64 [C, D, bins]; bin k is min_grad + k·bin_size and up.

    Raises:
        ValueError: (when called) a parameter has no gradient.
    """

    def __init__(
        self,
        num_chains: int,
        num_draws: int,
        min_bins: int = 20,
        param_names: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(device)
        self.num_chains, self.num_draws, self.min_bins, self.param_names = num_chains, num_draws, min_bins, param_names
        self.grad_dists: dict[str, Tensor] = {}
        self.num_bins = 0
        self.bin_size = self.min_grad = torch.zeros((), device=device)

    @property
    def max_grad(self) -> Tensor:
        """The upper edge of the last bin."""
        return self.min_grad + self.bin_size * self.num_bins

    def __call__(self, chain: int, draw: int, model: nn.Module, **kwargs: Any) -> None:
        """Count a draw."""
        self.update(chain, draw, model)

    def update(self, chain: int, draw: int, model: nn.Module) -> None:
        """Count the gradients of a model."""
        for name, parameter in model.named_parameters():
            if self.param_names is not None and name not in self.param_names:
                continue
            if parameter.grad is None:
                raise ValueError(f"{name!r} has no gradient: call this after backward, or leave it out (param_names)")
            self._count(chain, draw, name, parameter.grad.detach().flatten().to(self.device))

    def _count(self, chain: int, draw: int, name: str, grads: Tensor) -> None:
        if not self.num_bins:
            _, edges = torch.histogram(grads.cpu(), bins=self.min_bins)
            self.num_bins = self.min_bins
            self.bin_size, self.min_grad = (edges[1] - edges[0]).to(self.device), edges[0].to(self.device)
        if name not in self.grad_dists:
            shape = (self.num_chains, self.num_draws, self.num_bins)
            self.grad_dists[name] = torch.zeros(shape, dtype=torch.int64, device=self.device)
        below = math.ceil(max(0.0, float((self.min_grad - grads.min()) / self.bin_size)))
        above = math.ceil(max(0.0, float((grads.max() - self.max_grad) / self.bin_size)))
        self.grad_dists = {key: nn.functional.pad(counts, (below, above)) for key, counts in self.grad_dists.items()}
        self.min_grad = self.min_grad - below * self.bin_size
        self.num_bins += below + above
        while self.num_bins > 2 * self.min_bins:
            self._merge()
        bins = ((grads - self.min_grad) / self.bin_size).floor().long().clamp(0, self.num_bins - 1)
        self.grad_dists[name][chain, draw] += torch.bincount(bins, minlength=self.num_bins)

    def _merge(self) -> None:
        """Make one bin of two; an odd last one stays alone."""
        odd = self.num_bins % 2
        self.grad_dists = {
            name: nn.functional.pad(counts, (0, odd)).unflatten(2, (-1, 2)).sum(3)
            for name, counts in self.grad_dists.items()
        }
        self.num_bins, self.bin_size = (self.num_bins + odd) // 2, self.bin_size * 2

    def get_results(self) -> dict[str, Any]:
        """After a run: "gradient/distributions", ``grad_dists``."""
        return {"gradient/distributions": self.grad_dists}

    def plot(self, param_name: str, color: str = "blue", plot_zero: bool = True, chain: int | None = None) -> None:
        """Show the histograms of a parameter's gradients over the draws.

        Args:
            param_name: which.
            color: of the bins.
            plot_zero: draw a line at 0.
            chain: one chain; None: all together.

        Raises:
            KeyError: no gradients of that name were counted.
            MissingExtra: matplotlib is not installed.
        """
        plt = require("matplotlib.pyplot", extra="plots", purpose="to plot gradients")
        colors = require("matplotlib.colors", extra="plots", purpose="to plot gradients")
        if param_name not in self.grad_dists:
            raise KeyError(f"no gradients of {param_name!r} were counted, only of {sorted(self.grad_dists)}")
        counts = self.grad_dists[param_name]
        seen = (counts.sum(0) if chain is None else counts[chain]).cpu()
        low, high = float(self.min_grad), float(self.max_grad)
        alpha = torch.where(seen > 0, seen / seen.max().clamp(min=1) * (STRONG - FAINT) + FAINT, 0.0)
        pixels = torch.tensor(colors.to_rgba(color)).repeat(self.num_bins, self.num_draws, 1)
        pixels[..., 3] = alpha.T
        _, axes = plt.subplots()
        axes.imshow(pixels.numpy(), origin="lower", aspect="auto", extent=(0, self.num_draws, low, high))
        axes.set_ylim(min(low, -high), max(high, -low))
        if plot_zero:
            axes.axhline(0, color="black", linestyle=":", linewidth=1)
        axes.set(xlabel="Sampler steps", ylabel="gradient distribution", title=f"Gradients of {param_name}")
        plt.show()
