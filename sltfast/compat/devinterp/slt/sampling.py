"""``sample``: chains of localised SGLD around a language model's weights, and the losses they meet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from sltfast.compat.devinterp.slt.config import SamplingMethodLiteral
from sltfast.compat.devinterp.slt.lm_loss import LossFn
from sltfast.compat.devinterp.slt.weight_restrictions import ParamMasks
from sltfast.compat.fast_run.sampling import sampled

if TYPE_CHECKING:
    import xarray as xr

SAMPLES_LOSS_DTYPE_STR = "float32"
ZARR_MAX_WRITE_THREADS = 4
ObservableSpec = Any
"""A data set, or ``(data set, batches per draw)``."""


def sample(
    model: nn.Module,
    dataset: Any,
    observables: dict[str, ObservableSpec],
    *,
    lr: float,
    n_beta: float,
    param_masks: ParamMasks | None = None,
    num_chains: int = 4,
    num_draws: int = 200,
    batch_size: int = 32,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    num_init_loss_batches: int = 32,
    init_seed: int = 100,
    batches_per_draw: int = 3,
    obs_seed: int = 1337,
    gradient_accumulation_steps: int = 1,
    localization: float = 0.0,
    noise_level: float = 1.0,
    llc_weight_decay: float = 0.0,
    bounding_box_size: float | None = None,
    sampling_method: SamplingMethodLiteral = "sgmcmc_sgld",
    sampling_method_kwargs: dict[str, Any] | None = None,
    rmsprop_eps: float | None = None,
    rmsprop_alpha: float | None = None,
    shuffle: bool = True,
    match_sampling_input_ids_across_chains: bool = True,
    init_noise: float | None = None,
    device: str | None = None,
    save_metrics: bool = False,
    output_path: str | Path | None = None,
    loss_fn: LossFn | None = None,
    exact: bool | None = None,
) -> xr.DataTree:
    """Sample p(w) ∝ exp(−nβ·L(w) − γ/2·|w − w*|² − λ/2·|w|²) and record the losses of batches and observables.

    w ← w − (ε/2)·G·[nβ·∇L_m(w) + γ(w − w*) + λw] + √ε·σ·√G·ξ.  Chains run together through sltfast's engine; a model
    that train mode changes (dropout, batch norm) goes through the exact loop, one chain after another.

    Args:
        model: Hugging Face, TransformerLens, or any module that maps token ids to logits.
        dataset: Hugging Face ``Dataset`` with ``input_ids``; other columns are not read.
        observables: ``{name: data set}`` or ``{name: (data set, batches per draw)}``; may be empty.
        lr: ε >= 0.
        n_beta: nβ >= 0 of the mean loss.
        param_masks: parameters that move, each with a mask of its shape or None (all of it); None: every parameter.
        num_chains: chains.
        num_draws: draws of each; draw d is at step burn-in + d × between.
        batch_size: rows of a batch, of observables too.
        num_burnin_steps: steps before the first draw.
        num_steps_bw_draws: steps between draws.
        num_init_loss_batches: batches behind ``init_loss``, times ``gradient_accumulation_steps``.
        init_seed: of noise and data order.
        batches_per_draw: of observables given without a number.
        obs_seed: picks the observables' rows.
        gradient_accumulation_steps: batches a step.
        localization: γ.
        noise_level: σ; any value but 1 samples no posterior.
        llc_weight_decay: λ.
        bounding_box_size: coordinates stay within w* ± this.
        sampling_method: "sgmcmc_sgld" or "rmsprop_sgld".
        sampling_method_kwargs: RMSprop's ``alpha`` and ``eps``.
        rmsprop_eps: the same eps.
        rmsprop_alpha: the same alpha.
        shuffle: one permutation of the rows, replayed in every epoch.
        match_sampling_input_ids_across_chains: all chains see the same batches.
        init_noise: deviation of noise added to each chain's start.
        device: None: a GPU where there is one.
        save_metrics: record nine norms and dot products of every step.
        output_path: zarr directory; the same call returns what is complete there and resumes what was interrupted.
        loss_fn: ``loss_fn(model, input_ids) -> losses [B, T − 1]``.
        exact: devinterp's numbers bit for bit; None: whether the call stands within ``exact()``.

    Returns:
        ``xr.DataTree``, at its root (losses in nats, float32): ``init_loss`` (chain, token_pos), ``sampling_loss``
        (chain, draw, batch, token_pos), ``sampling_loss_micro`` and ``sampling_input_ids_micro`` (chain, step,
        batch_sampling, token_pos or token), ``loss_<observable>`` (chain, draw, batch_<observable>, token_pos),
        ``input_ids_<observable>``, and with ``save_metrics`` ``metrics_<name>`` (chain, step). NaN after a chain died.

    Raises:
        ValueError, TypeError: an argument that cannot be sampled.
        AnotherRun: (a RuntimeError) ``output_path`` holds another run.

    Source: Lau et al. 2308.12108; devinterp 2.0.1.
    """
    return sampled(dict(locals()))
