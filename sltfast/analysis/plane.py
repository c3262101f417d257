"""Points in the plane, where neighbours stay neighbours."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sltfast.analysis.nearest_neighbours import finite_points
from sltfast.extras import require
from sltfast.isolation import isolated_rng

if TYPE_CHECKING:
    import xarray as xr


def umap_plane(
    points: np.ndarray | xr.DataArray, *, neighbours: int = 45, min_dist: float = 0.1, seed: int = 0
) -> np.ndarray:
    """UMAP of points: a plane in which neighbours stay neighbours; distances between groups mean nothing.

    Args:
        points: [n, d], or (token, …), as from ``centre_rows`` or ``whiten``.
        neighbours: of a point; Gordon et al. take 45. At most n − 1 are used.
        min_dist: how near points may lie to each other in the plane.
        seed: of its random start; the same seed gives the same plane. Global random states are left alone.

    Returns:
        float64 [n, 2].

    Raises:
        TypeError, ValueError: no finite [n, d], fewer than 4 points, or fewer than 2 neighbours.
        MissingExtra: umap-learn is not installed.

    Source: McInnes, Healy & Melville 1802.03426; Gordon et al. 2601.12703.
    """
    values = finite_points(points)
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < 2:
        raise ValueError(f"neighbours must be a whole number >= 2, got {neighbours!r}")
    if len(values) < 4:
        raise ValueError(f"a plane needs at least 4 points, got {len(values)}")
    with isolated_rng(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that Tensorflow is not there, and that a seed costs its threads
        umap = require("umap", extra="analysis", purpose="to embed points in a plane")
        reducer = umap.UMAP(
            n_neighbors=min(neighbours, len(values) - 1),
            min_dist=min_dist,
            init="spectral" if len(values) > 10 else "random",
            random_state=seed,
        )
        return np.asarray(reducer.fit_transform(values), dtype=np.float64)
