"""Columns and rows of a response matrix on common scales."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


def standardise(matrix: xr.DataArray) -> xr.DataArray:
    """Z-score every column (component): X'_tj = (X_tj − mean_t X_tj)/sd_t X_tj.

    Takes away what depends on the component alone: the two-chain estimator's factor Z_full/Z_C, without which raw
    susceptibilities of two components cannot be compared. A column that is constant, to rounding, becomes 0, with a
    warning that names it.

    Args:
        matrix: (token, component), as from ``response_matrix``.

    Returns:
        The same coordinates; every column has mean 0 and standard deviation 1 (ddof 0).

    Raises:
        TypeError, ValueError: no matrix (token, component) of finite numbers; see ``finite_values``.

    Source: Gordon et al. 2601.12703; "How to scale susceptibilities", timaeus.co, 2026.
    """
    values = finite_values(matrix)
    mean = values.mean(axis=0)
    apart = values - mean
    spread = np.sqrt((apart**2).mean(axis=0))
    # the mean is rounded by up to n·2⁻⁵³ of the largest value: what varies no more than that is constant
    constant = spread <= len(values) * np.finfo(np.float64).eps * np.abs(values).max(axis=0)
    if constant.any():
        names = matrix["component"].values[constant].tolist() if "component" in matrix.coords else constant.nonzero()[0]
        warnings.warn(
            f"the components {list(names)} are constant over all tokens: their columns become 0",
            UserWarning,
            stacklevel=2,
        )
    scaled = np.where(constant, 0.0, apart / np.where(constant, 1.0, spread))
    return _like(matrix, scaled)


def centre_rows(matrix: xr.DataArray) -> xr.DataArray:
    """Take from every row (token) its mean over components: ψ_tj = X_tj − mean_j X_tj.

    Removes the uniform mode, in which all components answer alike. After ``standardise``, ψ < 0 says that component j
    expresses the continuation, ψ > 0 that it suppresses it, more than components do on the average. The rank falls by
    one.

    Args:
        matrix: (token, component), as from ``standardise``.

    Returns:
        The same coordinates; every row sums to 0.

    Raises:
        TypeError, ValueError: no matrix (token, component) of finite numbers; see ``finite_values``.

    Source: Gordon et al. 2601.12703.
    """
    values = finite_values(matrix)
    return _like(matrix, values - values.mean(axis=1, keepdims=True))


def finite_values(matrix: Any) -> np.ndarray:
    """[tokens, components] float64 of a response matrix.

    Raises:
        TypeError: no ``xr.DataArray``.
        ValueError: other dimensions, nothing in it, or values that are not finite, by component.
    """
    if not hasattr(matrix, "dims") or not hasattr(matrix, "values"):
        raise TypeError(f"matrix must be an xr.DataArray (token, component), got {type(matrix).__name__}")
    if tuple(matrix.dims) != ("token", "component") or matrix.size == 0:
        raise ValueError(f"matrix must have dimensions (token, component) and values in it, got {dict(matrix.sizes)}")
    values = np.asarray(matrix.values, dtype=np.float64)
    missing = ~np.isfinite(values)
    if missing.any():
        columns = np.flatnonzero(missing.any(axis=0))
        names = matrix["component"].values[columns].tolist() if "component" in matrix.coords else columns.tolist()
        raise ValueError(
            f"{int(missing.any(axis=1).sum())} of {len(values)} rows are not finite in the components {names}: leave "
            "out the rows, matrix.dropna('token'), or components without a value, matrix.dropna('component', how='all')"
        )
    return values


def _like(matrix: xr.DataArray, values: np.ndarray) -> xr.DataArray:
    return matrix.copy(data=values)
