"""The picture of a sweep: learning coefficients over step size and temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sltfast.compat.defects import warn_once
from sltfast.extras import require

SPREAD_COLOURS, DELTA_COLOURS = [0.0, 0.15], [-4.0, 4.0]
LEAST_SHOWN = 1e-2


def figure(
    table: Any,
    grid: tuple[Sequence[float], Sequence[float]],
    true_lambda: Any,
    last: int,
    color: str | None,
    slider: str | None,
    slider_plane: bool,
    div_out_beta: bool,
    options: Mapping[str, Any],
) -> Any:
    """See ``EpsilonBetaAnalyzer.plot``; ``grid``: (ε, nβ) of the planes."""
    express = require("plotly.express", extra="v1", purpose="to draw a sweep")
    warn_once("v1: the last steps of a sweep")
    table = summarised(table, true_lambda, last)
    height = "llc_div_beta" if div_out_beta else "llc/final"
    colours: list[float] | None = None
    if color is None:
        color = "llc/std_over_mean" if true_lambda is None else "log_lambda_delta"
        colours = None if true_lambda is None else DELTA_COLOURS
    if color == "llc/std_over_mean":
        colours = SPREAD_COLOURS
    elif slider is not None:
        colours = [table[color].min(), table[color].max()]
    given: dict[str, Any] = {
        "title": "LLC / beta vs. epsilon and beta" if div_out_beta else "LLC vs. epsilon and beta",
        "z": height,
        "log_x": True,
        "log_y": True,
        "log_z": True,
        **({} if colours is None else {"range_color": colours}),
        **options,
    }
    if slider is not None:
        return _with_slider(express, table, grid, color, slider, slider_plane, height, given)
    drawn = express.scatter_3d(table, x="epsilon", y="beta", color=color, **given)
    if isinstance(true_lambda, int | float):
        drawn.add_trace(_plane(grid, true_lambda, f"RLCT={true_lambda}"))
    return drawn


def summarised(table: Any, true_lambda: Any, last: int) -> Any:
    """The table with λ̂ of the last draws ("llc/final"), "llc/std_over_mean", "llc_div_beta" and distances."""
    table = table.copy()
    ends = [np.asarray(trace)[:, -last:] for trace in table["llc/trace"]]
    table["llc/final"] = [float(end.mean()) for end in ends]
    table["llc/std_over_mean"] = [float(end.std() / end.mean()) for end in ends]
    table["llc_div_beta"] = table["llc/final"] / table["beta"]
    if true_lambda is None:
        return table
    table["true_lambda"] = table[true_lambda] if isinstance(true_lambda, str) else true_lambda
    delta = table["lambda_delta"] = table["llc/final"] - table["true_lambda"]
    with np.errstate(divide="ignore"):
        table["log_true_lambda"] = np.log10(np.abs(table["true_lambda"]))
        table["log_lambda_hat"] = np.log10(np.abs(table["llc/final"]))
        table["log_lambda_delta"] = np.log10(np.abs(delta)) * np.sign(delta)
    table["log_delta_lambda"] = table["log_lambda_hat"] - table["log_true_lambda"]
    return table


def _plane(grid: tuple[Sequence[float], Sequence[float]], height: float, name: str) -> Any:
    objects = require("plotly.graph_objects", extra="v1", purpose="to draw a sweep")
    epsilons, betas = (np.asarray(axis) for axis in grid)
    level = np.full((len(betas), len(epsilons)), float(height))
    return objects.Surface(x=epsilons, y=betas, z=level, surfacecolor=level, opacity=0.4, showscale=False, name=name)


def _with_slider(
    express: Any,
    table: Any,
    grid: tuple[Sequence[float], Sequence[float]],
    color: str,
    slider: str,
    slider_plane: bool,
    height: str,
    given: dict[str, Any],
) -> Any:
    ranges = {
        "x": [table["epsilon"].min() / 2, table["epsilon"].max() * 1.5],
        "y": [table["beta"].min(), table["beta"].max()],
        "z": [max(LEAST_SHOWN, table[height].min()), max(LEAST_SHOWN, table[height].max())],
    }
    given = {**given, **{f"range_{axis}": bounds for axis, bounds in ranges.items()}}
    drawn, steps = None, []
    values = sorted(table[slider].unique())
    for value in values:
        part = express.scatter_3d(table[table[slider] == value], x="epsilon", y="beta", color=color, **given)
        if drawn is None:
            drawn = part
        else:
            drawn.add_traces(part.data)
        if slider_plane:
            drawn.add_trace(_plane(grid, value, f"{slider}={value}"))
    assert drawn is not None
    each = len(drawn.data) // len(values)
    for index, value in enumerate(values):
        shown = [place // each == index for place in range(len(drawn.data))]
        title = f"Local learning coefficient vs. epsilon and beta ({slider} = {value})"
        steps.append({"method": "update", "args": [{"visible": shown}, {"title": title}], "label": str(value)})
    for place, trace in enumerate(drawn.data):
        trace.visible = place < each
    drawn.update_layout(
        title="Local learning coefficient vs. epsilon and beta",
        sliders=[{"active": 0, "currentvalue": {"prefix": f"{slider}: "}, "pad": {"t": 50}, "steps": steps}],
        scene={
            "xaxis_title": "epsilon",
            "yaxis_title": "beta",
            "zaxis_title": "lambdahat / beta" if height == "llc_div_beta" else "lambdahat",
            "aspectmode": "manual",
            "aspectratio": {"x": 0.7, "y": 1.2, "z": 1},
        },
    )
    return drawn
