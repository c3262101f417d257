"""``sample``: from a model and data to the recorded losses of localised SGLD chains."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sltfast.arena import LOW_PRECISION, Arena
from sltfast.batches import BatchStream
from sltfast.clone import structural_clone, unwrap
from sltfast.data import as_source
from sltfast.errors import AllChainsDied
from sltfast.isolation import surroundings
from sltfast.losses import LossFn, check_tokens, item_loss
from sltfast.observables import Observable, ObservableSpec, resolve_observables
from sltfast.ops.grouped_gradient_step import epilogue_refusal
from sltfast.restriction import ParamMasks, Restriction
from sltfast.results.identity import provenance, run_identity
from sltfast.results.layout import ArraySpec, layout
from sltfast.results.store import MemoryStore, Store, ZarrStore
from sltfast.results.tree import existing_run, open_run, tree_from_memory
from sltfast.sampler.baseline import Baseline
from sltfast.sampler.config import Mode, SamplerConfig, rmsprop_kwargs
from sltfast.sampler.precision import Precision, check_precision, compute_dtype, computing, use_tf32
from sltfast.sampler.progress import Progress
from sltfast.sampler.run import Run
from sltfast.sampler.transition import Transition
from sltfast.sampler.trial import trial

if TYPE_CHECKING:
    import xarray as xr


def sample(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None = None,
    *,
    lr: float,
    n_beta: float,
    loss_fn: LossFn | None = None,
    param_masks: ParamMasks = None,
    num_chains: int = 4,
    num_draws: int = 200,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    batch_size: int | None = None,
    gradient_accumulation_steps: int = 1,
    localization: float = 0.0,
    noise_level: float = 1.0,
    llc_weight_decay: float = 0.0,
    bounding_box_size: float | None = None,
    sampling_method: str = "sgmcmc_sgld",
    sampling_method_kwargs: Mapping[str, float] | None = None,
    rmsprop_eps: float | None = None,
    rmsprop_alpha: float | None = None,
    num_init_loss_batches: int = 32,
    init_seed: int = 100,
    batches_per_draw: int = 3,
    obs_seed: int = 1337,
    shuffle: bool = True,
    match_sampling_input_ids_across_chains: bool = True,
    init_noise: float | None = None,
    device: str | torch.device | None = None,
    mode: Mode = "eval",
    precision: Precision | None = None,
    save_metrics: bool = False,
    save_token_losses: bool = True,
    dataset_init_loss: bool = False,
    output_path: str | Path | None = None,
    progress: bool = True,
    buffer_size: int | None = None,
) -> xr.DataTree:
    """Sample weights around w* from the localised tempered posterior and record losses along the way.

    p(w) ∝ exp(−nβ·L(w) − γ/2·|w − w*|² − λ/2·|w|²),  by SGLD on mini-batch gradients of the mean loss:
    w ← w − (ε/2)·G·[nβ·∇L_m(w) + γ(w − w*) + λw] + √ε·σ·√G·ξ,  ξ ~ N(0, 1).

    The caller's model, its device, mode and gradients, and every global random state are left as they were.

    Args:
        model: any module; Hugging Face causal LMs and TransformerLens models need no ``loss_fn``.
        dataset: tensor, tuple or dict of tensors, Hugging Face ``Dataset``, torch ``Dataset`` or ``DataLoader``.
            Language models: token ids, or columns input_ids (attention_mask, labels with −100 = ignored).
        observables: data sets whose per-item losses are read at every draw: ``{name: data set}`` or
            ``{name: (data set, batches_per_draw)}``.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ >= 0 of the mean loss (see ``default_nbeta``).
        loss_fn: ``loss_fn(model, batch) -> losses`` of shape [B] or [B, T], or a pair (losses, weights).
        param_masks: which coordinates move: None (all that require gradients), names or glob patterns, or
            ``{name: mask}``.
        num_chains: independent chains C, differing in their noise.
        num_draws: states recorded of each chain.
        num_burnin_steps: steps before the first draw.
        num_steps_bw_draws: steps between draws; a chain makes burn-in + draws × between steps.
        batch_size: rows of a mini-batch (default: the DataLoader's, else 32).
        gradient_accumulation_steps: mini-batches a step.
        localization: γ >= 0, precision of the Gaussian around w*.
        noise_level: σ; any value but 1 samples no posterior (a warning says so).
        llc_weight_decay: λ >= 0, precision of a Gaussian around 0.
        bounding_box_size: b: coordinates are clamped to w* ± b.
        sampling_method: "sgmcmc_sgld", "rmsprop_sgld" (devinterp's) or "rmsprop_sgld_hh" (bias-corrected,
            Hitchcock & Hoogland 2507.21449); with momentum, "sghmc" (Chen, Fox & Guestrin 1402.4102; soft directions
            mix 1/friction times faster at the same ε, gradient noise counts 1/friction times as much) or "sgnht" (Ding
            et al. 2014: a friction ζ that rises until it takes away the heat of gradient noise; burn it in).
        sampling_method_kwargs: RMSprop's ``{"eps": 0.1, "alpha": 0.99}``; sghmc's ``{"friction": 0.1}``, sgnht's
            ``{"friction": 0.01}``, in (0, 1].
        rmsprop_eps: the same eps, in devinterp's other spelling.
        rmsprop_alpha: the same alpha.
        num_init_loss_batches: batches behind ``init_loss``; 0 leaves it out.
        init_seed: seed of noise and data order.
        batches_per_draw: batches read of each observable at a draw.
        obs_seed: seed that picks their rows.
        shuffle: a fresh permutation of the rows each epoch.
        match_sampling_input_ids_across_chains: all chains see the same batches.
        init_noise: standard deviation of noise added once to each chain's start.
        device: where to sample; None: the model's GPU, else a GPU if there is one, else the CPU.
        mode: "eval" (dropout off), or "train" with a private random state.
        precision: what the model computes in: None (as its weights are, and the caller's autocast), "fp32", "tf32"
            (products of Linear and Conv1D layers) or "bf16" (autocast). Weights that move are kept in float32 (float64
            models: float64) whatever it is, and no global flag is touched.
        save_metrics: record nine norms and dot products of each step (devinterp's ``metrics_*``).
        save_token_losses: record per-item losses of the sampling batches (4·B·T bytes a step), not only their mean.
        dataset_init_loss: also record ``init_loss_dataset``, L(w*) over all rows.
        output_path: a zarr directory to write to. The same call with the same path resumes an interrupted run and
            returns a complete one.
        progress: show a progress bar.
        buffer_size: for data that can only be iterated: sample from its first ``buffer_size`` items.

    Returns:
        ``xr.DataTree`` with devinterp 2.0.1's names. Root: ``loss`` and ``init_loss_trace`` (chain, step), the
        mini-batch mean loss at w_t and, of the same batch, at w*; ``alive``, ``death_step`` (chain); ``init_loss``
        (chain, token_pos); ``sampling_loss`` (chain, draw, batch, token_pos); ``sampling_loss_micro`` (chain, step,
        batch_sampling, token_pos); ``loss_<observable>`` (chain, draw, batch_<observable>, token_pos), read after the
        step of the draw. Losses are in nats. Groups ``posterior`` and ``sample_stats`` are ArviZ's.

    Raises:
        ValueError, TypeError: an argument, data set, mask or weight that cannot be sampled, before the first step.
        OutputMismatch: ``output_path`` holds another run.
        AllChainsDied: no chain is left; ``error.samples`` holds what was recorded.

    Source: Lau et al. 2308.12108; Hitchcock & Hoogland 2507.21449.
    """
    model = unwrap(model)
    path = None if output_path is None else Path(output_path).expanduser().resolve()
    source = as_source(dataset, buffer_size=buffer_size)
    config = SamplerConfig(
        lr=lr,
        n_beta=n_beta,
        batch_size=batch_size if batch_size is not None else (getattr(dataset, "batch_size", None) or 32),
        num_chains=num_chains,
        num_draws=num_draws,
        num_burnin_steps=num_burnin_steps,
        num_steps_bw_draws=num_steps_bw_draws,
        gradient_accumulation_steps=gradient_accumulation_steps,
        num_init_loss_batches=num_init_loss_batches,
        init_seed=init_seed,
        localization=localization,
        noise_level=noise_level,
        llc_weight_decay=llc_weight_decay,
        bounding_box_size=bounding_box_size,
        sampling_method=sampling_method,
        sampling_method_kwargs=rmsprop_kwargs(sampling_method_kwargs, rmsprop_eps, rmsprop_alpha),
        init_noise=init_noise,
        save_metrics=save_metrics,
        shuffle=shuffle,
        match_sampling_input_ids_across_chains=match_sampling_input_ids_across_chains,
        mode=mode,
        precision=precision,
    )
    check_precision(precision, model)
    restriction = Restriction.of(model, param_masks)
    loss = item_loss(model, loss_fn)
    where = _device(model, device)
    lanes = 1 if match_sampling_input_ids_across_chains else config.num_chains
    streams = [
        BatchStream(source, config.batch_size, config.init_seed, shuffle=shuffle, lane=lane) for lane in range(lanes)
    ]
    if loss_fn is None:
        check_tokens(model, source.sample())
    _warn(config)
    with surroundings(config.init_seed, where), computing(precision, where):
        seen = resolve_observables(
            observables,
            batches_per_draw=batches_per_draw,
            batch_size=config.batch_size,
            seed=obs_seed,
            device=where,
            buffer_size=buffer_size,
        )
        if loss_fn is None:
            for observable in seen:
                check_tokens(model, observable.source.sample())
        clone = structural_clone(model, where, compute_dtype(precision)).train(mode == "train")
        if precision == "tf32":
            use_tf32(clone)
        arena = Arena(restriction, clone, 1, where)
        arena.reset()
        arena.attach(0)
        shapes = trial(clone, arena, loss, streams[0], seen, where, language_model=loss_fn is None)
        specs = layout(config, seen, shapes, save_token_losses=save_token_losses)
        if dataset_init_loss:
            specs.append(ArraySpec("init_loss_dataset", (), (), "float64"))
        attrs = _attributes(config, seen, restriction, where)
        state = ""
        if (
            path is not None
        ):  # reading every weight and row is worth it only where another run could be mistaken for this
            identity = run_identity(model, source, restriction, seen, loss)
            attrs["sltfast"]["identity"] = {**identity, "arrays": ", ".join(spec.name for spec in specs)}
            state = existing_run(path, attrs)
            if state == "complete":
                return _checked(open_run(path))
        with Progress(config.num_steps * config.num_chains, config.num_chains, config.n_beta, shown=progress) as bar:
            recorded = shapes.positions if save_token_losses or config.num_init_loss_batches else None
            baseline = Baseline(clone, loss, streams, config, where, bar.baseline, recorded)
            at_init = baseline.step_losses(config.num_steps)
            start = _start_values(baseline, at_init, config, seen, dataset_init_loss)
            memory = MemoryStore(specs if path is None else [])
            store: Store = memory
            if path is not None:
                store = ZarrStore(path, specs, attrs, config.step_of, resume=state == "interrupted")
            for name, values in start.items():
                store.put_whole(name, values)
            run = Run(
                config=config,
                clone=clone,
                arena=arena,
                transition=Transition(config, arena, [0], where),
                loss=loss,
                streams=streams,
                observables=seen,
                store=store,
                init_losses=at_init,
                device=where,
                save_token_losses=save_token_losses,
                tokens=any(spec.name == "sampling_input_ids_micro" for spec in specs),
            )
            completed = False
            try:
                run.chains(bar)
                completed = True
            finally:
                store.close(completed)
    return _checked(open_run(path) if path is not None else tree_from_memory(memory, attrs, completed))


def _warn(config: SamplerConfig) -> None:
    if config.noise_level != 1.0:
        warnings.warn(
            f"noise_level {config.noise_level:g} is not 1: the chains sample no posterior, so λ̂ is no LLC",
            UserWarning,
            stacklevel=3,
        )
    if config.mode == "train":
        warnings.warn(
            "mode='train' samples a randomised loss (dropout) or one that depends on the batch (batch norm): λ̂ then "
            "measures that loss; mode='eval' is the model as it is used",
            UserWarning,
            stacklevel=3,
        )


def _device(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Where to sample.

    Raises:
        ValueError: a device that does not exist here.
    """
    if device is None:
        own = next(model.parameters()).device
        return own if own.type != "cpu" else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.zeros(1, device=where) + 1
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!r} cannot be used here ({error})") from error
    if where.type == "meta":
        raise ValueError("device 'meta' holds no values: give 'cpu' or 'cuda'")
    return where


def _attributes(
    config: SamplerConfig, observables: list[Observable], restriction: Restriction, device: torch.device
) -> dict[str, Any]:
    sampler = {
        **config.as_dict(),
        "epoch_mode": "once",
        "scheduler_type": "constant",
        "scheduler_kwargs": None,
    }
    return {
        "metadata": {
            "config": {
                "sampler": {**sampler, "cores": 1, "online": False},
                "observables": [
                    {
                        "type": "ObserveDifferentDataset",
                        "obs_id": o.id,
                        "batches_per_draw": o.batches_per_draw,
                    }
                    for o in observables
                ],
            }
        },
        "metrics_numel": restriction.numel,
        "sltfast": {
            "provenance": provenance(device),
            "plan": {
                "chains_per_pass": 1,
                "update": "langevin_step_",
                "not_fused": _why_not_fused(config, restriction),
            },
        },
    }


def _why_not_fused(config: SamplerConfig, restriction: Restriction) -> str:
    """Why gradients are kept in memory, instead of the step being taken where they are formed."""
    compute = compute_dtype(config.precision)
    return epilogue_refusal(
        method=config.method,
        micro_batches=config.gradient_accumulation_steps,
        uses=1,
        masked=any(segment.mask is not None for segment in restriction.dense().segments),
        low=compute is None and any(segment.parameter.dtype in LOW_PRECISION for segment in restriction.segments),
        metrics=config.save_metrics,
    ) or (
        "a fused product was not measured to be faster than the library's and langevin_step_ after it "
        "(benchmarks/grouped_gradient.py)"
    )


def _start_values(
    baseline: Baseline,
    at_init: np.ndarray,
    config: SamplerConfig,
    observables: list[Observable],
    dataset_init_loss: bool,
) -> dict[str, np.ndarray]:
    """What is recorded before the first step."""

    def for_chains(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, config.num_chains, axis=0) if len(values) == 1 else values

    values = {"init_loss_trace": for_chains(at_init)}
    if config.num_init_loss_batches:
        batches = config.num_init_loss_batches * config.gradient_accumulation_steps
        by_position, means = baseline.init_loss(batches)
        values |= {"init_loss": for_chains(by_position), "init_loss_mean": for_chains(means)}
    if dataset_init_loss:
        values["init_loss_dataset"] = np.asarray(baseline.dataset_loss())
    for observable in observables:
        ids = observable.token_ids()
        if ids is not None:
            values[f"input_ids_{observable.id}"] = ids.numpy()
    return values


def _checked(tree: xr.DataTree) -> xr.DataTree:
    records = tree.dataset
    if not bool(records["alive"].any()):
        steps = records["death_step"].values.tolist()
        raise AllChainsDied(
            f"every chain diverged (at steps {steps}): lower lr, n_beta or localization; what was recorded is in the "
            "error's .samples",
            samples=tree,
        )
    return tree
