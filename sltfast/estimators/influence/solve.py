"""(nβ·H + γ)⁻¹ applied to gradients: by the whole matrix where it is small, else by conjugate gradients."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from sltfast.estimators.influence.spectrum import smallest_eigenvalue
from sltfast.hessian import Hessian

Solver = Literal["auto", "dense", "conjugate_gradients"]
DENSE = 1024
"""Coordinates up to which "auto" forms H: 8 MB, and a second or so for its eigenvalues."""
MARGIN = 1e-10
"""Of the largest eigenvalue: what an eigenvalue of nβ·H + γ has to exceed to be told from rounding."""


class Curvature(NamedTuple):
    """What is known of H before it is inverted.

    Attributes:
        solver: "dense" or "conjugate_gradients".
        smallest: smallest eigenvalue of H.
        how: "eigenvalues of H", or "Lanczos", whose value is a bound from above.
        matrix: H [d, d] where it was formed.
    """

    solver: str
    smallest: float
    how: str
    matrix: Tensor | None


def curvature_of(hessian: Hessian, solver: Solver) -> Curvature:
    """Choose a solver and look at the bottom of H's spectrum.

    Raises:
        ValueError: an unknown ``solver``.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"solver must be one of {', '.join(get_args(Solver))}, got {solver!r}")
    if solver == "dense" or (solver == "auto" and hessian.numel <= DENSE):
        matrix = hessian.dense()
        return Curvature("dense", float(torch.linalg.eigvalsh(matrix)[0]), "eigenvalues of H", matrix)
    smallest = smallest_eigenvalue(hessian)
    return Curvature("conjugate_gradients", smallest, "Lanczos", None)


def refuse_indefinite(curvature: Curvature, n_beta: float, localization: float) -> None:
    """Raise where nβ·H + γ is not positive definite.

    Raises:
        ValueError: with the smallest eigenvalue and a γ that would do.
    """
    bottom = n_beta * curvature.smallest + localization
    if bottom <= MARGIN * max(abs(n_beta * curvature.smallest), localization, 1e-300):
        raise ValueError(
            f"nβ·H + γ is not positive definite: the smallest eigenvalue of H is {curvature.smallest:.6g} "
            f"({curvature.how}), so at n_beta={n_beta:g} and localization={localization:g} the smallest of nβ·H + γ is "
            f"{bottom:.6g}, and Gaussian fluctuations around w* do not exist: give localization > "
            f"{max(0.0, -n_beta * curvature.smallest):.6g}, twice that or more"
        )


class Solved(NamedTuple):
    """Solutions of (nβ·H + γ)·x_k = b_k.

    Attributes:
        x: [K, d].
        residual: |b_k − (nβ·H + γ)·x_k| / |b_k| [K] (0 where b_k = 0).
        steps: of conjugate gradients, most of any k; 0 for the whole matrix.
    """

    x: Tensor
    residual: Tensor
    steps: int


def solve(
    hessian: Hessian,
    curvature: Curvature,
    vectors: Tensor,
    *,
    n_beta: float,
    localization: float,
    tolerance: float,
    max_steps: int,
) -> Solved:
    """x_k = (nβ·H + γ)⁻¹·b_k for the rows of ``vectors`` [K, d].

    Raises:
        ValueError: conjugate gradients meet a direction of no positive curvature, which Lanczos had not seen.
    """
    if curvature.matrix is not None:
        damped = n_beta * curvature.matrix + localization * torch.eye(len(curvature.matrix), device=vectors.device)
        x = torch.cholesky_solve(vectors.mT, torch.linalg.cholesky(damped)).mT
        return Solved(x, _relative(vectors - x @ damped, vectors), 0)

    def product(rows: Tensor) -> Tensor:
        return n_beta * hessian.product(rows) + localization * rows

    x, rest = torch.zeros_like(vectors), vectors.clone()
    direction, squared = rest.clone(), rest.square().sum(1)
    size = squared.sqrt()
    steps = 0
    while steps < max_steps:
        open_rows = torch.nonzero(squared.sqrt() > tolerance * size).flatten()
        if not len(open_rows):
            break
        along = direction[open_rows]
        image = product(along)
        curved, lengths = (along * image).sum(1), along.square().sum(1)
        if bool((curved <= 0).any()):
            found = float((curved / lengths).min())
            seen = (found - localization) / n_beta
            refuse_indefinite(curvature._replace(smallest=min(seen, curvature.smallest)), n_beta, localization)
        factor = (squared[open_rows] / curved)[:, None]
        x[open_rows] += factor * along
        rest[open_rows] -= factor * image
        renewed = rest[open_rows].square().sum(1)
        direction[open_rows] = rest[open_rows] + (renewed / squared[open_rows])[:, None] * along
        squared[open_rows] = renewed
        steps += 1
    return Solved(x, _relative(vectors - product(x), vectors), steps)


def _relative(rest: Tensor, vectors: Tensor) -> Tensor:
    size = vectors.norm(dim=1)
    return rest.norm(dim=1) / torch.where(size == 0, 1, size)
