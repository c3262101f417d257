"""Principal components of a response matrix, and whitening by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.analysis.preprocessing import finite_values
from sltfast.extras import require

if TYPE_CHECKING:
    import xarray as xr


def pca(matrix: xr.DataArray, num_components: int, whiten: bool = False) -> xr.Dataset:
    """Principal components of the rows: X − X̄ = S·V, S the scores of tokens, V orthonormal loadings of components.

    Explained variances are s_k²/(n − 1) of the singular values s_k of the centred matrix. Whitened scores have variance
    1 in every direction, S_k/√variance_k, so that weak modes count as much as strong ones. Signs are fixed: the largest
    loading of each is positive.

    Args:
        matrix: (token, component), as from ``centre_rows``.
        num_components: how many to keep.
        whiten: scale the scores to variance 1.

    Returns:
        ``xr.Dataset``: ``scores`` (token, pc) with the tokens' coordinates, ``loadings`` (pc, component),
        ``explained_variance`` and ``explained_variance_ratio`` (pc), ``mean`` (component); pc counts from 1.
        X = scores·loadings + mean, where all are kept and not whitened.

    Raises:
        TypeError, ValueError: no matrix (token, component) of finite numbers, fewer than two tokens, or more components
            than its rank (``whiten``) or its smaller side holds.
        MissingExtra: scikit-learn is not installed.

    Source: Baker et al. 2504.18274 (PCA of the response matrix); "Spectroscopy at scale", timaeus.co, 2026 (whitening).
    """
    values = finite_values(matrix)
    least = min(values.shape)
    if isinstance(num_components, bool) or not isinstance(num_components, int) or not 1 <= num_components <= least:
        raise ValueError(f"num_components must be a whole number in 1 … {least}, got {num_components!r}")
    fit = _fit(values, num_components, whiten)
    if whiten and (rank := _rank(fit, values)) < num_components:
        raise ValueError(
            f"the matrix has rank {rank} after centring and cannot be whitened in {num_components} directions: give "
            f"num_components <= {rank} (centring the rows takes away one)"
        )
    return _components(matrix, values, fit, num_components, whiten)


def whiten(matrix: xr.DataArray, num_components: int | None = None) -> xr.DataArray:
    """PCA-whitened rows: scores of variance 1 in each of the leading directions.

    Args:
        matrix: (token, component), as from ``centre_rows``.
        num_components: directions to keep; None: as many as the matrix, its columns centred, has rank.

    Returns:
        ``xr.DataArray`` (token, pc), uncorrelated columns of mean 0 and variance 1 (ddof 1).

    Raises:
        TypeError, ValueError: as ``pca``; a matrix of equal rows, which has nothing to whiten.
        MissingExtra: scikit-learn is not installed.

    Source: "Spectroscopy at scale", timaeus.co, 2026.
    """
    if num_components is not None:
        return pca(matrix, num_components, whiten=True)["scores"]
    values = finite_values(matrix)
    fit = _fit(values, min(values.shape), True)
    rank = _rank(fit, values)
    if rank == 0:
        raise ValueError("all rows of the matrix are equal: there is nothing to whiten")
    return _components(matrix, values, fit, rank, True)["scores"]


def _fit(values: np.ndarray, num_components: int, whiten: bool) -> Any:
    """scikit-learn's PCA of the rows; its own scores are not asked for, so that signs can be fixed here."""
    decomposition = require("sklearn.decomposition", extra="analysis", purpose="for principal components")
    if len(values) < 2:
        raise ValueError("principal components need at least two tokens, got 1")
    # whitening divides by small variances, which a decomposition of the covariance matrix would have lost
    solver = "full" if whiten else "auto"
    with np.errstate(invalid="ignore"):  # of equal rows scikit-learn makes shares 0/0
        return decomposition.PCA(num_components, svd_solver=solver, random_state=0).fit(values)


def _components(matrix: xr.DataArray, values: np.ndarray, fit: Any, kept: int, whiten: bool) -> xr.Dataset:
    """The leading ``kept`` components of a fit, labelled."""
    import xarray as xr

    variance, loadings = np.asarray(fit.explained_variance_)[:kept], np.asarray(fit.components_)[:kept]
    signs = np.sign(np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1))
    loadings = loadings * signs
    scores = (values - fit.mean_) @ loadings.T
    if whiten:
        scores = scores / np.sqrt(variance)
    total = float(values.var(axis=0, ddof=1).sum())
    of_token = {name: coord for name, coord in matrix.coords.items() if coord.dims == ("token",)}
    of_component = {name: coord for name, coord in matrix.coords.items() if coord.dims == ("component",)}
    return xr.Dataset(
        {
            "scores": (("token", "pc"), scores),
            "loadings": (("pc", "component"), loadings),
            "explained_variance": ("pc", variance),
            "explained_variance_ratio": ("pc", variance / total if total > 0 else np.zeros_like(variance)),
            "mean": ("component", fit.mean_),
        },
        coords={"pc": np.arange(1, kept + 1), **of_token, **of_component},
        attrs={"whitened": int(whiten)},
    )


def _rank(fit: Any, values: np.ndarray) -> int:
    """How many singular values of a fit are more than rounding."""
    return int((np.asarray(fit.singular_values_) > _floor(values)).sum())


def _floor(values: np.ndarray) -> float:
    """What rounding alone makes of a singular value that is 0: max(shape)·2⁻⁵²·|X|."""
    return max(values.shape) * float(np.finfo(np.float64).eps) * float(np.linalg.norm(values))
