"""All chains of a run side by side: one vectorised forward and one fused step for all of them.

Chain c draws the noise and the order of the rows of its own seed, so that what it does depends on no other chain.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.clone import structural_clone
from sltfast.compat.devinterp_v1.optim.sgld import SGLD
from sltfast.compat.devinterp_v1.running.request import Request
from sltfast.compat.devinterp_v1.running.rows import NotByRow, Rows
from sltfast.compat.devinterp_v1.running.steadiness import why_not_steady
from sltfast.compat.devinterp_v1.slt.llc import LLCEstimator, OnlineLLCEstimator
from sltfast.compat.devinterp_v1.slt.wbic import OnlineWBICEstimator
from sltfast.compat.devinterp_v1.utils import EvaluateFn, split_results
from sltfast.data import leaves
from sltfast.isolation import alone, isolated_rng
from sltfast.losses import ItemLoss
from sltfast.restriction import Restriction
from sltfast.sampler.budget import memory_budget
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.agreement import disagreement
from sltfast.sampler.engines.engine import LaneBatch
from sltfast.sampler.engines.vmapped import VmappedEngine
from sltfast.sampler.transition import Transition

LOG = logging.getLogger("sltfast.compat.devinterp_v1")
LOOK_AT_LOSSES_ONLY = (LLCEstimator, OnlineLLCEstimator, OnlineWBICEstimator)
SETTINGS = {"lr", "noise_level", "weight_decay", "localization", "nbeta", "bounding_box_size", "metrics"}
NOISE_SEED = 132  # the chains' own seeds tell their noise apart
TENSORS_A_LANE = 6  # weights, gradients and what is formed on the way


def why_not_stacked(request: Request) -> str:
    """Why a run needs devinterp's loop, "" where stacked chains have the same distribution."""
    kwargs = request.optimizer_kwargs
    for callback in request.callbacks:
        if type(callback) not in LOOK_AT_LOSSES_ONLY:
            return f"{type(callback).__name__} may look at single steps"
        if getattr(callback, "eval_field", "loss") != "loss":
            return f"{type(callback).__name__} reads {callback.eval_field!r}"
    if request.sampling_method is not SGLD:
        return f"the optimiser is {getattr(request.sampling_method, '__qualname__', request.sampling_method)}, not SGLD"
    if set(kwargs) - SETTINGS:
        return f"the optimiser has {sorted(set(kwargs) - SETTINGS)}"
    numbers = [kwargs[name] for name in sorted(SETTINGS - {"metrics"} & set(kwargs)) if kwargs[name] is not None]
    if not all(isinstance(n, int | float | np.number) and math.isfinite(n) and n >= 0 for n in numbers):
        return "a hyperparameter is no finite number >= 0"
    if not kwargs.get("lr", 0.01) > 0:
        return "lr is 0"
    if request.use_amp:
        return "use_amp computes in float16"
    dtypes = {parameter.dtype for parameter in request.model.parameters()}
    if not dtypes <= {torch.float32, torch.float64}:
        return f"weights are {sorted(map(str, dtypes))}"
    if not all(parameter.requires_grad for parameter in request.model.parameters()):
        return "SGLD shakes frozen parameters too"
    for name, mask in (request.optimize_over_per_model_param or {}).items():
        if not bool(((mask == 0) | (mask == 1)).all()):
            return f"the mask of {name!r} has values between 0 and 1"
    return ""


class _BatchLoss:
    """A caller's ``evaluate`` as a loss per item: every item has the batch's mean."""

    def __init__(self, evaluate: EvaluateFn) -> None:
        self.evaluate = evaluate

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        loss, _ = split_results(self.evaluate(model, batch))
        return loss.reshape(1).expand(len(leaves(batch)[0]))


