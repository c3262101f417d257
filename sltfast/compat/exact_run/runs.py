"""A run as devinterp 2.0.1 makes it: losses at w*, then chain after chain, recorded in the package's stores."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sltfast.compat.devinterp.optim.sgmcmc import SGMCMC, gaussians
from sltfast.compat.devinterp.slt.config import SamplerConfig
from sltfast.compat.devinterp.slt.lm_loss import make_evaluate_fn
from sltfast.compat.devinterp.slt.observables import Observable
from sltfast.compat.devinterp.slt.sampler import global_seed, placed, walk_from
from sltfast.compat.exact_run.at_start import init_losses
from sltfast.compat.exact_run.feeding import TokenItems, loader_of
from sltfast.compat.exact_run.recorder import Recorder, arrays
from sltfast.compat.exact_run.signature import identity
from sltfast.compat.exact_run.walk import Hooks, Schedule, replayed
from sltfast.compat.fast_run.job import Job
from sltfast.compat.fast_run.masks import ParamMasks, moving, selected
from sltfast.compat.fast_run.records import as_devinterp
from sltfast.compat.fast_run.settings import engine_config
from sltfast.results.identity import provenance
from sltfast.results.lock import locked
from sltfast.results.store import MemoryStore, Store, ZarrStore
from sltfast.results.tree import existing_run, open_run, tree_from_memory

if TYPE_CHECKING:
    import xarray as xr


def run(**keywords: Any) -> xr.DataTree:
    """Sample as devinterp 2.0.1 does, bit for bit on the CPU in float32 and float64.

    Every array, its dimensions, precision and the attribute ``metadata`` are devinterp's. The model is copied and left
    as it is (devinterp's own moves it to the device and back, and lets batch norm count its batches); the global
    generators are seeded as devinterp seeds them and get their states back. With ``output_path`` the same call returns
    a complete run, and goes on from an interrupted one at its first unfinished chain, to the same bits.

    Args:
        **keywords: every argument of ``sltfast.compat.devinterp.slt.sampling.sample`` but ``exact``.

    Returns:
        ``sample``'s tree.

    Raises:
        ValueError, TypeError: an argument that cannot be sampled.
        OutputMismatch: ``output_path`` holds another run, one of the fast engine's among them.
    """
    job, path = Job.of(keywords), keywords["output_path"]
    masks: dict[str, Any] = keywords["param_masks"] or dict.fromkeys(name for name, _ in job.model.named_parameters())
    moving(job.model, masks)
    engine_config(job.config)
    path = None if path is None else Path(path).expanduser().resolve()
    device = job.device
    rows = TokenItems(job.source)
    with torch.inference_mode(False), torch.enable_grad(), global_seed(device), ExitStack() as held:
        observables = [
            Observable(
                dataset=TokenItems(source),
                task_name=name,
                batches_per_draw=count,
                batch_size=job.config.batch_size,
                context_length=rows.tokens - 1,
                device=device,
                seed=job.obs_seed,
                loss_fn=job.loss_fn,
            )
            for name, (source, count) in job.observables.items()
        ]
        numel = selected(job.model, masks)
        specs = arrays(job.config, rows.tokens, {one.obs_id: one.n_samples for one in observables})
        own: dict[str, Any] = {"provenance": provenance(device), "record": "traces", "plan": {"loop": "exact"}}
        attrs: dict[str, Any] = {"metadata": job.metadata, "sltfast": own}
        if job.config.save_metrics:
            attrs["metrics_numel"] = numel
        state = ""
        if path is not None:
            own["identity"] = {**identity(job, masks), "arrays": ", ".join(spec.name for spec in specs)}
            held.enter_context(locked(path))
            state = existing_run(path, attrs, job.model).state
        store: Store = MemoryStore(specs if path is None else [])
        if path is not None and state != "complete":
            store = ZarrStore(path, specs, attrs, lambda _, row: row, resume=state == "interrupted")
        if state != "complete":
            _chains(job, masks, rows, observables, store)
    if isinstance(store, MemoryStore) and path is None:
        return as_devinterp(tree_from_memory(store, attrs, completed=True), job, numel)
    assert path is not None
    return as_devinterp(open_run(path), job, numel)


def _chains(job: Job, masks: ParamMasks, rows: TokenItems, observables: list[Observable], store: Store) -> None:
    """Record the losses at w*, then every chain that is not recorded yet."""
    completed = False
    try:
        reference = placed(deepcopy(job.model), job.device)
        was_training = reference.training
        for chain, losses in enumerate(init_losses(reference.train(), job, rows)):
            store.put_whole("init_loss", losses, slice(chain, chain + 1))
        reference.train(was_training)
        for one in observables:
            store.put_whole(f"input_ids_{one.obs_id}", one.input_ids.cpu().numpy())
        for chain in range(job.config.num_chains):
            if not store.is_done(range(chain, chain + 1)):
                _chain(job, masks, rows, Recorder(store, job.config, observables, chain), reference)
        completed = True
    finally:
        store.close(completed)


def _chain(job: Job, masks: ParamMasks, rows: TokenItems, recorder: Recorder, reference: nn.Module) -> None:
    config, chain, device = job.config, recorder.chain, job.device
    schedule = Schedule(
        config.num_draws, config.num_burnin_steps, config.num_steps_bw_draws, config.gradient_accumulation_steps
    )
    hooks = Hooks(recorder.micro, recorder.step if config.save_metrics else None, [recorder.draw])
    died = walk_from(
        reference,
        masks,
        lambda groups: _optimizer(groups, config),
        replayed(loader_of(rows, config, chain), config.epoch_mode, schedule.steps * schedule.accumulated),
        make_evaluate_fn(job.loss_fn),
        schedule,
        hooks,
        chain=chain,
        seed=config.init_seed + chain,
        init_noise=config.init_noise,
        device=device,
    )
    recorder.finish(died)


def _optimizer(groups: list[dict[str, Any]], config: SamplerConfig) -> SGMCMC:
    """devinterp's, which warns of its settings by itself."""
    given: Mapping[str, Any] = config.sampling_method_kwargs
    rmsprop = config.sampling_method == "rmsprop_sgld"
    return SGMCMC(
        groups,
        lr=config.lr,
        nbeta=config.n_beta,
        noise_level=config.noise_level,
        prior=gaussians(config.llc_weight_decay, config.localization),
        preconditioner="rmsprop" if rmsprop else "identity",
        preconditioner_kwargs={name: given[name] for name in ("alpha", "eps") if name in given} if rmsprop else None,
        bounding_box_size=config.bounding_box_size,
        save_metrics=config.save_metrics,
    )
