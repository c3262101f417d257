"""One chain, step for step as devinterp 1.3.2 runs it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.compat.devinterp_v1.optim.sgld import SGLD
from sltfast.compat.devinterp_v1.running.randomness import callers_randomness
from sltfast.compat.devinterp_v1.running.request import with_nbeta
from sltfast.compat.devinterp_v1.slt.mala import MalaAcceptanceRate
from sltfast.compat.devinterp_v1.slt.norms import NoiseNorm
from sltfast.compat.devinterp_v1.utils import EvaluateFn, cycle, prepare_input, split_results
from sltfast.devices import usable_device

LOOP_ONLY = ("held", "bar", "batch", "stepped", "callback")  # what callbacks are not shown


def sample_single_chain(
    ref_model: nn.Module,
    loader: Any,
    evaluate: EvaluateFn,
    optimizer_kwargs: dict[str, Any],
    num_draws: int = 100,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    grad_accum_steps: int = 1,
    sampling_method: Any = SGLD,
    chain: int = 0,
    seed: int | None = None,
    verbose: bool = True,
    device: torch.device | str = "cpu",
    optimize_over_per_model_param: Mapping[str, Tensor] | None = None,
    callbacks: Sequence[Any] = (),
    use_amp: bool = False,
    **kwargs: Any,
) -> None:
    """Run one chain and call the callbacks at its draws.

    Draw d is read after step burn-in + (d + 1)·between: its loss is that of the mini-batches at w before the step, its
    model the one after it.

    Args:
        ref_model: at w*; a copy moves.
        loader: mini-batches, gone through over and over.
        evaluate: ``evaluate(model, batch)``, see ``utils.split_results``.
        optimizer_kwargs: of ``sampling_method``, with nbeta.
        num_draws: draws.
        num_burnin_steps: steps before the first.
        num_steps_bw_draws: steps a draw.
        grad_accum_steps: mini-batches a step.
        sampling_method: makes the optimiser: ``sampling_method(parameters, **optimizer_kwargs, metrics=[...])``.
        chain: the chain's index.
        seed: of torch's generators, which are put back afterwards; None: they are used as they stand.
        verbose: show progress.
        device: where.
        optimize_over_per_model_param: masks of all parameters by name.
        callbacks: called with everything the loop holds, by name.
        use_amp: compute in float16 where that can be (autocast).
        **kwargs: handed to the callbacks as they are.

    Raises:
        ValueError: a loss that is not one number.
    """
    given = dict(locals())
    given |= given.pop("kwargs")
    given["device"] = where = usable_device(device)
    with callers_randomness(where, restore=seed is not None, loader=loader):
        run_chain(**given)


def run_chain(
    ref_model: nn.Module,
    loader: Any,
    evaluate: EvaluateFn,
    optimizer_kwargs: dict[str, Any],
    num_draws: int,
    num_burnin_steps: int,
    num_steps_bw_draws: int,
    grad_accum_steps: int,
    sampling_method: Any,
    chain: int,
    seed: int | None,
    verbose: bool,
    device: torch.device,
    optimize_over_per_model_param: Mapping[str, Tensor] | None,
    callbacks: Sequence[Any],
    use_amp: bool,
    **kwargs: Any,
) -> None:
    """``sample_single_chain`` that leaves torch's generators where the chain left them."""
    from tqdm.auto import tqdm

    num_steps_bw_draws, num_burnin_steps = num_steps_bw_draws * grad_accum_steps, num_burnin_steps * grad_accum_steps
    num_steps = num_draws * num_steps_bw_draws + num_burnin_steps
    model = copy.deepcopy(ref_model).to(device)
    optimizer_kwargs = with_nbeta(optimizer_kwargs, loader, grad_accum_steps)
    optimizer_metrics = optimizer_kwargs["metrics"] = _metrics(optimizer_kwargs.get("metrics"), callbacks)
    optimizer = sampling_method(_parameters(model, optimize_over_per_model_param, device), **optimizer_kwargs)
    if seed is not None:
        torch.manual_seed(int(seed))  # after the optimiser is made: what it drew is not the seed's
    cumulative_loss: Any = 0
    bar = tqdm(desc=f"chain {chain}, step by step", total=num_steps // grad_accum_steps, disable=not verbose)
    with bar as pbar:
        for i, batch in zip(range(num_steps), cycle(loader), strict=False):
            model.train()
            data = prepare_input(batch, device)
            with torch.autocast(device_type=device.type, dtype=torch.float16, enabled=use_amp):
                loss, results = split_results(evaluate(model, data))
                _check(loss)
                loss = loss / grad_accum_steps
                cumulative_loss = cumulative_loss + loss.detach()
                loss.backward()
            stepped = (i + 1) % grad_accum_steps == 0
            if stepped:
                optimizer.step()
            if i >= num_burnin_steps and (i + 1 - num_burnin_steps) % num_steps_bw_draws == 0:
                draw = (i - num_burnin_steps) // num_steps_bw_draws
                loss = cumulative_loss
                held = {name: value for name, value in locals().items() if name not in LOOP_ONLY}
                with torch.no_grad():
                    for callback in callbacks:
                        callback(**held, callback=callback)
            if stepped:
                optimizer.zero_grad()
                cumulative_loss = 0
                pbar.update(1)


def _metrics(asked: Sequence[str] | None, callbacks: Sequence[Any]) -> list[str]:
    """What the optimiser is to keep for the callbacks."""
    metrics = list(asked or [])
    if any(isinstance(callback, MalaAcceptanceRate) for callback in callbacks):
        metrics += ["dws", "localization_loss"]
    if any(isinstance(callback, NoiseNorm) for callback in callbacks):
        metrics += ["noise"]
    return metrics


def _parameters(model: nn.Module, masks: Mapping[str, Tensor] | None, device: torch.device) -> Any:
    if not masks:
        return model.parameters()
    return [
        {"params": parameter, "optimize_over": masks[name].to(device)} for name, parameter in model.named_parameters()
    ]


def _check(loss: Any) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"evaluate gave {what} as the loss: it must be one number, the mean over the batch")
