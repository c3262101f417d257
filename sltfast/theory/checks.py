"""Argument checks of the closed forms: each returns the checked value or raises a ValueError."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MEND = {"n_beta": " (use sltfast.default_nbeta(n))"}


def at_least_zero(name: str, value: float) -> float:
    """The value as a float, finite and >= 0."""
    number = float(value)
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"{name} must be finite and >= 0, got {value!r}{_MEND.get(name, '')}")
    return number


def above_zero(name: str, value: float) -> float:
    """The value as a float, finite and > 0."""
    number = float(value)
    if not 0.0 < number < float("inf"):
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")
    return number


def curvatures(h: ArrayLike) -> NDArray[np.float64]:
    """The Hessian eigenvalues as [d] float64, finite and >= 0, at least one."""
    values = np.atleast_1d(np.asarray(h, dtype=np.float64))
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"h must be a non-empty vector of Hessian eigenvalues, got shape {values.shape}")
    if not np.all((values >= 0) & np.isfinite(values)):
        worst = values[~((values >= 0) & np.isfinite(values))][0]
        raise ValueError(f"h must be finite and >= 0 (w* is a minimum), got {worst!r}")
    return values
