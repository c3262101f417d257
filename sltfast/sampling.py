"""``sample``: from a model and data to the recorded losses of localised SGLD chains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sltfast.chains import Wanted, run_chains
from sltfast.losses import LossFn
from sltfast.observables import ObservableSpec
from sltfast.request import EngineName, Record, resolve
from sltfast.restriction import ParamMasks
from sltfast.sampler.capture import StepCaptureSetting
from sltfast.sampler.config import Mode
from sltfast.sampler.precision import Precision

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
    record: Record = "traces",
    sampling_task: str | None = None,
    num_blocks: int = 8,
    shuffle: bool = True,
    match_sampling_input_ids_across_chains: bool = True,
    init_noise: float | None = None,
    device: str | torch.device | None = None,
    mode: Mode = "eval",
    precision: Precision | None = None,
    save_metrics: bool = False,
    save_token_losses: bool = True,
    record_weights: ParamMasks = None,
    dataset_init_loss: bool = False,
    output_path: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    buffer_size: int | None = None,
    engine: EngineName = "auto",
    chains_per_pass: int | None = None,
    memory_budget: int | None = None,
    plan: bool = False,
    step_capture: StepCaptureSetting = "auto",
    compile: bool = False,
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
        param_masks: which coordinates move: None (all that require gradients), names of parts
            (``"l0h1"``, see ``create_param_masks``) or parameters, glob patterns, or ``{name: mask}``.
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
        record: what is kept of observables beside their mean losses: "traces", every loss at every draw, or "moments"
            of each with the sampling task's, by block of draws: what susceptibilities need, in memory that does not
            grow with draws; or "covariances" of all pairs of sequences, likewise: what Bayesian influence needs.
        sampling_task: the observable whose mean loss less its value at w* is φ; needed for moments.
        num_blocks: K, blocks of consecutive draws whose moments are kept apart, for errors by batch means: draw d is in
            block d·K // num_draws.
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
        record_weights: coordinates whose w − w* is recorded at every draw (4 bytes each a draw and chain), named as in
            ``param_masks`` and among those that move; None: none. ``displacement`` (chain, draw, coordinate) holds
            them, ``element`` (coordinate) their flat indices in the full model.
        dataset_init_loss: also record ``init_loss_dataset``, L(w*) over all rows.
        output_path: a zarr directory to write to. The same call with the same path resumes an interrupted run and
            returns a complete one; another run there is refused, with what differs.
        overwrite: begin anew, whatever run stands at ``output_path``: it and what was computed from it are deleted,
            after a warning (``RunDeleted``) that says what goes. What is no run of this package is never deleted.
        progress: show a progress bar.
        buffer_size: for data that can only be iterated: sample from its first ``buffer_size`` items.
        engine: "stacked" folds the chains into the batch, "vmap" maps the loss over them, "sequential" runs one after
            another; "auto" takes the first that gives one chain's losses and gradients on the first rows. All draw the
            same noise, so trajectories differ by rounding alone.
        chains_per_pass: chains that go through the model together; None: the memory's and the clock's choice.
        memory_budget: bytes that sampling may take beside the model; None: 80 % of what is free.
        plan: print the plan and its expected peak of memory before the run.
        step_capture: on a CUDA device, take each step as one CUDA graph; "auto" does where it can, and the plan says
            why not; True refuses to go on without.
        compile: let torch.compile make one function of all chains' losses and gradients under vmap; worth its seconds
            for small models and long runs. The plan says how long it took, or why it was not done.

    Returns:
        ``xr.DataTree`` with devinterp 2.0.1's names. Root: ``loss`` and ``init_loss_trace`` (chain, step), the
        mini-batch mean loss at w_t and, of the same batch, at w*; ``alive``, ``death_step`` (chain); ``init_loss``
        (chain, token_pos); ``sampling_loss`` (chain, draw, batch, token_pos); ``sampling_loss_micro`` (chain, step,
        batch_sampling, token_pos); ``loss_<observable>`` (chain, draw, batch_<observable>, token_pos), read after the
        step of the draw; ``mean_loss_<observable>`` (chain, draw), their weighted mean; ``init_loss_<observable>``
        (batch_<observable>, token_pos) and ``init_mean_loss_<observable>`` (), both at w*, on the same batches and in
        the same mode (with dropout: one sample of it); ``rows_<observable>`` (batch_<observable>), which rows of its
        data set were picked. Losses are in nats. Groups ``posterior`` and ``sample_stats`` are ArviZ's. A chain that
        meets NaN or infinity is stopped, and no other feels it: ``attrs["sltfast"]["deaths"]`` keeps, by chain, its
        step, its loss, the coordinate farthest from w* (``parameter``, ``index``, ``value``, ``distance``) and the
        setting to turn. What is finite is never stopped, however large.

        With ``record="moments"``, in place of ``loss_<observable>`` and for φ_t = L_task(w_t) − L_task(w*) and
        y_t = ℓ(w_t) − ℓ(w*), float64, NaN in blocks that a chain did not live through: ``moment_draws``,
        ``moment_phi``, ``moment_phi_m2`` (chain, block), draws, the mean of φ and Σ (φ − mean)²; and (chain, block,
        batch_<observable>, token_pos) ``moment_mean_<observable>``, the mean of y, ``moment_m2_<observable>``,
        Σ (y − mean)², ``moment_comoment_<observable>``, Σ (φ − mean)(y − mean).

        With ``record="covariances"``, in place of ``loss_<observable>`` and for x_i = ℓ_i(w_t) − ℓ_i(w*), ℓ_i the
        mean loss of sequence i over the positions that have weight, of all observables in the order of their
        identifiers: ``moment_draws``, ``moment_items_mean`` (chain, block, item) and ``moment_items_comoment`` (chain,
        block, item, item_T), Σ (x_i − mean)(x_j − mean).

    Raises:
        ValueError, TypeError: an argument, data set, mask or weight that cannot be sampled, before the first step.
        OutputMismatch: ``output_path`` holds another run (weights, architecture, data, loss, observables or settings
            differ; the message lists in what), or what is no run.
        OutputBusy: another process is writing to ``output_path``.
        NotEnoughMemory: memory ran out with one chain alone; as long as several go together, fewer of them go on
            from where it ran out, with the same noise and data, a warning (``PassShrunk``) says so, and ``plan`` in the
            attrs keeps it for a call that resumes.
        AllChainsDied: no chain is left; ``error.samples`` holds what was recorded.

    Source: Lau et al. 2308.12108; Hitchcock & Hoogland 2507.21449.
    """
    keywords = {
        "lr": lr,
        "n_beta": n_beta,
        "loss_fn": loss_fn,
        "num_chains": num_chains,
        "num_draws": num_draws,
        "num_burnin_steps": num_burnin_steps,
        "num_steps_bw_draws": num_steps_bw_draws,
        "batch_size": batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "localization": localization,
        "noise_level": noise_level,
        "llc_weight_decay": llc_weight_decay,
        "bounding_box_size": bounding_box_size,
        "sampling_method": sampling_method,
        "sampling_method_kwargs": sampling_method_kwargs,
        "rmsprop_eps": rmsprop_eps,
        "rmsprop_alpha": rmsprop_alpha,
        "num_init_loss_batches": num_init_loss_batches,
        "init_seed": init_seed,
        "batches_per_draw": batches_per_draw,
        "obs_seed": obs_seed,
        "record": record,
        "sampling_task": sampling_task,
        "num_blocks": num_blocks,
        "shuffle": shuffle,
        "match_sampling_input_ids_across_chains": match_sampling_input_ids_across_chains,
        "init_noise": init_noise,
        "device": device,
        "mode": mode,
        "precision": precision,
        "save_metrics": save_metrics,
        "save_token_losses": save_token_losses,
        "record_weights": record_weights,
        "dataset_init_loss": dataset_init_loss,
        "overwrite": overwrite,
        "progress": progress,
        "buffer_size": buffer_size,
        "engine": engine,
        "chains_per_pass": chains_per_pass,
        "memory_budget": memory_budget,
        "plan": plan,
        "step_capture": step_capture,
        "compile": compile,
    }
    config, request = resolve(dataset, keywords)
    return run_chains(model, dataset, observables, {"": Wanted(param_masks, output_path)}, config, request)[""]
