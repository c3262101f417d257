"""The Bayesian influence function: how losses of observables vary together over the posterior."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from sltfast.compat.devinterp.slt.lm_loss import LossFn
from sltfast.compat.devinterp.slt.sampling import ObservableSpec, sample
from sltfast.compat.devinterp.slt.weight_restrictions import ParamMasks
from sltfast.compat.fast_run.job import Job
from sltfast.compat.fast_run.records import living
from sltfast.compat.fast_run.sampling import exactly, in_memory, sampled
from sltfast.estimators.bif import compute_bif as native_bif

if TYPE_CHECKING:
    import xarray as xr

CorrelationMethod = Literal["token", "sequence"]
ChainReductionMethod = Literal["stack", "mean"]
KEPT = ("influences", "input_ids", "batch_1", "batch_2", "target_position", "target_position_T")


def bif(
    model: nn.Module,
    dataset: Any,
    observables: dict[str, ObservableSpec],
    *,
    lr: float,
    n_beta: float,
    param_masks: ParamMasks | None = None,
    correlation_method: CorrelationMethod = "token",
    reduce_chain_dimension_method: ChainReductionMethod = "stack",
    average_tokenwise_bif: bool = False,
    compute_covariance: bool = False,
    bif_batch_size: int = 32,
    bif_device: str | torch.device | None = None,
    loss_fn: LossFn | None = None,
    **kwargs: Any,
) -> xr.Dataset:
    """Sample, and compute influences; without ``output_path`` the sampling batches' losses are not recorded.

    Args:
        model: as ``sample``.
        dataset: likewise.
        observables: the items.
        lr: step size ε.
        n_beta: inverse temperature nβ.
        param_masks: as ``sample``.
        correlation_method: as ``compute_bif``.
        reduce_chain_dimension_method: likewise.
        average_tokenwise_bif: likewise.
        compute_covariance: likewise.
        bif_batch_size: its ``batch_size``.
        bif_device: its ``device``.
        loss_fn: as ``sample``.
        **kwargs: every other keyword of ``sample``.

    Returns:
        See ``compute_bif``.

    Raises:
        As ``sample`` and ``compute_bif``.
    """
    _check(correlation_method, reduce_chain_dimension_method)
    bound = inspect.signature(sample).bind(
        model, dataset, observables, lr=lr, n_beta=n_beta, param_masks=param_masks, loss_fn=loss_fn, **kwargs
    )
    bound.apply_defaults()
    keywords = bound.arguments
    settings: dict[str, Any] = {
        "correlation_method": correlation_method,
        "reduce_chain_dimension_method": reduce_chain_dimension_method,
        "average_tokenwise_bif": average_tokenwise_bif,
        "compute_covariance": compute_covariance,
        "batch_size": bif_batch_size,
        "device": bif_device,
    }
    job = Job.of(keywords)
    if keywords["output_path"] is not None or exactly(job, keywords, param_masks):
        return compute_bif(sampled(keywords), **settings)
    return compute_bif(in_memory(job, {"": param_masks}, token_losses=False)[""], **settings)


def compute_bif(
    samples: xr.DataTree,
    *,
    correlation_method: CorrelationMethod = "token",
    reduce_chain_dimension_method: ChainReductionMethod = "stack",
    loss_keys: Literal["all"] | list[str] = "all",
    batch_index_range_1: Literal["all"] | Sequence[int] = "all",
    batch_index_range_2: Literal["all"] | Sequence[int] = "all",
    average_tokenwise_bif: bool = False,
    compute_covariance: bool = False,
    batch_size: int = 32,
    device: str | torch.device | None = None,
) -> xr.Dataset:
    """Correlations (or covariances, n − 1) of recorded losses over draws.

    Args:
        samples: a tree of ``sample``, or devinterp's.
        correlation_method: "token": of every pair of tokens; "sequence": of sequences' mean losses.
        reduce_chain_dimension_method: "stack" the chains' draws, or take their "mean" at each draw.
        loss_keys: observables, one after another along ``batch``; "all": every one, sorted.
        batch_index_range_1: items on the first side.
        batch_index_range_2: on the second.
        average_tokenwise_bif: the mean over all pairs of positions of two sequences.
        compute_covariance: covariances in place of correlations.
        batch_size: sequences a tile.
        device: where products are formed; None: a GPU if there is one.

    Returns:
        ``influences`` float32 (batch_1, batch_2, target_position, target_position_T), positions counted from 1, or
        (batch_1, batch_2) of sequences and averages; ``input_ids`` (batch, position).

    Raises:
        ValueError: an unknown method.
        KeyError: an observable that is not there.
        AllChainsDied: no chain lived.

    Source: Kreer et al. 2509.26544; devinterp 2.0.1.
    """
    import xarray as xr

    _check(correlation_method, reduce_chain_dimension_method)
    root = living(samples)
    there = sorted(str(name)[len("loss_") :] for name in root.data_vars if str(name).startswith("loss_"))
    missing = [] if loss_keys == "all" else [key for key in loss_keys if key not in there]
    if missing:
        raise KeyError(f"Loss key(s) {missing} not found. Available: {there}")
    found = native_bif(
        xr.DataTree(root),
        correlation_method=correlation_method,
        reduce_chain_dimension_method=reduce_chain_dimension_method,
        loss_keys=loss_keys,
        batch_index_range_1=batch_index_range_1,
        batch_index_range_2=batch_index_range_2,
        average_tokenwise_bif=average_tokenwise_bif,
        compute_covariance=compute_covariance,
        batch_size=batch_size,
        device=device,
        standard_errors=False,
    )
    result = found[[name for name in ("influences", "input_ids") if name in found]]
    result = result.drop_vars([name for name in result.coords if name not in KEPT]).drop_attrs()
    return result.assign(influences=result["influences"].astype("float32", copy=False))


def _check(correlation_method: str, reduction: str) -> None:
    if correlation_method not in ("token", "sequence"):
        raise ValueError(f"Unknown correlation method: {correlation_method!r} (give 'token' or 'sequence')")
    if reduction not in ("stack", "mean"):
        raise ValueError(f"Unknown method: {reduction!r} to reduce chains by (give 'stack' or 'mean')")
