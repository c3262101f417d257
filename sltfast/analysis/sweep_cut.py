"""The sweep cut: of the nodes of a graph, ranked, the first so many that are least joined to the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cut:
    """A set of nodes and how much it is joined to the rest.

    Attributes:
        nodes: int64, in the order of their rank.
        conductance: φ(S) = cut(S, Sᶜ)/min(vol S, vol Sᶜ), from 0 (a component of the graph) to 1.
        profile: φ of the first 1, 2, … nodes of all that were ranked; NaN from where they are all the graph.
    """

    nodes: np.ndarray
    conductance: float
    profile: np.ndarray


def sweep_cut(
    graph: Any,
    ranked: np.ndarray,
    min_size: int = 1,
    max_size: int | None = None,
    *,
    degrees: np.ndarray | None = None,
) -> Cut | None:
    """The first so many of ranked nodes with the smallest conductance.

    Args:
        graph: scipy sparse ``csr_array`` [n, n], symmetric with weights ≥ 0.
        ranked: nodes, best first, such as those of a push by falling p_v/d_v.
        min_size: of the set.
        max_size: of the set; None: all that are ranked.
        degrees: [n] of the graph, where they are known: so that no more is read than the ranked nodes' edges.

    Returns:
        The cut (of equal ones the smallest set), or None where fewer than ``min_size`` nodes are ranked.

    Source: Andersen, Chung & Lang, FOCS 2006.
    """
    n = graph.shape[0]
    last = min(len(ranked), len(ranked) if max_size is None else max_size)
    if last < min_size:
        return None
    if degrees is None:
        degrees = np.asarray(graph.sum(axis=1)).ravel()
    rank = np.full(n, len(ranked))
    rank[ranked] = np.arange(len(ranked))
    rows = graph[ranked]
    here, there = np.repeat(np.arange(len(ranked)), np.diff(rows.indptr)), rank[rows.indices]
    # an edge is inside from where the later of its ends comes in; each is met from both ends
    inside = np.cumsum(np.bincount(np.maximum(here, there), rows.data, len(ranked) + 1)[: len(ranked)])
    volume = np.cumsum(degrees[ranked])
    smaller = np.minimum(volume, degrees.sum() - volume)
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = np.where(smaller > 0, (volume - inside) / smaller, np.nan)
    allowed = profile[min_size - 1 : last]
    if np.isnan(allowed).all():
        return None
    best = int(np.nanargmin(allowed)) + min_size
    return Cut(np.asarray(ranked[:best]), float(profile[best - 1]), profile)
