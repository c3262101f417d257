"""Damped influence functions: what Bayesian influence is to first order, from one Hessian instead of chains."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sltfast.data import Source, as_source
from sltfast.estimators.influence.alongs import alongs
from sltfast.estimators.influence.solve import Curvature, Solved, Solver, curvature_of, refuse_indefinite, solve
from sltfast.hessian import Hessian, Method, hessian_of, row_batches
from sltfast.losses import LossFn
from sltfast.per_sample.items import item_of
from sltfast.per_sample.sums import gradient_sum
from sltfast.restriction import ParamMasks

if TYPE_CHECKING:
    import xarray as xr

QUERY_ROOM = 1 << 28
"""Bytes that the solutions of the queries that go together may take."""
VECTORS = 5
"""Of d numbers a query: gradient, solution, residual, direction, image."""


def damped_influence(
    model: nn.Module,
    dataset: Any,
    queries: Any = None,
    *,
    n_beta: float,
    localization: float,
    loss_fn: LossFn | None = None,
    param_masks: ParamMasks = None,
    batch_size: int = 32,
    solver: Solver = "auto",
    products: Method = "auto",
    tolerance: float | None = None,
    max_steps: int = 1000,
    progress: bool = True,
) -> xr.Dataset:
    """The damped influence of every item of a data set on every query, around w*.

        IF(i, j) = −∇ℓ_j(w*)ᵀ·(nβ·H + γ)⁻¹·∇ℓ_i(w*),   H = ∇²L(w*),

    the leading (Laplace) term of the Bayesian influence −Cov_β[ℓ_i, ℓ_j] under p(w) ∝ exp(−nβ·L(w) − γ/2·|w − w*|²):
    w − w* ~ N(0, (nβ·H + γ)⁻¹) where w* is a minimum of the mean loss L. Negative: more of item i lowers the loss of
    query j. ℓ is the mean of an item's own losses, in nats.

    The damping is γ, that of the chains it stands beside, and never chosen in silence: where H has eigenvalues below 0
    (away from a minimum), γ must outweigh nβ times the lowest.

    Args:
        model: see ``sltfast.sample``; left alone.
        dataset: the n items of the mean loss L, as ``sltfast.sample`` takes them; every row is read.
        queries: the items j, of the same kind; None: those of ``dataset``.
        n_beta: inverse temperature nβ > 0.
        localization: γ >= 0, with nβ·H + γ positive definite.
        loss_fn: see ``sltfast.sample``.
        param_masks: which coordinates move.
        batch_size: rows that go through the model together.
        solver: "dense" forms H (d² float64 numbers), "conjugate_gradients" needs products with it alone; "auto" takes
            the former up to 1024 coordinates.
        products: how H·v is made: "double_backward", "finite_differences" of gradients, or "auto": the former where
            the model has second derivatives.
        tolerance: of conjugate gradients, the residual that is left, relative to ∇ℓ_j; None: 1e-8 in float64, 1e-4 in
            float32, whose products are no better.
        max_steps: of conjugate gradients.
        progress: show a progress bar over the queries.

    Returns:
        ``xr.Dataset``: ``influences`` (query, item), in nats²; ``residual`` (query), of the linear system, relative.
        Nothing is sampled: there is no standard error. attrs: ``n_beta``, ``localization``, ``coordinates``, ``solver``
        and ``products`` as used, ``hessian_smallest_eigenvalue`` and ``hessian_eigenvalue_from`` ("eigenvalues of H",
        or "Lanczos", a bound from above), ``hessian_indefinite``, ``damping`` (in words), ``steps``.

    Raises:
        ValueError: nβ·H + γ is not positive definite (with the smallest eigenvalue of H, and the γ that would do); half
            precision; otherwise as ``per_sample.gradient_norms``.
        TypeError: as ``sltfast.sample`` for the model, the data, ``loss_fn`` and ``param_masks``.

    Warns:
        RuntimeWarning: conjugate gradients ended before ``tolerance``.

    Source: Koh & Liang 1703.04730; as the limit of Bayesian influence: Kreer et al. 2509.26544.
    """
    import xarray as xr

    _check(n_beta, localization, tolerance, max_steps)
    source = as_source(dataset)
    asked = source if queries is None else as_source(queries)
    with hessian_of(
        model, source, loss_fn=loss_fn, param_masks=param_masks, batch_size=batch_size, products=products
    ) as hessian:
        curvature = curvature_of(hessian, solver)
        refuse_indefinite(curvature, n_beta, localization)
        accuracy = _tolerance(hessian) if tolerance is None else tolerance
        found, residuals, steps = _all_queries(
            hessian, curvature, asked, batch_size, n_beta, localization, accuracy, max_steps, progress
        )
    residual = torch.cat(residuals)
    if curvature.matrix is None and float(residual.max()) > 2 * accuracy:
        warnings.warn(
            f"conjugate gradients left residuals of up to {float(residual.max()):.2g} after {steps} steps (tolerance "
            f"{accuracy:g}): raise max_steps or localization, or compute in float64",
            RuntimeWarning,
            stacklevel=2,
        )
    return xr.Dataset(
        {
            "influences": (("query", "item"), torch.cat(found).cpu().numpy()),
            "residual": (("query",), residual.cpu().numpy()),
        },
        coords={"query": range(len(asked)), "item": range(len(source))},
        attrs=_attrs(hessian, curvature, n_beta, localization, steps),
    )


def _all_queries(
    hessian: Hessian,
    curvature: Curvature,
    asked: Source,
    batch_size: int,
    n_beta: float,
    localization: float,
    tolerance: float,
    max_steps: int,
    progress: bool,
) -> tuple[list[Tensor], list[Tensor], int]:
    """Influence [K, n] and residuals [K] of the queries that go together, chunk by chunk; most steps of any."""
    from tqdm.auto import tqdm

    together = max(1, min(len(asked), QUERY_ROOM // (8 * VECTORS * hessian.numel)))
    found: list[Tensor] = []
    residuals: list[Tensor] = []
    steps = 0
    with tqdm(total=len(asked), unit="query", disable=not progress, dynamic_ncols=True) as bar:
        for batch in row_batches(asked, together):
            gradients = _gradients(hessian, batch, batch_size)
            solved: Solved = solve(
                hessian,
                curvature,
                gradients,
                n_beta=n_beta,
                localization=localization,
                tolerance=tolerance,
                max_steps=max_steps,
            )
            directions = [hessian.by_name(row) for row in solved.x]
            parts = []
            for index, items in enumerate(hessian.batches):
                values, passed = alongs(hessian.items, items, directions, check=index == 0)
                if index == 0 and not found:
                    passed.tell()
                parts.append(-values)
            found.append(torch.cat(parts, 1))
            residuals.append(solved.residual)
            steps = max(steps, solved.steps)
            bar.update(len(gradients))
    return found, residuals, steps


def _gradients(hessian: Hessian, batch: Any, batch_size: int) -> Tensor:
    """∇ℓ_j of each query, [K, d], of the query passed alone."""
    batch, size = hessian.items.take(batch)
    one = torch.ones(1)
    return torch.stack(
        [hessian.flat(gradient_sum(hessian.items, item_of(batch, index), one)[0]) for index in range(size)]
    )


def _tolerance(hessian: Hessian) -> float:
    dtypes = {parameter.dtype for parameter in hessian.items.parameters.values()}
    return 1e-8 if dtypes == {torch.float64} else 1e-4


def _attrs(hessian: Hessian, curvature: Curvature, n_beta: float, localization: float, steps: int) -> dict[str, Any]:
    lowest = curvature.smallest
    least = max(0.0, -n_beta * lowest)
    words = f"γ = {localization:g}, as given" + (
        f"; H is indefinite at w*, and γ > {least:.6g} = nβ·|its smallest eigenvalue| makes nβ·H + γ positive definite"
        if lowest < 0
        else ""
    )
    return {
        "n_beta": float(n_beta),
        "localization": float(localization),
        "coordinates": hessian.numel,
        "solver": curvature.solver,
        "products": hessian.method,
        "products_because": hessian.because,
        "hessian_smallest_eigenvalue": lowest,
        "hessian_eigenvalue_from": curvature.how,
        "hessian_indefinite": int(lowest < 0),
        "damping": words,
        "steps": steps,
    }


def _check(n_beta: float, localization: float, tolerance: float | None, max_steps: int) -> None:
    """Refuse what cannot be solved.

    Raises:
        ValueError: a number that is not allowed.
    """
    if not 0 < n_beta < math.inf:
        raise ValueError(f"n_beta must be finite and > 0, got {n_beta!r} (use sltfast.default_nbeta(n))")
    if not 0 <= localization < math.inf:
        raise ValueError(f"localization must be finite and >= 0, got {localization!r}")
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1) or None, got {tolerance!r}")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps must be a whole number >= 1, got {max_steps!r}")
