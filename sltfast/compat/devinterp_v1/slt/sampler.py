"""The local learning coefficient of a model over a loader, by the names of devinterp 1.3.2."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.compat.devinterp_v1.optim.sgld import SGLD
from sltfast.compat.devinterp_v1.running.randomness import Seed, callers_randomness
from sltfast.compat.devinterp_v1.running.request import with_nbeta
from sltfast.compat.devinterp_v1.slt.llc import LLCEstimator, OnlineLLCEstimator
from sltfast.compat.devinterp_v1.slt.sampling import sample
from sltfast.compat.devinterp_v1.slt.single_chain import sample_single_chain
from sltfast.compat.devinterp_v1.utils import (
    USE_TPU_BACKEND,
    EvaluateFn,
    default_nbeta,
    get_init_loss_multi_batch,
)
from sltfast.devices import usable_device

__all__ = [
    "SGLD",
    "USE_TPU_BACKEND",
    "LLCEstimator",
    "OnlineLLCEstimator",
    "default_nbeta",
    "estimate_learning_coeff",
    "estimate_learning_coeff_with_summary",
    "get_init_loss_multi_batch",
    "sample",
    "sample_single_chain",
]


def estimate_learning_coeff_with_summary(
    model: nn.Module,
    loader: Any,
    callbacks: Sequence[Any] = (),
    evaluate: EvaluateFn | None = None,
    sampling_method: Any = SGLD,
    optimizer_kwargs: Mapping[str, Any] | None = None,
    num_draws: int = 100,
    num_chains: int = 10,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    init_loss: Any = None,
    grad_accum_steps: int = 1,
    cores: int | Sequence[Any] | None = 1,
    seed: Seed = None,
    device: torch.device | str = "cpu",
    gpu_idxs: Sequence[int] | None = None,
    verbose: bool = True,
    optimize_over_per_model_param: Mapping[str, Tensor] | None = None,
    online: bool = False,
    use_amp: bool = False,
    exact: bool | None = None,
) -> dict[str, Any]:
    """λ̂ = nβ·(E[L(w)] − L(w*)) of chains around w*, and what the callbacks found.

    Arguments are those of ``sample``. The estimator stands before the ``callbacks``; ``online`` makes it an
    ``OnlineLLCEstimator`` instead of an ``LLCEstimator``.

    Returns:
        The estimator's results and those of the callbacks by name.

    Raises:
        As ``sample``.
    """
    given = {name: value for name, value in locals().items() if name != "online"}
    given["device"] = where = usable_device(device)
    given["optimizer_kwargs"] = own_kwargs = with_nbeta(optimizer_kwargs, loader, grad_accum_steps)
    if not {"nbeta", "temperature"} & set(optimizer_kwargs or ()):
        warnings.warn(f"nbeta is not set: taking m / ln m = {own_kwargs['nbeta']:.4g}", UserWarning, stacklevel=2)
    with callers_randomness(where, restore=seed is not None, loader=loader):
        if init_loss is None:
            batches = num_chains * grad_accum_steps
            given["init_loss"] = get_init_loss_multi_batch(loader, batches, model, evaluate, where)
        estimator = (OnlineLLCEstimator if online else LLCEstimator)(
            num_chains, num_draws, given["init_loss"], device=where, nbeta=own_kwargs["nbeta"]
        )
        given["callbacks"] = [estimator, *callbacks]
        return sample(**given)


def estimate_learning_coeff(
    model: nn.Module,
    loader: Any,
    callbacks: Sequence[Any] = (),
    evaluate: EvaluateFn | None = None,
    sampling_method: Any = SGLD,
    optimizer_kwargs: Mapping[str, Any] | None = None,
    num_draws: int = 100,
    num_chains: int = 10,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    init_loss: Any = None,
    grad_accum_steps: int = 1,
    cores: int | Sequence[Any] | None = 1,
    seed: Seed = None,
    device: torch.device | str = "cpu",
    verbose: bool = True,
    optimize_over_per_model_param: Mapping[str, Tensor] | None = None,
    exact: bool | None = None,
) -> float:
    """λ̂ alone: "llc/mean" of ``estimate_learning_coeff_with_summary``, whose arguments these are.

    Raises:
        As ``sample``.
    """
    results = estimate_learning_coeff_with_summary(**locals())
    return float(results["llc/mean"])
