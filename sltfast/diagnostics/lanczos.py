"""Lanczos' method: a symmetric operator seen from one vector, as a Gauss quadrature of its spectrum."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

KEPT_BYTES = 1 << 30  # of basis vectors; beyond it they are not made orthogonal anew


class Quadrature(NamedTuple):
    """Nodes θ_j ascending, weights τ_j (Σ τ = 1), and for each node how far H is from having it as an eigenvalue.

    For any smooth f, z·f(H)z/|z|² ≈ Σ_j τ_j·f(θ_j), exactly so for polynomials below degree 2k; an eigenvalue of H
    lies within ``residuals``_j of θ_j.
    """

    nodes: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Quadrature:
    """At most k steps from ``start``; fewer where its Krylov space has fewer dimensions.

    The basis is kept orthogonal as long as it fits into a gigabyte. Without that a converged eigenvalue comes again
    under the same quadrature weight in all, so the spectrum stays right and only nodes are lost.

    Args:
        product: v → H·v, H symmetric.
        start: z, not 0.
        steps: k >= 1.

    Source: Golub & Welsch 1969; Ubaru, Chen & Saad 2017 (stochastic Lanczos quadrature).
    """
    keeps = steps * start.numel() * start.element_size() <= KEPT_BYTES
    here = start / start.norm()
    basis, before, beta = [here], torch.zeros_like(here), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(steps):
        ahead = product(here)
        alpha = float(here.double() @ ahead.double())
        diagonal.append(alpha)
        ahead = ahead - alpha * here - beta * before
        if keeps:
            for _ in range(2):  # once is not enough where much cancels
                for vector in basis:
                    ahead = ahead - (vector @ ahead) * vector
        beta = float(ahead.double().norm())
        beside.append(beta)
        size = max(map(abs, diagonal + beside[:-1]))
        if beta <= 10 * torch.finfo(start.dtype).eps * size * len(diagonal):
            break
        before, here = here, ahead / beta
        if keeps:
            basis.append(here)
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    nodes, vectors = np.linalg.eigh(matrix)
    return Quadrature(nodes, vectors[0] ** 2, beside[-1] * np.abs(vectors[-1]))
