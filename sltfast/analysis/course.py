"""When a quantity that is followed over training changes sign, and where it peaks in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Course:
    """Lobes of a course in time: runs of one sign.

    Attributes:
        sign_changes: [L − 1] times at which one lobe ends and the next begins, in the unit of ``times``.
        peak_times: [L] where each lobe is farthest from 0.
        peaks: [L] the value there, with its sign.
    """

    sign_changes: NDArray[np.float64]
    peak_times: NDArray[np.float64]
    peaks: NDArray[np.float64]


def course(times: Any, values: Any, errors: Any = 0.0, *, sigmas: float = 2.0) -> Course:
    """Sign changes and peaks of an estimate over training, those that its errors allow to speak of.

    By the law of total covariance, an influence mixed of two phases U and V of the posterior is

        Cov = π_U·Cov_U + π_V·Cov_V + π_U·π_V·(μ_iU − μ_iV)(μ_jU − μ_jV):

    it peaks amid a transition, π_U = ½, and may change sign between two. A point counts where |value| > sigmas·error;
    a sign change lies on the line from the last point of one lobe to the first of the next, a peak at the top of the
    parabola through a lobe's largest point and its two neighbours in the lobe (at the lobe's end: at that point).

    Args:
        times: [T] ascending, of the checkpoints.
        values: [T], NaN where there is none.
        errors: [T] or one number, standard errors >= 0.
        sigmas: how many of them a value must be away from 0, >= 0.

    Returns:
        The lobes in order; none where no point counts.

    Raises:
        ValueError: times that do not ascend, shapes that differ, an error or ``sigmas`` below 0.

    Source: Lee et al. 2510.12071.
    """
    t, y = np.asarray(times, np.float64), np.asarray(values, np.float64)
    if t.ndim != 1 or y.shape != t.shape:
        raise ValueError(f"times and values must be [T] both, got shapes {t.shape} and {y.shape}")
    if not (np.isfinite(t).all() and (np.diff(t) > 0).all()):
        raise ValueError(f"times must be finite and ascend, got {t.tolist()}")
    e = np.asarray(errors, np.float64)
    if e.shape not in ((), t.shape) or (e < 0).any():
        raise ValueError(f"errors must be one number or [{len(t)}], none below 0, got shape {e.shape}")
    if not sigmas >= 0:
        raise ValueError(f"sigmas must be >= 0, got {sigmas!r}")
    counts = np.abs(y) > sigmas * e  # False where either is NaN
    t, y = t[counts], y[counts]
    ends = np.flatnonzero(np.sign(y[1:]) != np.sign(y[:-1]))
    crossings = t[ends] - y[ends] * (t[ends + 1] - t[ends]) / (y[ends + 1] - y[ends])
    lobes = [part for part in np.split(np.arange(len(t)), ends + 1) if len(part)]
    tops = np.array([_top(t[part], y[part]) for part in lobes]).reshape(-1, 2)
    return Course(crossings, tops[:, 0], tops[:, 1])


def _top(t: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Where a lobe is farthest from 0, and its value there."""
    at = int(np.argmax(np.abs(y)))
    if at in (0, len(y) - 1):
        return float(t[at]), float(y[at])
    (before, after), (fall, rise) = t[[at - 1, at + 1]] - t[at], y[[at - 1, at + 1]] - y[at]
    bend = (rise / after - fall / before) / (after - before)
    if bend == 0:  # three points of one height
        return float(t[at]), float(y[at])
    slope = fall / before - bend * before
    return float(t[at] - slope / (2 * bend)), float(y[at] - slope**2 / (4 * bend))
