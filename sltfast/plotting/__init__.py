"""Figures of what the estimators return; matplotlib is imported on first use and pyplot never.

Each function returns a `matplotlib.figure.Figure` that belongs to nobody: save it with `save`, show it in a notebook.
"""

from sltfast.plotting.convergence import plot_autocorrelation, plot_pairs
from sltfast.plotting.heatmap import sweep_heatmap
from sltfast.plotting.influence import influence_matrix
from sltfast.plotting.style import save
from sltfast.plotting.traces import burnin_steps, plot_trace, plot_traces
from sltfast.plotting.training import plot_checkpoints, plot_llc_over_training

__all__ = [
    "burnin_steps",
    "influence_matrix",
    "plot_autocorrelation",
    "plot_checkpoints",
    "plot_llc_over_training",
    "plot_pairs",
    "plot_trace",
    "plot_traces",
    "save",
    "sweep_heatmap",
]
