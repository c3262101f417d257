"""Approximate personalised PageRank: where a walk that keeps coming back to its seed spends its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sltfast.extras import require

CLOSE = 0.1  # of the tolerance: how exactly the residual of reached nodes is met


@dataclass(frozen=True)
class Reached:
    """The nodes that a push has reached.

    Attributes:
        nodes: int64 [m], ascending.
        mass: p_v of each, ≥ 0; together at most 1.
        residual: of all the graph's nodes r_v [n], 0 ≤ r_v ≤ ε d_v (to a tenth of it).
    """

    nodes: np.ndarray
    mass: np.ndarray
    residual: np.ndarray


class PageRank:
    """Personalised PageRank on one graph, seed by seed.

    p = α s + (1 − α) A D⁻¹ p is the stationary law of a walk that returns to its seed s with probability α a step. The
    push of Andersen, Chung & Lang keeps p and a residual r with p + pr(r) = pr(s), and moves residual to p wherever
    r_v > ε d_v. Pushed one node at a time this takes ~1/(α ε) operations. Here all nodes reached are pushed at once, to
    where each holds r_v = ε d_v: a symmetric positive definite system on those nodes, solved by conjugate gradients in
    ~1/√α products; then the neighbours above ε d_v are reached too, and so on. Where it ends is unique (the minimiser
    of PageRank's ℓ1-regularised energy), whatever the order of pushes, and vol(reached) ≤ 1/ε.

    Source: Andersen, Chung & Lang, FOCS 2006; Fountoulakis et al. 1602.01886 (the energy).
    """

    def __init__(self, graph: Any, teleport: float = 0.001) -> None:
        """A graph, ready for seeds.

        Args:
            graph: scipy sparse [n, n], symmetric with weights ≥ 0, as from ``knn_graph``.
            teleport: α in (0, 1).

        Raises:
            TypeError, ValueError: no symmetric sparse graph whose nodes have neighbours, or α out of range.
            MissingExtra: scipy is not installed.
        """
        self.sparse = require("scipy.sparse", extra="analysis", purpose="for graphs")
        self.linalg = require("scipy.sparse.linalg", extra="analysis", purpose="for graphs")
        if not self.sparse.issparse(graph) or graph.shape[0] != graph.shape[1]:
            raise TypeError(f"graph must be a square scipy sparse array, as from knn_graph, got {type(graph).__name__}")
        if not 0 < teleport < 1:
            raise ValueError(f"teleport must be in (0, 1), got {teleport!r}")
        self.graph, self.teleport = self.sparse.csr_array(graph, dtype=np.float64), float(teleport)
        self.degrees = np.asarray(self.graph.sum(axis=1)).ravel()
        if (self.graph.data < 0).any() or abs(self.graph - self.graph.T).max() > 0:
            raise ValueError("graph must be symmetric with weights >= 0: take graph.maximum(graph.T)")
        if (self.degrees <= 0).any():
            raise ValueError(f"node {int(self.degrees.argmin())} of the graph has no neighbour: leave such nodes out")
        self.roots = np.sqrt(self.degrees)
        scale = self.sparse.diags_array(1 / self.roots)
        self.normalised = self.sparse.csr_array(scale @ self.graph @ scale)

    @property
    def volume(self) -> float:
        """Sum of all degrees."""
        return float(self.degrees.sum())

    def push(self, seed: int, tolerance: float = 1e-7) -> Reached:
        """Approximate PageRank of a seed.

        Args:
            seed: a node.
            tolerance: ε > 0: residual a unit of degree that is left where it is.

        Returns:
            What was reached: at most nodes of volume 1/ε.

        Raises:
            ValueError: no such node, or ε not above 0.
        """
        n = len(self.degrees)
        if not 0 <= seed < n:
            raise ValueError(f"seed must be a node in 0 … {n - 1}, got {seed!r}")
        if not tolerance > 0:
            raise ValueError(f"tolerance must be > 0, got {tolerance!r}")
        y = np.zeros(n)  # p/√d
        nodes, new = np.zeros(0, np.int64), np.zeros(0, np.int64)
        residual = np.zeros(n)
        residual[seed] = 1.0
        if residual[seed] > tolerance * self.degrees[seed]:
            new = np.array([seed])
        while len(new):
            nodes = np.sort(np.concatenate([nodes, new]))
            rows = self.normalised[nodes]
            y[nodes] = self._held(rows, nodes, y[nodes], seed, tolerance)
            residual = self.roots * ((1 - self.teleport) * (rows.T @ y[nodes]) - y) / self.teleport
            residual[seed] += 1.0
            above = residual > tolerance * self.degrees
            above[nodes] = False
            new = np.flatnonzero(above)
        return Reached(nodes, self.roots[nodes] * y[nodes], residual)

    def _held(self, rows: Any, nodes: np.ndarray, start: np.ndarray, seed: int, tolerance: float) -> np.ndarray:
        """p/√d on the nodes at which every one of them has residual ε d_v."""
        roots, everywhere = self.roots[nodes], np.zeros(rows.shape[1])

        def product(vector: np.ndarray) -> np.ndarray:
            everywhere[nodes] = vector
            result: np.ndarray = vector - (1 - self.teleport) * (rows @ everywhere)
            return result

        wanted = -self.teleport * tolerance * roots
        wanted[np.searchsorted(nodes, seed)] += self.teleport / self.roots[seed]
        system = self.linalg.LinearOperator((len(nodes), len(nodes)), matvec=product, dtype=np.float64)
        close = CLOSE * self.teleport * tolerance * float(roots.min())
        y, failed = self.linalg.cg(system, wanted, x0=start, rtol=0.0, atol=close, maxiter=20 * len(nodes) + 1000)
        if failed:
            raise ArithmeticError(f"conjugate gradients did not reach {close:.1e} on {len(nodes)} nodes")
        held: np.ndarray = np.maximum(y, 0.0)
        return held
