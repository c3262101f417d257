"""The tokens' responses in the plane: principal components, and UMAP where it is installed."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import numpy as np

from sltfast.extras import require
from sltfast.report.limits import Limits
from sltfast.report.packing import floats
from sltfast.report.response import Response
from sltfast.report.section import Section
from sltfast.report.susceptibilities import shortened

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
    parts = shortened(response, limits)
    places = np.concatenate([_places(index, part.sus) for index, part in enumerate(parts)])
    every = np.concatenate([part.sus.reshape(-1, part.sus.shape[-1]) for part in response.datasets])
    every = every[np.isfinite(every).all(axis=1)].astype(np.float64)
    if min(every.shape[1], len(places)) < 2 or len(every) < 3:
        return None
    chosen = np.sort(np.random.default_rng(0).permutation(len(places))[: limits.points])
    note = f"{len(chosen)} of {len(every)} tokens are drawn; the axes are of all." if len(chosen) < len(every) else ""
    places = places[chosen]
    points = np.stack([parts[d].sus[row, position] for d, row, position in places]).astype(np.float64)
    centre, spread = every.mean(axis=0), every.std(axis=0)
    spread[spread == 0] = 1.0
    directions, shares = principal_axes((every - centre) / spread)
    standard = (points - centre) / spread
    columns, names = [standard @ directions.T], [f"PC{k + 1} ({100 * share:.1f} %)" for k, share in enumerate(shares)]
    if umap and importlib.util.find_spec("umap") is not None and len(points) > 15:
        columns.append(umap_plane(standard))
        names += ["UMAP 1", "UMAP 2"]
    data = {
        "axes": names,
        "points": floats(np.concatenate(columns, axis=1)),
        "places": places.tolist(),
        "text": f"{key}-text",
    }
    loadings = [
        {"name": names[k], "entries": _loadings(response.components, direction)}
        for k, direction in enumerate(directions)
    ]
    return Section(f"{key}-plane", title, "plane.html", {"note": note, "loadings": loadings[:3]}, data)


def principal_axes(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first right singular vectors [k, d] of a centred matrix [n, d], and their shares of its variance.

    A vector's largest entry is positive, so that a figure does not turn over between machines.
    """
    _, singular, directions = np.linalg.svd(matrix, full_matrices=False)
    total = float((singular**2).sum()) or 1.0
    directions = directions[:AXES]
    largest = directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)]
    return directions * np.where(largest < 0, -1.0, 1.0)[:, None], singular[:AXES] ** 2 / total


def umap_plane(points: np.ndarray) -> np.ndarray:
    """UMAP of the points, [n, 2], seeded."""
    umap = require("umap", extra="analysis", purpose="to embed tokens in a plane")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a seed costs its threads
        found: np.ndarray = umap.UMAP(n_neighbors=15, min_dist=0.15, random_state=0).fit_transform(points)
    return found


def _places(dataset: int, sus: np.ndarray) -> np.ndarray:
    """(data set, passage, position) of every token with a response, int64 [n, 3]."""
    at = np.argwhere(np.isfinite(sus).all(axis=-1))
    return np.concatenate([np.full((len(at), 1), dataset), at], axis=1)


def _loadings(components: list[str], direction: np.ndarray) -> list[dict[str, Any]]:
    order = np.abs(direction).argsort()[::-1][:LOADINGS]
    return [
        {"name": components[k], "value": f"{direction[k]:+.2f}", "share": round(float(direction[k]), 3)} for k in order
    ]
