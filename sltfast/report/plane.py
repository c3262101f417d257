"""The tokens' responses in the plane: principal components, and UMAP where it is installed."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast import analysis
from sltfast.analysis import centre_rows, pca, standardise
from sltfast.report.limits import Limits
from sltfast.report.packing import floats
from sltfast.report.response import Response
from sltfast.report.section import Section
from sltfast.report.susceptibilities import shortened

if TYPE_CHECKING:
    import xarray as xr

NEIGHBOURS = 15  # of UMAP
AXES = 4  # principal components that can be shown
LOADINGS = 8  # components named beside each


def section(key: str, title: str, response: Response, limits: Limits, *, umap: bool) -> Section | None:
    """A scatter plot of tokens; None where there are too few tokens or components to span a plane.

    Args:
        key: of the tree on the page.
        title: heading.
        response: from `response_of`.
        limits: how many points.
        umap: also embed with UMAP, if umap-learn is installed.
    """
    columns = _components(response)
    places = np.concatenate([_places(index, part.sus[..., columns]) for index, part in enumerate(response.datasets)])
    if len(columns) < 2 or len(places) < 3:
        return None
    matrix, remarks = _matrix(response, columns, places)
    found = pca(matrix, min(AXES, len(columns) - (len(columns) > 2), len(places)))
    embedded = np.array([len(part.rows) for part in shortened(response, limits)])
    candidates = np.flatnonzero(places[:, 1] < embedded[places[:, 0]])
    chosen = np.sort(np.random.default_rng(0).permutation(candidates)[: limits.points])
    said = f"{len(chosen)} of {len(places)} tokens are drawn; the axes are of all"
    notes = ([said] if len(chosen) < len(places) else []) + remarks
    shares = found["explained_variance_ratio"].values
    names = [f"PC{k + 1} ({100 * share:.1f} %)" for k, share in enumerate(shares)]
    axes = [found["scores"].values[chosen]]
    axis_names = list(names)
    if umap and importlib.util.find_spec("umap") is not None and len(chosen) > NEIGHBOURS:
        axes.append(umap_plane(matrix.values[chosen]))
        axis_names += ["UMAP 1", "UMAP 2"]
    data = {
        "axes": axis_names,
        "points": floats(np.concatenate(axes, axis=1)),
        "places": places[chosen].tolist(),
        "text": f"{key}-text",
    }
    of_axes = zip(names, found["loadings"].values, strict=True)
    loadings = [{"name": name, "entries": _loadings(matrix["component"].values, row)} for name, row in of_axes]
    return Section(f"{key}-plane", title, "plane.html", {"notes": notes, "loadings": loadings[:3]}, data)


def _components(response: Response) -> list[int]:
    """The parts that have a response: not the whole model, which holds them all, and none whose chains all died."""
    alive = [
        index
        for index in range(len(response.components))
        if any(np.isfinite(part.sus[..., index]).any() for part in response.datasets)
    ]
    parts = [index for index in alive if response.components[index] != "full"]
    return parts if len(parts) >= 2 else alive


def _matrix(response: Response, columns: list[int], places: np.ndarray) -> tuple[xr.DataArray, list[str]]:
    """Tokens × components, standardised, rows centred where that leaves a plane; and what was said of it."""
    import xarray as xr

    values = np.stack([response.datasets[d].sus[row, position][columns] for d, row, position in places])
    names = [response.components[index] for index in columns]
    matrix = xr.DataArray(values.astype(np.float64), dims=("token", "component"), coords={"component": names})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        matrix = standardise(matrix)
    return (centre_rows(matrix) if len(columns) > 2 else matrix), [str(warning.message) for warning in caught]


def umap_plane(points: np.ndarray) -> np.ndarray:
    """UMAP of the points, [n, 2], seeded."""
    return analysis.umap_plane(points, neighbours=NEIGHBOURS, min_dist=0.15)


def _places(dataset: int, sus: np.ndarray) -> np.ndarray:
    """(data set, passage, position) of every token with a response, int64 [n, 3]."""
    at = np.argwhere(np.isfinite(sus).all(axis=-1))
    return np.concatenate([np.full((len(at), 1), dataset), at], axis=1)


def _loadings(components: np.ndarray, direction: np.ndarray) -> list[dict[str, Any]]:
    order = np.abs(direction).argsort()[::-1][:LOADINGS]
    return [
        {"name": str(components[k]), "value": f"{direction[k]:+.2f}", "share": round(float(direction[k]), 3)}
        for k in order
    ]