def run_stacked(request: Request) -> str:
    """Run all chains, then show their losses to the callbacks, chain by chain.

    Returns:
        "" when it is done; else why this model, loss or loader cannot be run so, and nothing has happened.

    Raises:
        RuntimeError: a callback met a NaN.
    """
    device = request.device
    try:
        rows = Rows(request.loader, device)
    except NotByRow as error:
        return str(error)
    seeds = [int(torch.randint(1 << 32, ()).item()) if seed is None else seed for seed in request.seeds]
    with isolated_rng(seeds[0], device), torch.inference_mode(False), torch.enable_grad():
        first = rows.batch(0, seeds[:1])
        reason, saved = why_not_steady(request.model, request.evaluate, first, device)
        if reason:
            return reason
        config = _config(request, rows.batch_size)
        clone = structural_clone(request.model, device).train(False)
        masks = request.optimize_over_per_model_param
        restriction = Restriction.of(clone, None if not masks else {k: m.bool() for k, m in masks.items()})
        loss = ItemLoss(_BatchLoss(request.evaluate), "evaluate")
        try:
            engine = VmappedEngine(structural_clone(clone, device), restriction, loss, 2, device)
            reason = disagreement(engine, clone, loss, first, device, shared=rows.shared) or ""
        except Exception as error:  # whatever a model or a loss does that cannot be vectorised
            reason = f"{type(error).__name__}: {(str(error) or ' ').splitlines()[0]}"
        if reason:
            return f"the loss cannot be vectorised over chains ({reason})"
        together = _lanes_together(restriction, saved, len(seeds), device)
        LOG.info("%d chains are stacked, %d at a time, on %s", len(seeds), together, device)
        losses = np.full((len(seeds), request.num_draws), np.nan, dtype=np.float64)
        for start in range(0, len(seeds), together):
            part = slice(start, min(start + together, len(seeds)))
            engine = VmappedEngine(structural_clone(clone, device), restriction, loss, part.stop - part.start, device)
            losses[part] = _fly(request, config, engine, rows, seeds[part])
    read = torch.from_numpy(losses).to(torch.float32)
    for chain in range(request.num_chains):
        for draw in range(request.num_draws):
            for callback in request.callbacks:
                callback(chain=chain, draw=draw, loss=read[chain, draw])
    return ""


def _config(request: Request, batch_size: int) -> SamplerConfig:
    kwargs = request.optimizer_kwargs
    return SamplerConfig(
        lr=kwargs.get("lr", 0.01),
        n_beta=kwargs["nbeta"],
        batch_size=batch_size,
        num_chains=request.num_chains,
        num_draws=request.num_draws,
        num_burnin_steps=request.num_burnin_steps,
        num_steps_bw_draws=request.num_steps_bw_draws,
        gradient_accumulation_steps=request.grad_accum_steps,
        init_seed=NOISE_SEED,
        localization=kwargs.get("localization", 0.0),
        noise_level=kwargs.get("noise_level", 1.0),
        llc_weight_decay=kwargs.get("weight_decay", 0.0),
        bounding_box_size=kwargs.get("bounding_box_size") or None,
    )


def _fly(
    request: Request, config: SamplerConfig, engine: VmappedEngine, rows: Rows, seeds: Sequence[int]
) -> np.ndarray:
    """Losses at the draws, float64 [L, D]; NaN from the draw on at which a chain's is."""
    from tqdm.auto import tqdm

    lanes, micro = len(seeds), request.grad_accum_steps
    transition = Transition(config, engine.arena, range(lanes), request.device)
    transition.chains.copy_(torch.tensor(list(seeds), dtype=torch.int64))
    transition.reset()
    kept: list[Tensor] = []
    with alone(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # slow, and right
        for step in tqdm(range(request.num_steps), desc=f"{lanes} chains, stacked", disable=not request.verbose):
            total = torch.zeros(lanes, dtype=torch.float64, device=request.device)
            for k in range(step * micro, (step + 1) * micro):
                objective = engine.objective(LaneBatch(rows.batch(k, seeds), rows.shared), 1.0 / micro)
                engine.arena.backward(objective.total)
                total += objective.losses.values.view(lanes, -1)[:, 0].double() / micro
            dead = ~transition.alive
            transition.step(engine.arena.take_gradients(), total)
            if request.draw_at(step) is not None:
                kept.append(torch.where(dead, torch.nan, total))
                if request.device.type == "cpu" and bool(kept[-1].isnan().any()):
                    break
    losses = np.full((lanes, request.num_draws), np.nan)
    losses[:, : len(kept)] = torch.stack(kept, 1).cpu().numpy()
    return losses


def _lanes_together(restriction: Restriction, saved: int, chains: int, device: torch.device) -> int:
    """Chains that the free memory holds at once."""
    lane = TENSORS_A_LANE * 8 * restriction.numel + 3 * saved
    return max(1, min(chains, memory_budget(None, device) // max(1, lane)))
