"""The covariance of chosen weights over the chains, and its leading directions."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sltfast.diagnostics import mean_estimate
from sltfast.errors import ChainDiverged
from sltfast.estimators.blocks_of_draws import BlocksOfDraws
from sltfast.estimators.llc import needed_for
from sltfast.ops import comoment_, comoment_covariance, comoment_merge_, comoments
from sltfast.results.samples import plain_settings, root_of, sampler_of_one, usable_chains

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn
    from sltfast.restriction import ParamMasks

MOST_COORDINATES = 8192  # six matrices of as many rows and columns take 3 GiB
NUM_BLOCKS = 8  # of consecutive draws in a chain, for errors by batch means


def weight_covariance(
    model: nn.Module,
    dataset: Any,
    weights: ParamMasks,
    *,
    lr: float,
    n_beta: float,
    num_components: int = 10,
    loss_fn: LossFn | None = None,
    **sampling: Any,
) -> xr.Dataset:
    """Sample around w* and estimate the covariance of chosen coordinates of w − w*.

    Near a minimum with Hessian H it is (nβ·H + γ)⁻¹ up to the step's bias (``sltfast.theory``): its leading directions
    are those in which the loss is flattest.

    Args:
        model: see ``sltfast.sample``.
        dataset: see ``sltfast.sample``.
        weights: the coordinates, named as in ``param_masks`` (``"l0h1"``, names or patterns of parameters, masks), at
            most 8192 and among those that move.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ.
        num_components: leading eigenvectors to keep.
        loss_fn: see ``sltfast.sample``.
        **sampling: every other keyword of ``sltfast.sample``; ``param_masks`` says what moves (None: all).

    Returns:
        See ``sltfast.compute_weight_covariance``.

    Raises:
        ValueError: too many coordinates, some that do not move, a bad ``num_components``, or as ``sltfast.sample``.
        TypeError: ``record_weights`` is given (``weights`` says it), or as ``sltfast.sample``.
        AllChainsDied: no chain lived.

    Source: the covariance accumulator of devinterp 1; Laplace's approximation of the localised posterior.
    """
    from sltfast.restriction import Restriction
    from sltfast.sampling import sample

    if "record_weights" in sampling:
        raise TypeError("record_weights is said by weights here: give the coordinates once")
    if weights is None:
        raise ValueError("weights must name the coordinates ('*' for every parameter), got None")
    _check_components(num_components)
    _check_size(Restriction.of(model, weights).numel)
    given = {**needed_for("paired", sampling), "lr": lr, "n_beta": n_beta, "loss_fn": loss_fn}
    samples = sample(model, dataset, record_weights=weights, **given)
    return compute_weight_covariance(samples, num_components=num_components)


def compute_weight_covariance(samples: xr.DataTree, *, num_components: int = 10) -> xr.Dataset:
    """The covariance of the recorded coordinates of w − w*, and its leading eigenpairs, with standard errors.

    Cov = Σ_{c,t} (δ_ct − δ̄)(δ_ct − δ̄)ᵀ/(n − 1),  δ = w − w*,  δ̄ the mean over all chains and draws,

    in float64 by Chan's rule, block by block of draws (``ops.comoment_``). The error of an entry is the larger of the
    spread of the chains' (M_c = mean_t of the product) over √C, and that of eight blocks a chain over √(8·C). To first
    order an eigenvalue is the mean of (vᵀ(δ − δ̄))², and has the error of that mean: by autocorrelation or between
    chains, the larger. With few draws for the coordinates, leading eigenvalues come out too large.

    Args:
        samples: from ``sltfast.sample(..., record_weights=...)`` or ``sltfast.open``.
        num_components: leading eigenvectors to keep; no more than there are coordinates are there.

    Returns:
        ``xr.Dataset``: ``covariance`` and ``covariance_se`` (coordinate, coordinate_T); ``mean`` and ``mean_se``
        (coordinate) of w − w*; ``eigenvalue`` (component; descending), ``eigenvalue_se``, ``eigenvalue_rhat``,
        ``eigenvalue_ess``; ``eigenvector`` (component, coordinate; unit length, its largest entry positive); ``alive``
        (chain). Coordinates ``parameter``, ``index`` (flat, in the parameter) and ``element`` (flat, in the model) say
        what a coordinate is. Units: those of the weights, squared for covariances. attrs: ``num_draws`` behind it and
        the sampler's settings.

    Raises:
        ValueError: no weights were recorded, too many, those of a sweep, fewer than two draws, or a bad
            ``num_components``.
        AllChainsDied: no chain lived.

    Source: Chan, Golub and LeVeque (1983) for the sums; first-order perturbation of an eigenvalue.
    """
    import xarray as xr

    tree = root_of(samples)
    if "displacement" not in tree:
        raise ValueError(
            "the samples hold no weights: sample with record_weights=..., or use sltfast.weight_covariance"
        )
    sampler_of_one(tree, ", each with a covariance of its own: give one run")
    _check_components(num_components)
    _check_size(tree.sizes["coordinate"])
    draws, alive = _living(tree)
    chains, count, size = draws.shape
    if count < 2:
        raise ValueError(f"a covariance needs at least two draws a chain, got {count}: raise num_draws")
    mean = draws.mean(axis=(0, 1), dtype=np.float64)
    covariance, error = _covariance(draws, mean)
    values, vectors = np.linalg.eigh(covariance)
    kept = min(num_components, size)
    values, vectors = values[::-1][:kept], vectors.T[::-1][:kept]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
    vectors = vectors * np.sign(largest)
    along = np.stack([(chain - mean) @ vectors.T for chain in draws])  # [C, T, k]
    of_values = [mean_estimate(along[..., k] ** 2) for k in range(kept)]
    pair = ("coordinate", "coordinate_T")
    found = {
        "covariance": (pair, covariance),
        "covariance_se": (pair, error),
        "mean": ("coordinate", mean),
        "mean_se": ("coordinate", _mean_error(draws)),
        "eigenvalue": ("component", values),
        "eigenvalue_se": ("component", np.array([one.se for one in of_values])),
        "eigenvalue_rhat": ("component", np.array([one.rhat for one in of_values])),
        "eigenvalue_ess": ("component", np.array([one.ess for one in of_values])),
        "eigenvector": (("component", "coordinate"), vectors),
        "alive": ("chain", alive),
    }
    attrs = {**plain_settings(tree), "num_draws": count, "chains_alive": chains}
    return xr.Dataset(found, coords=_labels(tree), attrs=attrs)


def _check_components(num_components: Any) -> None:
    if isinstance(num_components, bool) or not isinstance(num_components, int) or num_components < 1:
        raise ValueError(f"num_components must be a whole number >= 1, got {num_components!r}")


def _check_size(size: int) -> None:
    if size > MOST_COORDINATES:
        raise ValueError(
            f"a covariance of {size} coordinates has {size**2} entries: choose at most {MOST_COORDINATES} coordinates "
            "(a head, or masks)"
        )


def _living(tree: Any) -> tuple[np.ndarray, np.ndarray]:
    """Draws [C, T, N] float32 of the chains that lived, and which they are [chains].

    Of an interrupted run whole chains, or what all have.
    """
    draws = np.asarray(tree["displacement"].values)
    recorded = np.isfinite(draws[:, :, :1]).all(axis=2).sum(axis=1)
    alive, completed = tree["death_step"].values < 0, tree.attrs.get("completed") == 1
    living = usable_chains(alive, recorded, draws.shape[1], completed=completed, samples=tree)
    if not living.all():
        warnings.warn(
            f"{int((~living).sum())} of {len(living)} chains died or are incomplete and are left out",
            ChainDiverged,
            stacklevel=3,
        )
    return draws[living, : recorded[living].min()], living


def _covariance(draws: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, N] covariance over all draws [C, T, N], and its standard error entry by entry."""
    chains, count, size = draws.shape
    pooled = comoments(1, size)
    blocks = BlocksOfDraws.of(1, count, NUM_BLOCKS).rows
    sums, squares = np.zeros((2, size, size)), np.zeros((2, size, size))  # of blocks, and of chains
    for chain in draws:
        of_chain = np.zeros((size, size))
        for block in blocks:
            state = comoments(1, size)
            comoment_(state, torch.from_numpy(np.ascontiguousarray(chain[None, block])))
            comoment_merge_(pooled, state)
            apart = state.mean_x[0].numpy() - mean
            product = comoment_covariance(state, ddof=0)[0].numpy() + np.outer(apart, apart)
            sums[0] += product
            squares[0] += product**2
            of_chain += product * (block.stop - block.start) / count
        sums[1] += of_chain
        squares[1] += of_chain**2
    errors = [
        _spread(total, square, number)
        for total, square, number in zip(sums, squares, (chains * len(blocks), chains), strict=True)
    ]
    error = np.fmax(*errors)
    if chains * count < 3:  # two draws' deviations from their mean have one product: it has no spread
        error[:] = np.nan
    return comoment_covariance(pooled)[0].numpy(), error


