"""``bif``: sample around w*, and the Bayesian influence function of what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sltfast.estimators.bif.before import device_for_products, identifiers, settings_for_pairs
from sltfast.estimators.bif.compute import ChainReductionMethod, CorrelationMethod, RankBy, check_options, compute_bif
from sltfast.restriction import ParamMasks
from sltfast.results.computed import result_path, save

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn
    from sltfast.observables import ObservableSpec


def bif(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec],
    *,
    lr: float,
    n_beta: float,
    loss_fn: LossFn | None = None,
    param_masks: ParamMasks = None,
    correlation_method: CorrelationMethod = "token",
    reduce_chain_dimension_method: ChainReductionMethod = "stack",
    average_tokenwise_bif: bool = False,
    sign: int = -1,
    normalize: bool = False,
    compute_covariance: bool | None = None,
    top_k: int | None = None,
    top_k_by: RankBy = "absolute",
    loss_keys_1: Sequence[str] | None = None,
    loss_keys_2: Sequence[str] | None = None,
    standard_errors: bool | None = None,
    separate_chains: bool = False,
    num_blocks: int = 8,
    bif_batch_size: int = 32,
    bif_device: str | torch.device | None = None,
    output_path: str | Path | None = None,
    progress: bool = True,
    **sampling: Any,
) -> xr.Dataset:
    """Sample around w* and estimate the Bayesian influence of every row of the observables on every other.

        BIF(i, j) = −Cov_β[ℓ_i, ℓ_j],  w ~ p(w) ∝ exp(−nβ·L(w) − γ/2·|w − w*|²).

    Only losses of the observables are recorded, unless ``sampling`` asks for more; with ``record="covariances"`` those
    of pairs of sequences, which do not grow with the draws.

    Args:
        model: see ``sltfast.sample``.
        dataset: see ``sltfast.sample``.
        observables: whose rows influence each other; at least one.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ.
        loss_fn: see ``sltfast.sample``.
        param_masks: see ``sltfast.sample``.
        correlation_method: see ``compute_bif``.
        reduce_chain_dimension_method: see ``compute_bif``.
        average_tokenwise_bif: see ``compute_bif``.
        sign: see ``compute_bif``.
        normalize: see ``compute_bif``.
        compute_covariance: see ``compute_bif``.
        top_k: see ``compute_bif``.
        top_k_by: see ``compute_bif``.
        loss_keys_1: observables whose rows are queries.
        loss_keys_2: observables whose rows are training items.
        standard_errors: see ``compute_bif``.
        separate_chains: see ``compute_bif``.
        num_blocks: see ``compute_bif``.
        bif_batch_size: see ``batch_size`` of ``compute_bif``.
        bif_device: see ``device`` of ``compute_bif``.
        output_path: ``runs/llm.zarr`` takes the run, and ``runs/llm.bif.zarr`` the result; the same call resumes what
            was interrupted.
        progress: show progress bars.
        **sampling: every other keyword of ``sltfast.sample``.

    Returns:
        See ``compute_bif``.

    Raises:
        ValueError, TypeError, OutputMismatch, AllChainsDied: as ``sltfast.sample`` and ``compute_bif``; what is wrong
            with the arguments is said before the first step.

    Source: Kreer et al. 2509.26544.
    """
    from sltfast.sampling import sample

    names = identifiers(observables, "bif")
    options: dict[str, Any] = {
        "correlation_method": correlation_method,
        "reduce_chain_dimension_method": reduce_chain_dimension_method,
        "sign": sign,
        "normalize": normalize,
        "compute_covariance": compute_covariance,
        "top_k": top_k,
        "top_k_by": top_k_by,
        "batch_size": bif_batch_size,
        "num_blocks": num_blocks,
        "separate_chains": separate_chains,
    }
    check_options(**options)
    if separate_chains and sampling.get("num_chains") == 1:
        raise ValueError("separate_chains needs at least two chains, got num_chains=1")
    settings = settings_for_pairs(
        sampling, method=correlation_method, reduction=reduce_chain_dimension_method, num_blocks=num_blocks
    )
    device_for_products(bif_device)
    options |= {
        "loss_keys_1": _known("loss_keys_1", loss_keys_1, names),
        "loss_keys_2": _known("loss_keys_2", loss_keys_2, names),
        "average_tokenwise_bif": average_tokenwise_bif,
        "standard_errors": standard_errors,
    }
    path = None if output_path is None else result_path(output_path, "bif")
    samples = sample(
        model,
        dataset,
        observables,
        lr=lr,
        n_beta=n_beta,
        loss_fn=loss_fn,
        param_masks=param_masks,
        output_path=output_path,
        progress=progress,
        **settings,
    )
    result = compute_bif(samples, **options, device=bif_device, progress=progress)
    if path is not None:
        save(result, path, "bif")
    return result


def _known(keyword: str, keys: Sequence[str] | None, names: Mapping[str, str]) -> list[str] | None:
    if keys is None:
        return None
    unknown = [keys] if isinstance(keys, str) else [key for key in keys if key not in names]
    if unknown or not keys:
        raise ValueError(f"{keyword} must be a list of the observables {list(names)}, got {keys!r}")
    return [names[key] for key in keys]
