"""``sample``: chains of a model over a loader, seen by callbacks, by the name of devinterp 1.3.2."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.compat.devinterp_v1.optim.sgld import SGLD
from sltfast.compat.devinterp_v1.running.randomness import Seed, callers_randomness, chain_seeds
from sltfast.compat.devinterp_v1.running.request import Request, in_order, plain_forward, with_nbeta
from sltfast.compat.devinterp_v1.running.run import run
from sltfast.compat.devinterp_v1.slt.callback import results_of, validate_callbacks
from sltfast.compat.devinterp_v1.slt.llc import LLCEstimator, OnlineLLCEstimator
from sltfast.compat.devinterp_v1.utils import EvaluateFn, get_init_loss_multi_batch
from sltfast.compat.exactness import wants_exact
from sltfast.devices import usable_device


def sample(
    model: nn.Module,
    loader: Any,
    callbacks: Sequence[Any] | Mapping[str, Any],
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
    gpu_idxs: Sequence[int] | None = None,
    batch_size: int = 1,
    use_amp: bool = False,
    exact: bool | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Sample weights around w* and show every draw to the callbacks.

    Where only losses are looked at (estimators of this package) and the optimiser is SGLD or RMSprop-SGLD, all chains
    are stacked and step together: the same distribution, other random numbers. Anything that sees models, gradients or
    optimisers, and every other optimiser, gets devinterp's own loop, chain after chain. One line of the log
    (``logging``, "sltfast.compat.devinterp_v1") and the progress bar say which, and why.

    Args:
        model: at w*; it is left as it is.
        loader: mini-batches, a ``DataLoader``.
        callbacks: called at every draw; a dict puts each one's results under its name ("" for none).
        evaluate: ``evaluate(model, batch)`` -> loss, (loss, results) or {"loss": ...}; None: ``model(batch)``.
        sampling_method: optimiser class or factory.
        optimizer_kwargs: of ``sampling_method``: lr, localization, nbeta (default: ``default_nbeta(loader)``), …
        num_draws: draws of each chain.
        num_chains: chains.
        num_burnin_steps: steps before the first draw.
        num_steps_bw_draws: steps a draw; the draw is the last of them.
        init_loss: L(w*); None: the mean over min(chains × accumulation, all) mini-batches.
        grad_accum_steps: mini-batches a step.
        cores: taken for devinterp's sake: no processes start; with ``gpu_idxs`` a number must reach that of the GPUs.
        seed: of the run, or a list of one for each chain. None: torch's global generator, which moves on.
        device: where.
        verbose: show progress.
        optimize_over_per_model_param: masks of all parameters by name; True moves.
        gpu_idxs: GPUs that chains are spread over in devinterp's loop; stacked chains share the first.
        batch_size: taken for devinterp's sake; the loader decides.
        use_amp: autocast to float16 on a GPU.
        exact: True runs devinterp's loop, bit for bit on a CPU; None: as the surrounding ``with exact():`` says.
        **kwargs: taken for devinterp's sake, and named in a warning.

    Returns:
        The callbacks' results by name.

    Raises:
        ValueError, TypeError: an argument that cannot be, before the first step.
        RuntimeError: an estimator met a NaN loss.
    """
    if kwargs:
        warnings.warn(f"sample has no use for {sorted(kwargs)}", UserWarning, stacklevel=2)
    where = usable_device(device)
    seen = in_order(callbacks)
    validate_callbacks(seen)
    own_kwargs = with_nbeta(optimizer_kwargs, loader, grad_accum_steps)
    _warn(loader, seen, own_kwargs["nbeta"], num_draws, num_burnin_steps)
    use = evaluate or plain_forward
    request = Request(
        model=model,
        loader=loader,
        evaluate=use,
        sampling_method=sampling_method,
        optimizer_kwargs=own_kwargs,
        callbacks=seen,
        num_draws=num_draws,
        num_chains=num_chains,
        num_burnin_steps=num_burnin_steps,
        num_steps_bw_draws=num_steps_bw_draws,
        grad_accum_steps=grad_accum_steps,
        seeds=chain_seeds(seed, num_chains),
        device=where,
        init_loss=init_loss,
        verbose=verbose,
        optimize_over_per_model_param=optimize_over_per_model_param,
        use_amp=_amp(use_amp, where),
    )
    gpus = _gpus(gpu_idxs, where, cores)
    with callers_randomness(where, restore=seed is not None, loader=loader):
        if init_loss is None:
            first = seed if seed is None or isinstance(seed, int | np.integer) else seed[0]
            request.init_loss = get_init_loss_multi_batch(
                loader, num_chains * grad_accum_steps, model, use, where, first
            )
        for callback in seen:
            if isinstance(callback, LLCEstimator | OnlineLLCEstimator):
                callback.init_loss = request.init_loss
        run(request, exact=wants_exact(exact), gpus=gpus)
    for callback in seen:
        if hasattr(callback, "finalize"):
            callback.finalize()
    return _results(callbacks)


def _results(callbacks: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if not isinstance(callbacks, Mapping):
        for callback in callbacks:
            results.update(results_of(callback))
        return results
    for name, callback in callbacks.items():
        if name == "":
            results.update(results_of(callback))
        else:
            results[name] = results_of(callback)
    return results


def _amp(use_amp: bool, device: torch.device) -> bool:
    if use_amp and device.type == "cpu":
        warnings.warn("use_amp means nothing on a CPU: computing in the model's precision", UserWarning, stacklevel=3)
        return False
    return use_amp


def _gpus(gpu_idxs: Sequence[int] | None, device: torch.device, cores: Any) -> list[torch.device]:
    if gpu_idxs is None:
        return [device]
    if device.type != "cuda":
        raise ValueError(f"gpu_idxs {list(gpu_idxs)} needs device='cuda', got {str(device)!r}")
    if isinstance(cores, int) and cores < len(gpu_idxs):
        raise ValueError(f"cores must be at least the {len(gpu_idxs)} GPUs of gpu_idxs, got {cores}")
    return [usable_device(f"cuda:{index}") for index in gpu_idxs]


def _warn(loader: Any, callbacks: list[Any], nbeta: Any, num_draws: int, num_burnin_steps: int) -> None:
    """What devinterp's documentation warns of, and a temperature that estimators do not share."""
    if num_burnin_steps < num_draws:
        warnings.warn(
            f"{num_draws} draws after a burn-in of {num_burnin_steps} steps: chains that still climb away from w* give "
            "too low an estimate; look at the traces",
            UserWarning,
            stacklevel=3,
        )
    try:
        batches = len(loader)
    except TypeError:  # a loader of a stream has no length
        return
    if num_draws > batches:
        warnings.warn(
            f"{num_draws} draws of {batches} mini-batches: the loader is gone through more than once",
            UserWarning,
            stacklevel=3,
        )
    for callback in callbacks:
        own = getattr(callback, "nbeta", None)
        if own is not None and abs(float(own) - float(nbeta)) > 1e-5 * abs(float(nbeta)):
            warnings.warn(
                f"{type(callback).__name__} has nbeta {float(own):g}, and the sampler {float(nbeta):g}: give both the "
                "same",
                UserWarning,
                stacklevel=3,
            )
