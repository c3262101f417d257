"""How well chains mix: what they remember, and whether they agree on several observables at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.diagnostics import autocorrelation, trace_diagnostics
from sltfast.diagnostics.diagnose import SAMPLED, traces_of
from sltfast.plotting.style import CHAIN_COLOURS, FAINT, INK, LLC_COLOUR, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST = 5.0  # of τ: what is drawn of an autocorrelation; beyond it there is noise


def plot_autocorrelation(
    samples: xr.DataTree, *, max_lag: int | None = None, columns: int = 4, title: str | None = None
) -> Figure:
    """The autocorrelation of a run's loss and of every observable, chain by chain and pooled.

    A panel each: ρ_t against the lag in steps; thin lines are single chains (about their own means), the thick one is
    pooled (`sltfast.diagnostics.autocorrelation`: chains that disagree keep it up). Marked is the lag of the suggested
    `num_steps_bw_draws`, and shaded what independent draws would stay in, ± 2/√N.

    Args:
        samples: as for `sltfast.diagnostics.diagnose`.
        max_lag: last lag in entries of a trace (steps of the loss, draws of an observable); by default five
            autocorrelation times, at least 10 where there are as many.
        columns: panels in a row.
        title: heading; none by default.

    Returns:
        The figure.

    Raises:
        ValueError: as `diagnose`; a lag that a trace does not have.
        MissingExtra: matplotlib is not installed.
    """
    traces = [trace for trace in traces_of(samples) if trace.values.shape[1] >= 4]
    if not traces:
        raise ValueError("no trace of the samples has 4 entries after burn-in: there is no autocorrelation to draw")
    across = min(columns, len(traces))
    rows = -(-len(traces) // across)
    with new_figure(2.9 * across + 0.4, 2.2 * rows + 0.5) as figure:
        grid = figure.subplots(rows, across, squeeze=False, sharey=True)
        for axes, trace in zip(grid.flat, traces, strict=False):
            _panel(axes, trace.values, trace.reading.spacing, max_lag)
            axes.set_title(trace.name)
        for axes in grid.flat[len(traces) :]:
            axes.set_axis_off()
        figure.supxlabel("lag (steps)", fontsize=9.5)
        figure.supylabel("autocorrelation ρ", fontsize=9.5)
        if title is not None:
            figure.suptitle(title, fontsize=10.5)
    return figure


def _panel(axes: Axes, values: np.ndarray, spacing: int, max_lag: int | None) -> None:
    found = trace_diagnostics(values, ranks=False)
    last = values.shape[1] - 1
    if max_lag is None:
        memory = 0.0 if np.isnan(found.tau) else LONGEST * float(found.tau)
        last = min(last, max(10, int(np.ceil(memory))))
    else:
        last = max_lag
    lags = spacing * np.arange(last + 1)
    band = 2 / np.sqrt(values.size)
    axes.axhspan(-band, band, color="#eef0f3", linewidth=0, zorder=0)
    axes.axhline(0, color=FAINT, linewidth=1)
    for chain, row in enumerate(values):
        colour = CHAIN_COLOURS[chain % len(CHAIN_COLOURS)]
        axes.plot(
            lags, autocorrelation(row[None], last), color=colour, linewidth=0.8, alpha=0.6, label=f"chain {chain}"
        )
    axes.plot(lags, autocorrelation(values, last), color=INK, linewidth=1.8, label="pooled")
    steps = float(found.suggested_steps(spacing))
    if not np.isnan(steps):
        axes.axvline(steps, color=LLC_COLOUR, linewidth=1.2, linestyle=(0, (4, 2)))
        said = f"τ = {spacing * float(found.tau):.3g}\n{steps:.0f} steps"
        axes.text(0.97, 0.95, said, transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_xlim(0, max(1, lags[-1]))


def plot_pairs(samples: xr.DataTree, observables: Sequence[str] | None = None, *, title: str | None = None) -> Figure:
    """Mean losses of observables against each other, a point for each draw, a colour for each chain.

    Below the diagonal a panel for each pair: clouds that lie apart are chains that have not mixed, a slope is the
    covariance that susceptibilities and influence are made of. On the diagonal each observable's histogram, by chain. A
    cross marks the chain's mean. Losses are less those at w*, where the run recorded them (nats).

    Args:
        samples: as for `sltfast.diagnostics.diagnose`.
        observables: names, at least two; all by default.
        title: heading; none by default.

    Returns:
        The figure.

    Raises:
        ValueError: fewer than two observables, or a name that the samples do not have.
        MissingExtra: matplotlib is not installed.
    """
    traces: dict[str, Any] = {trace.name: trace.values for trace in traces_of(samples) if trace.name != SAMPLED}
    names = list(traces) if observables is None else list(observables)
    unknown = [name for name in names if name not in traces]
    if unknown or len(names) < 2:
        raise ValueError(f"observables must be at least two of {list(traces)}, got {names}")
    size = len(names)
    with new_figure(1.9 * size + 0.6, 1.8 * size + 0.6) as figure:
        grid = figure.subplots(size, size, squeeze=False, sharex="col")
        for row, below in enumerate(names):
            for column, beside in enumerate(names):
                axes = grid[row, column]
                if column > row:
                    axes.set_axis_off()
                elif column == row:
                    _histogram(axes, traces[below])
                else:
                    _cloud(axes, traces[beside], traces[below])
                if row == size - 1:
                    axes.set_xlabel(beside)
                if column == 0 and row:
                    axes.set_ylabel(below)
        if len(traces[names[0]]) <= len(CHAIN_COLOURS):
            chains, labels = grid[1, 0].get_legend_handles_labels()
            figure.legend(chains, labels, loc="upper right")
        if title is not None:
            figure.suptitle(title, fontsize=10.5)
    return figure


def _cloud(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    entries = min(x.shape[1], y.shape[1])
    for chain, (across, up) in enumerate(zip(x[:, :entries], y[:, :entries], strict=True)):
        colour = CHAIN_COLOURS[chain % len(CHAIN_COLOURS)]
        axes.plot(across, up, ".", color=colour, markersize=3, alpha=0.5, label=f"chain {chain}")
        axes.plot([across.mean()], [up.mean()], "P", color=colour, markersize=7, markeredgecolor="white")


def _histogram(axes: Axes, values: np.ndarray) -> None:
    edges = np.histogram_bin_edges(values, bins=20)
    for chain, row in enumerate(values):
        counts, _ = np.histogram(row, edges)
        axes.stairs(counts, edges, color=CHAIN_COLOURS[chain % len(CHAIN_COLOURS)], linewidth=1.1)
    axes.set_yticks([])
