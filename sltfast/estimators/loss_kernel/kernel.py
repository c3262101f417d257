"""The loss kernel K(x, x') = Cov[ℓ(x), ℓ(x')] under the localised posterior, and its correlation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from sltfast.estimators.bif.before import identifiers, settings_for_pairs
from sltfast.estimators.bif.compute import CorrelationMethod, RankBy, check_options, compute_bif
from sltfast.estimators.bif.recorded import Keys

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn
    from sltfast.observables import ObservableSpec


def loss_kernel(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec],
    *,
    lr: float,
    n_beta: float,
    loss_fn: LossFn | None = None,
    correlation_method: CorrelationMethod = "sequence",
    top_k: int | None = None,
    top_k_by: RankBy = "absolute",
    standard_errors: bool | None = None,
    num_blocks: int = 8,
    progress: bool = True,
    **sampling: Any,
) -> xr.Dataset:
    """Sample around w* and estimate the loss kernel of the rows of the observables.

    Args:
        model: see ``sltfast.sample``.
        dataset: see ``sltfast.sample``.
        observables: whose rows are compared; at least one.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ.
        loss_fn: see ``sltfast.sample``.
        correlation_method: see ``compute_loss_kernel``.
        top_k: see ``compute_loss_kernel``.
        top_k_by: see ``compute_loss_kernel``.
        standard_errors: see ``compute_loss_kernel``.
        num_blocks: see ``compute_loss_kernel``.
        progress: show progress bars.
        **sampling: every other keyword of ``sltfast.sample``.

    Returns:
        See ``compute_loss_kernel``.

    Raises:
        ValueError, TypeError, OutputMismatch, AllChainsDied: as ``sltfast.sample`` and ``compute_loss_kernel``.

    Source: Adam, Furman & Hoogland 2509.26537.
    """
    from sltfast.sampling import sample

    identifiers(observables, "loss_kernel")
    _check(correlation_method, top_k, top_k_by, num_blocks)
    settings = settings_for_pairs(sampling, method=correlation_method, reduction="stack", num_blocks=num_blocks)
    samples = sample(
        model,
        dataset,
        observables,
        lr=lr,
        n_beta=n_beta,
        loss_fn=loss_fn,
        progress=progress,
        **settings,
    )
    return compute_loss_kernel(
        samples,
        correlation_method=correlation_method,
        top_k=top_k,
        top_k_by=top_k_by,
        standard_errors=standard_errors,
        num_blocks=num_blocks,
        progress=progress,
    )


def compute_loss_kernel(
    samples: xr.DataTree,
    *,
    correlation_method: CorrelationMethod = "sequence",
    loss_keys: Keys = "all",
    top_k: int | None = None,
    top_k_by: RankBy = "absolute",
    standard_errors: bool | None = None,
    num_blocks: int = 8,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How alike the losses of two items answer to changes of the weights.

        K(x, x') = Cov[ℓ(x), ℓ(x')],   R(x, x') = K/√(K(x, x)·K(x', x')), 0 where a loss does not vary,

    over the draws of all chains that lived. Both are symmetric and positive semi-definite. Items that different
    weights serve have R near 0.

    Args:
        samples: from ``sltfast.sample`` or ``sltfast.open``, or devinterp's tree.
        correlation_method: items are "sequence"s or single "token"s.
        loss_keys: see ``compute_bif``.
        top_k: keep of R the k largest of each row, with which they are, and no matrix.
        top_k_by: rank by the "absolute" or the signed "value".
        standard_errors: see ``compute_bif``.
        num_blocks: see ``compute_bif``.
        batch_size: see ``compute_bif``.
        device: see ``compute_bif``.
        progress: show a progress bar, if it takes long.

    Returns:
        ``xr.Dataset``: ``kernel`` in nats² and ``correlation``, (batch_1, batch_2) or with tokens (batch_1, batch_2,
        target_position, target_position_T); ``kernel_se``, ``correlation_se``; ``input_ids``. With ``top_k``
        ``correlation`` (batch_1[, target_position], neighbour), its error, and ``neighbour_batch``
        [, ``neighbour_position``].

    Raises:
        ValueError, TypeError, AllChainsDied: as ``compute_bif``.

    Source: Adam, Furman & Hoogland 2509.26537.
    """
    _check(correlation_method, top_k, top_k_by, num_blocks)
    options: dict[str, Any] = {
        "correlation_method": correlation_method,
        "loss_keys": loss_keys,
        "sign": 1,
        "standard_errors": standard_errors,
        "num_blocks": num_blocks,
        "batch_size": batch_size,
        "device": device,
        "progress": progress,
    }
    found = compute_bif(samples, normalize=True, top_k=top_k, top_k_by=top_k_by, **options)
    result = found.rename({name: name.replace("influences", "correlation") for name in _values(found)})
    if top_k is None:
        kernel = compute_bif(samples, **options)
        for name in _values(kernel):
            result[name.replace("influences", "kernel")] = kernel[name]
    return result.assign_attrs(definition="K = Cov[ℓ_i, ℓ_j], R = Corr[ℓ_i, ℓ_j]")


def _values(result: xr.Dataset) -> list[str]:
    return [str(name) for name in result.data_vars if str(name).startswith("influences")]


def _check(method: str, top_k: int | None, top_k_by: str, num_blocks: int) -> None:
    check_options(
        correlation_method=method,
        reduce_chain_dimension_method="stack",
        top_k=top_k,
        top_k_by=top_k_by,
        sign=1,
        normalize=False,
        compute_covariance=None,
        batch_size=1,
        num_blocks=num_blocks,
    )
