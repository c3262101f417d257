"""Carry out a run: stacked chains where that gives the same distribution, else chain after chain."""

from __future__ import annotations

import logging

import torch

from sltfast.compat.devinterp_v1.running.randomness import callers_randomness
from sltfast.compat.devinterp_v1.running.request import Request

LOG = logging.getLogger("sltfast.compat.devinterp_v1")


def run(request: Request, *, exact: bool, gpus: list[torch.device]) -> None:
    """Run every chain and call the callbacks at its draws.

    Args:
        request: the run.
        exact: ask for devinterp's loop.
        gpus: devices that chains take in turn.
    """
    from sltfast.compat.devinterp_v1.running.stacked import run_stacked, why_not_stacked

    reason = "asked for (exact)" if exact else why_not_stacked(request)
    if not reason:
        reason = run_stacked(request)
        if not reason:
            return
    LOG.info("chains run one after another, step by step, on %s: %s", ", ".join(map(str, gpus)), reason)
    one_after_another(request, gpus)


def one_after_another(request: Request, devices: list[torch.device]) -> None:
    """The loop of devinterp, chain by chain, each from the loader's state at the start."""
    from sltfast.compat.devinterp_v1.slt.single_chain import run_chain

    for chain, seed in enumerate(request.seeds):
        device = devices[chain % len(devices)]
        with callers_randomness(device, restore=False, loader=request.loader):
            run_chain(
                ref_model=request.model,
                loader=request.loader,
                evaluate=request.evaluate,
                optimizer_kwargs=request.optimizer_kwargs,
                num_draws=request.num_draws,
                num_burnin_steps=request.num_burnin_steps,
                num_steps_bw_draws=request.num_steps_bw_draws,
                grad_accum_steps=request.grad_accum_steps,
                sampling_method=request.sampling_method,
                chain=chain,
                seed=seed,
                verbose=request.verbose,
                device=device,
                optimize_over_per_model_param=request.optimize_over_per_model_param,
                callbacks=request.callbacks,
                use_amp=request.use_amp,
                init_loss=request.init_loss,
            )
