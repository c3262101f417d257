"""The learning coefficient over a grid of step sizes and temperatures, by the names of devinterp 1.3.2."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sltfast.compat.devinterp_v1.sweep_figure import figure
from sltfast.compat.devinterp_v1.utils import default_nbeta
from sltfast.extras import require

UNSTABLE_EPSILON = 1e-2


@dataclass
class SweepConfig:
    """A grid, and what is called at its points: ``llc_estimator(epsilon=…, beta=…, **llc_estimator_kwargs)``."""

    epsilon_range: Sequence[float]
    beta_range: Sequence[float]
    llc_estimator: Callable[..., Mapping[str, Any]]
    llc_estimator_kwargs: dict[str, Any]

    @classmethod
    def setup(
        cls,
        llc_estimator: Callable[..., Mapping[str, Any]],
        llc_estimator_kwargs: Mapping[str, Any],
        min_beta: float | None,
        max_beta: float | None,
        beta_samples: int,
        beta_range: Sequence[float] | None,
        min_epsilon: float | None,
        max_epsilon: float | None,
        epsilon_samples: int,
        epsilon_range: Sequence[float] | None,
        dataloader: Any = None,
    ) -> SweepConfig:
        """The grid of ``EpsilonBetaAnalyzer.configure_sweep``, whose arguments these are.

        Raises:
            ValueError: bounds that are missing, or values that are not above 0.
            TypeError: a range that is no sequence.
        """
        epsilons = _range("epsilon", epsilon_range, min_epsilon, max_epsilon, epsilon_samples)
        if beta_range is None and dataloader is not None:
            usual = default_nbeta(dataloader)
            min_beta = 1e-2 * usual if min_beta is None else min_beta
            max_beta = 1e3 * usual if max_beta is None else max_beta
        betas = _range("beta", beta_range, min_beta, max_beta, beta_samples)
        if max(epsilons) > UNSTABLE_EPSILON:
            warnings.warn(
                f"epsilon goes up to {max(epsilons):g}: above {UNSTABLE_EPSILON:g} chains are seldom stable",
                UserWarning,
                stacklevel=3,
            )
        return cls(epsilons, betas, llc_estimator, dict(llc_estimator_kwargs))


def _range(
    name: str, given: Sequence[float] | None, least: float | None, most: float | None, count: int
) -> Sequence[float]:
    if given is None:
        if least is None or most is None:
            raise ValueError(f"give min_{name} and max_{name}, or {name}_range, or the dataloader for the usual betas")
        if not 0 < least <= most:
            raise ValueError(f"min_{name} and max_{name} must be above 0 and in order, got {least!r} and {most!r}")
        values: Sequence[float] = np.geomspace(least, most, int(count)).tolist()
        return values
    if not isinstance(given, Sequence | np.ndarray):
        raise TypeError(f"{name}_range must be a list or an array of numbers, got {type(given).__name__}")
    if not len(given) or not min(given) > 0:
        raise ValueError(f"{name}_range must hold numbers above 0, got {list(given)}")
    return given


class EpsilonBetaAnalyzer:
    """Estimates at every point of a grid over step size ε and inverse temperature nβ, and a picture of them.

    Attributes:
        sweep_config: the grid; None before ``configure_sweep``.
        sweep_df: one row a point: what the estimator gave, "epsilon" and "beta"; None before ``sweep``.
        fig: the last figure.
    """

    def __init__(self) -> None:
        self.sweep_config: SweepConfig | None = None
        self.plotting_config = None
        self.sweep_df: Any = None
        self.fig: Any = None

    def configure_sweep(
        self,
        llc_estimator: Callable[..., Mapping[str, Any]],
        llc_estimator_kwargs: Mapping[str, Any],
        min_epsilon: float | None = 1e-6,
        max_epsilon: float | None = 1e-2,
        epsilon_samples: int = 8,
        epsilon_range: Sequence[float] | None = None,
        min_beta: float | None = None,
        max_beta: float | None = None,
        beta_samples: int = 8,
        beta_range: Sequence[float] | None = None,
        dataloader: Any = None,
    ) -> None:
        """Say which grid.

        Args:
            llc_estimator: ``llc_estimator(epsilon, beta, **llc_estimator_kwargs)`` -> a dict with "llc/trace" [C, D],
                as ``estimate_learning_coeff_with_summary(…, online=True)`` gives; other keys become columns.
            llc_estimator_kwargs: what it is called with.
            min_epsilon: the least ε of a geometric range,
            max_epsilon: the largest,
            epsilon_samples: and how many.
            epsilon_range: the values themselves, instead.
            min_beta: as of ε; with a ``dataloader`` a hundredth of m / ln m,
            max_beta: and a thousand times as much.
            beta_samples: how many.
            beta_range: the values themselves, instead.
            dataloader: for the usual temperatures.

        Raises:
            ValueError, TypeError: see ``SweepConfig.setup``.
        """
        self.sweep_config = SweepConfig.setup(
            llc_estimator,
            llc_estimator_kwargs,
            min_beta,
            max_beta,
            beta_samples,
            beta_range,
            min_epsilon,
            max_epsilon,
            epsilon_samples,
            epsilon_range,
            dataloader,
        )

    def sweep(self, add_to_existing: bool = False) -> None:
        """Estimate at every point; one that fails (a chain met NaN) is left out with a warning.

        Args:
            add_to_existing: keep the rows of earlier sweeps.

        Raises:
            ValueError: no grid, an estimator that gives no "llc/trace", or no point that worked.
            MissingExtra: pandas is not installed.
        """
        from tqdm.auto import tqdm

        pandas = require("pandas", extra="v1", purpose="to tabulate a sweep")
        config = self.sweep_config
        if config is None:
            raise ValueError("no grid yet: call configure_sweep() first")
        points = [(epsilon, beta) for epsilon in config.epsilon_range for beta in config.beta_range]
        found = []
        for epsilon, beta in tqdm(points, desc="points of the grid"):
            try:
                numbers = dict(config.llc_estimator(epsilon=epsilon, beta=beta, **config.llc_estimator_kwargs))
            except RuntimeError as error:
                warnings.warn(f"epsilon {epsilon:g}, beta {beta:g} is left out: {error}", UserWarning, stacklevel=2)
                continue
            if "llc/trace" not in numbers:
                raise ValueError(f"llc_estimator must give 'llc/trace', got {sorted(numbers)} (use online=True)")
            numbers["llc/trace"] = np.atleast_2d(np.asarray(numbers["llc/trace"]))
            found.append({**numbers, "epsilon": epsilon, "beta": beta})
        if not found:
            raise ValueError("the estimator failed at every point of the grid: take a smaller epsilon or beta")
        table = pandas.DataFrame(found)
        if add_to_existing and self.sweep_df is not None:
            table = pandas.concat([self.sweep_df, table], ignore_index=True)
        self.sweep_df = table

    def plot(
        self,
        true_lambda: Any = None,
        num_last_steps_to_average: int = 50,
        color: str | None = None,
        slider: str | None = None,
        slider_plane: bool = False,
        div_out_beta: bool = False,
        **kwargs: Any,
    ) -> Any:
        """λ̂ over ε and nβ, as a Plotly figure.

        Args:
            true_lambda: a value to hold it against, a value a row, or the column that has it.
            num_last_steps_to_average: draws at the end of the traces that λ̂ is the mean of.
            color: a column; None: how far λ̂ is from ``true_lambda``, or spread over mean.
            slider: a column whose values are shown one at a time.
            slider_plane: with a plane at the slider's value.
            div_out_beta: show λ̂/nβ.
            **kwargs: of ``plotly.express.scatter_3d``.

        Raises:
            ValueError: nothing was swept.
            MissingExtra: plotly is not installed.
        """
        if self.sweep_df is None or self.sweep_config is None:
            raise ValueError("nothing to plot yet: call sweep() first")
        self.fig = figure(
            self.sweep_df,
            (self.sweep_config.epsilon_range, self.sweep_config.beta_range),
            true_lambda,
            num_last_steps_to_average,
            color,
            slider,
            slider_plane,
            div_out_beta,
            kwargs,
        )
        return self.fig

    def save_fig(self, path: str) -> None:
        """Write the last figure to an HTML file.

        Raises:
            ValueError: there is none.
        """
        if self.fig is None:
            raise ValueError("no figure yet: call plot() first")
        self.fig.write_html(path)
