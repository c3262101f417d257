"""A learning coefficient along training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sltfast.plotting.style import FAINT, LLC_COLOUR, LOSS_COLOUR, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def plot_llc_over_training(
    steps: Sequence[float],
    losses: Sequence[float],
    llcs: Sequence[float],
    ses: Sequence[float],
    *,
    curve: tuple[Sequence[float], Sequence[float]] | None = None,
    trusted: Sequence[bool] | None = None,
) -> Figure:
    """The training loss and λ̂ ± SE over training, one above the other on the same logarithmic axis of steps.

    Args:
        steps: training step of each checkpoint, >= 0.
        losses: loss at each checkpoint (nats per token).
        llcs: λ̂ at each checkpoint.
        ses: its standard error; drawn as ± 1 SE.
        curve: (steps, losses) of the whole run, drawn behind the checkpoints' losses.
        trusted: False marks an estimate that did not converge (drawn hollow).

    Returns:
        The figure.

    Raises:
        ValueError: sequences of different lengths, or a step that is not positive.
        MissingExtra: matplotlib is not installed.
    """
    lengths = {len(steps), len(losses), len(llcs), len(ses)}
    if len(lengths) != 1 or not len(steps):
        raise ValueError(f"steps, losses, llcs and ses must have one length >= 1, got {sorted(lengths)}")
    if min(steps) < 0:
        raise ValueError(f"steps must be >= 0 (the axis is logarithmic), got {min(steps)}")
    with new_figure(6.6, 5.0) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        if curve is not None:
            above.plot(curve[0], curve[1], color=FAINT, linewidth=1.0, label="mini-batches")
        above.plot(steps, losses, "o-", color=LOSS_COLOUR, markersize=4.5, label="checkpoints")
        if curve is not None:
            above.legend(loc="upper right")
        above.set_ylabel("training loss (nats / token)")
        below.axhline(0, color=FAINT, linewidth=1)
        below.errorbar(steps, llcs, yerr=ses, fmt="-", color=LLC_COLOUR, capsize=3, label="λ̂ ± SE")
        sure = np.ones(len(steps), bool) if trusted is None else np.asarray(trusted, bool)
        at, values = np.asarray(steps, float), np.asarray(llcs, float)
        below.plot(at[sure], values[sure], "o", color=LLC_COLOUR, markersize=5)
        if not sure.all():
            below.plot(
                at[~sure],
                values[~sure],
                "o",
                color=LLC_COLOUR,
                markerfacecolor="white",
                markersize=5,
                label="not converged",
            )
        below.legend(loc="upper left")
        below.set_ylabel("local learning coefficient λ̂")
        below.set_xlabel("training step")
        first = min((step for step in steps if step > 0), default=1)
        if min(steps) > 0:
            below.set_xscale("log")
            below.set_xlim(left=first / 3)
        else:
            below.set_xscale("symlog", linthresh=first)  # the start of training has a place to the left of log's first
    return figure


def plot_checkpoints(result: xr.Dataset) -> Figure:
    """Loss and λ̂ ± 1 SE at every checkpoint; what did not converge is drawn hollow.

    Args:
        result: what `sltfast.over_checkpoints` returns.

    Returns:
        The figure.

    Raises:
        ValueError: a result without a dimension "step" of checkpoints, or a negative step.
        MissingExtra: matplotlib is not installed.
    """
    if "llc_mean" not in result or result["llc_mean"].dims != ("step",):
        raise ValueError("the result must be that of sltfast.over_checkpoints: it has no llc_mean over step")
    figure = plot_llc_over_training(
        result["step"].values.tolist(),
        result["init_loss"].values.tolist(),
        result["llc_mean"].values.tolist(),
        result["llc_se"].values.tolist(),
        trusted=(result["verdict"].values == "converged").tolist(),
    )
    figure.axes[0].set_ylabel("loss at w* (nats)")
    return figure
