"""The graph of nearest neighbours of points, symmetric and without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sltfast.extras import require

if TYPE_CHECKING:
    import xarray as xr

BLOCK = 2048  # rows whose distances to all points a GPU holds at once


def nearest_neighbours(
    points: np.ndarray | xr.DataArray, k: int = 45, device: str | torch.device | None = None
) -> np.ndarray:
    """The k nearest other points of each, by Euclidean distance, exactly.

    Args:
        points: [n, d], a row a point; or (token, …), as from ``centre_rows`` or ``whiten``.
        k: neighbours of a point; a point is none of its own, even where another coincides with it.
        device: None or "cpu": scikit-learn's blocked search on all cores; else torch's, in float32 on that device.

    Returns:
        int64 [n, k], nearest first.

    Raises:
        TypeError, ValueError: no finite [n, d], or k not in 1 … n − 1.
        MissingExtra: scikit-learn is not installed.
    """
    values = finite_points(points)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < len(values):
        raise ValueError(f"k must be a whole number in 1 … {len(values) - 1} (points less one), got {k!r}")
    if device is not None and torch.device(device).type != "cpu":
        found = _on_device(values, k + 1, torch.device(device))
    else:
        neighbours = require("sklearn.neighbors", extra="analysis", purpose="to find nearest neighbours")
        # float32 halves what is read; brute force, as trees do not help beyond some ten dimensions
        search = neighbours.NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(values.astype(np.float32))
        found = search.kneighbors(values.astype(np.float32), return_distance=False).astype(np.int64)
    return _without_itself(found)


def knn_graph(points: np.ndarray | xr.DataArray, k: int = 45, device: str | torch.device | None = None) -> Any:
    """The graph in which two points are joined where one is among the k nearest neighbours of the other.

    Args:
        points: as ``nearest_neighbours``.
        k: as ``nearest_neighbours``; Gordon et al. take 45.
        device: as ``nearest_neighbours``.

    Returns:
        ``scipy.sparse.csr_array`` [n, n] of ones, symmetric, its diagonal empty; every degree is at least k.

    Raises:
        TypeError, ValueError, MissingExtra: as ``nearest_neighbours``.

    Source: Gordon et al. 2601.12703.
    """
    found = nearest_neighbours(points, k, device)
    sparse = require("scipy.sparse", extra="analysis", purpose="for graphs")
    n = len(found)
    ends = np.arange(n + 1, dtype=np.int64) * k
    directed = sparse.csr_array((np.ones(n * k), found.ravel(), ends), shape=(n, n))
    graph = directed.maximum(directed.T.tocsr()).tocsr()
    graph.sort_indices()
    return graph


def finite_points(points: Any) -> np.ndarray:
    """[n, d] float64 of points.

    Raises:
        TypeError: nothing that numpy reads as numbers.
        ValueError: no matrix, no rows, or values that are not finite.
    """
    try:
        values = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"points must be numbers [points, dimensions], got {type(points).__name__}") from error
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"points must be a matrix [points, dimensions] with values in it, got shape {values.shape}")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(values)} points are not finite, the first is number {int(bad.argmax())}: "
            "leave them out"
        )
    return values


def _on_device(values: np.ndarray, k: int, device: torch.device) -> np.ndarray:
    """|x − y|² = |x|² − 2x·y + |y|², a block of rows at a time, of points around their mean."""
    rows = torch.from_numpy(values - values.mean(axis=0)).to(device, torch.float32)
    squares = (rows * rows).sum(dim=1)
    found = [torch.topk(2 * block @ rows.T - squares, k, dim=1).indices.cpu() for block in rows.split(BLOCK)]
    return torch.cat(found).numpy()


def _without_itself(found: np.ndarray) -> np.ndarray:
    """Of each row's k + 1 the k that are not the point itself; the last where duplicates have pushed it out."""
    itself = found == np.arange(len(found))[:, None]
    itself[~itself.any(axis=1), -1] = True
    return found[~itself].reshape(len(found), -1)
