"""Chains: paired excess losses against the step, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sltfast.plotting.style import CHAIN_COLOURS, DEAD_COLOUR, FAINT, LLC_COLOUR, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_trace(result: xr.Dataset, *, title: str | None = None) -> Figure:
    """Paired excess losses of every chain, and what they add up to.

    Above: ℓ(w_t; b_t) − ℓ(w*; b_t) (nats) against the step t, burn-in shaded, a dead chain's last step marked.
    Below: the running estimate λ̂_T = nβ · mean over t ≤ T of the excess, per chain, from the end of burn-in on, with
    the final λ̂ ± SE as a band.

    Args:
        result: what `sltfast.llc` or `sltfast.compute_llc` returns (excess_trace, llc_mean, llc_se, alive, …).
        title: heading; by default the estimate, R̂, ESS and the verdict.

    Returns:
        The figure.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with new_figure(7.2, 4.8) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        _excess(above, result)
        _running(below, result)
        above.set_ylabel("excess loss (nats)")
        below.set_ylabel("running λ̂")
        below.set_xlabel("step")
        if int(result.sizes["chain"]) <= len(CHAIN_COLOURS):
            chains, labels = above.get_legend_handles_labels()
            figure.legend(chains, labels, ncols=len(CHAIN_COLOURS), loc="outside lower center")
        figure.suptitle(title if title is not None else _headline(result), fontsize=10.5)
    return figure


def plot_traces(results: Sequence[xr.Dataset], titles: Sequence[str], *, columns: int = 5) -> Figure:
    """Excess-loss traces of several runs side by side, each on a scale of its own.

    Args:
        results: as for `plot_trace`, at least one.
        titles: one for each.
        columns: panels in a row.

    Returns:
        The figure.

    Raises:
        ValueError: no results, or another number of titles.
        MissingExtra: matplotlib is not installed.
    """
    if not results or len(results) != len(titles):
        raise ValueError(f"one title is needed for each result, got {len(results)} and {len(titles)}")
    columns = min(columns, len(results))
    rows = -(-len(results) // columns)
    with new_figure(2.5 * columns + 0.5, 1.9 * rows + 0.6) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes, result, title in zip(grid.flat, results, titles, strict=False):
            _excess(axes, result)
            axes.set_title(title, fontsize=9)
        for axes in grid.flat[len(results) :]:
            axes.set_axis_off()
        figure.supxlabel("step", fontsize=9.5)
        figure.supylabel("excess loss (nats)", fontsize=9.5)
    return figure


def burnin_steps(result: xr.Dataset) -> int:
    """Steps that came before the first draw.

    Args:
        result: an estimate of ``sltfast.llc`` or another that keeps the sampler's settings as attrs.

    Returns:
        Their number, 0 where the result does not say.
    """
    return int(result.attrs.get("num_burnin_steps", 0))


def _excess(axes: Axes, result: xr.Dataset) -> None:
    excess = np.asarray(result["excess_trace"].values, float)
    steps = np.arange(excess.shape[1])
    burnin = burnin_steps(result)
    axes.axhline(0, color=FAINT, linewidth=1)
    if burnin:
        axes.axvspan(0, burnin, color="#eef0f3", linewidth=0, zorder=0)
    for chain, row in enumerate(excess):
        colour = CHAIN_COLOURS[chain % len(CHAIN_COLOURS)]
        axes.plot(steps, row, color=colour, linewidth=0.9, alpha=0.8, label=f"chain {chain}")
    _readable_limits(axes, excess)
    for chain in np.flatnonzero(~np.asarray(result["alive"].values, bool)).tolist():
        seen = np.flatnonzero(np.isfinite(excess[chain]))
        at = int(seen[-1]) if seen.size else 0
        height = float(np.clip(excess[chain, at], *axes.get_ylim())) if seen.size else 0.0
        axes.plot([at], [height], "x", color=DEAD_COLOUR, markersize=8, markeredgewidth=2, clip_on=False)
        axes.annotate(
            f"chain {chain} died",
            (at, height),
            xytext=(7, -9),
            textcoords="offset points",
            color=DEAD_COLOUR,
            fontsize=8,
        )


def _readable_limits(axes: Axes, excess: np.ndarray) -> None:
    """A dying chain climbs to 1e30: cut the view at a few times what the rest span."""
    finite = excess[np.isfinite(excess)]
    if not finite.size:
        return
    low, middle, high = np.quantile(finite, [0.005, 0.5, 0.97])
    room = 4 * max(high - middle, middle - low, 1e-12)
    bottom, top = max(finite.min(), middle - room), min(finite.max(), middle + room)
    axes.set_ylim(bottom - 0.06 * (top - bottom), top + 0.06 * (top - bottom))


def _running(axes: Axes, result: xr.Dataset) -> None:
    excess = np.asarray(result["excess_trace"].values, float)
    n_beta = float(result.attrs["n_beta"])
    burnin = burnin_steps(result)
    mean, se = float(result["llc_mean"]), float(result["llc_se"])
    kept = excess[:, burnin:]
    running = n_beta * np.cumsum(kept, axis=1) / np.arange(1, kept.shape[1] + 1)
    steps = np.arange(burnin, excess.shape[1])
    if burnin:
        axes.axvspan(0, burnin, color="#eef0f3", linewidth=0, zorder=0)
    if np.isfinite(se):
        axes.axhspan(mean - se, mean + se, color="#f3d9d2", linewidth=0, zorder=0)
    axes.axhline(mean, color=LLC_COLOUR, linewidth=1.2, linestyle=(0, (4, 2)))
    for chain in np.flatnonzero(np.asarray(result["alive"].values, bool)).tolist():
        row, colour = running[chain], CHAIN_COLOURS[chain % len(CHAIN_COLOURS)]
        axes.plot(steps, row, color=colour, linewidth=1.3, label=f"chain {chain}")
    _readable_limits(axes, running[:, min(5, running.shape[1] - 1) :])


def _headline(result: xr.Dataset) -> str:
    parts = [f"λ̂ = {float(result['llc_mean']):.3g} ± {float(result['llc_se']):.2g}"]
    parts += [f"R̂ = {float(result['rhat']):.3f}", f"ESS = {float(result['ess']):.0f}"]
    return "   ".join([*parts, str(result.attrs.get("verdict", ""))])