def _mean_error(draws: np.ndarray) -> np.ndarray:
    """[N] standard error of the mean over all draws [C, T, N]."""
    rows = BlocksOfDraws.of(1, draws.shape[1], NUM_BLOCKS).rows
    starts, lengths = [block.start for block in rows], np.array([block.stop - block.start for block in rows])
    blocks = np.add.reduceat(draws, starts, axis=1, dtype=np.float64) / lengths[:, None]
    of_chains = (blocks * lengths[:, None]).sum(axis=1) / draws.shape[1]
    errors = [
        _spread(means.sum(axis=0), (means**2).sum(axis=0), len(means))
        for means in (blocks.reshape(-1, draws.shape[2]), of_chains)
    ]
    return np.fmax(*errors)


def _spread(total: np.ndarray, square: np.ndarray, number: int) -> np.ndarray:
    """Standard error of the mean of ``number`` arrays from their sum and the sum of their squares; NaN for one."""
    if number < 2:
        return np.full_like(total, np.nan)
    return np.sqrt(np.maximum(square - total**2 / number, 0.0) / (number - 1) / number)


def _labels(tree: Any) -> dict[str, Any]:
    """What each coordinate is."""
    element = tree["element"].values
    weights = tree.attrs["sltfast"]["weights"]
    names, first = list(weights), np.array([one["element"] for one in weights.values()])
    order = np.argsort(first)
    owner = order[np.searchsorted(first[order], element, side="right") - 1]
    return {
        "parameter": ("coordinate", np.array(names)[owner]),
        "index": ("coordinate", element - first[owner]),
        "element": ("coordinate", element),
    }
