"""One chain of an optimiser's steps with callbacks, and the seeds it runs under."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sltfast.compat.devinterp.slt.config import EpochMode
from sltfast.compat.devinterp.slt.lm_loss import is_transformer_lens_model
from sltfast.compat.devinterp.slt.weight_restrictions import ParamMasks
from sltfast.compat.exact_run.walk import ChainHealthError, Hooks, Schedule, replayed, walk
from sltfast.compat.fast_run.masks import UnknownParameter
from sltfast.compat.seeding import set_seed
from sltfast.isolation import generators_kept

__all__ = [
    "ChainHealthError",
    "MicroCallback",
    "ParamMasks",
    "StepCallback",
    "calculate_num_steps",
    "is_transformer_lens_model",
    "sample_single_chain",
    "set_seed",
]


class StepCallback(Protocol):
    """Called after every step."""

    def __call__(self, chain: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        """The chain's number, the step's from 0, and what made it."""


class MicroCallback(Protocol):
    """Called after every batch, before its gradient."""

    def __call__(self, loss: Tensor, input_ids: Tensor, chain: int, step: int, micro_step: int) -> None:
        """Losses of the batch, its token ids, and which batch of which step and chain it is."""


def calculate_num_steps(*, num_draws: int, num_steps_bw_draws: int, num_burnin_steps: int) -> int:
    """Steps of one chain: burn-in + draws × steps between them."""
    return num_burnin_steps + num_draws * num_steps_bw_draws


def sample_single_chain(
    ref_model: nn.Module,
    dataset: torch.utils.data.Dataset[Any],
    evaluate: Callable[[nn.Module, Any], tuple[Tensor, dict[str, Any]]],
    param_masks: ParamMasks,
    num_draws: int = 100,
    num_burnin_steps: int = 0,
    num_steps_bw_draws: int = 1,
    gradient_accumulation_steps: int = 1,
    sampling_method: Callable[..., Any] | None = None,
    sampling_method_kwargs: dict[str, Any] | None = None,
    chain: int = 0,
    seed: int | None = None,
    dataloader_seed: int | None = None,
    device: str = "cpu",
    callbacks: list[Callable[..., None]] | None = None,
    step_callback: StepCallback | None = None,
    micro_callback: MicroCallback | None = None,
    batch_size: int = 32,
    init_noise: float | None = None,
    shuffle: bool = True,
    epoch_mode: EpochMode = "cycle",
    exact: bool | None = None,
) -> None:
    """Walk one chain from a model's weights; the callbacks see everything that it meets.

    At each step the mean loss of ``gradient_accumulation_steps`` batches is differentiated and the optimiser moves the
    weights; draw d follows step burn-in + d × between, with the loss from before that step. The model is in train
    mode. A non-finite loss ends the chain with a warning.

    Args:
        ref_model: copied, and left as it is.
        dataset: items are mappings with ``input_ids``, read by a ``DataLoader`` that drops the last, partial batch.
        evaluate: ``evaluate(model, batch) -> (losses, {})``; a batch is a mapping.
        param_masks: the parameters that move, in the order of their noise, each with a mask or None.
        num_draws: draws.
        num_burnin_steps: steps before the first.
        num_steps_bw_draws: steps between.
        gradient_accumulation_steps: batches a step.
        sampling_method: optimiser class, called with one group ``{"params", "mask"}`` a parameter; None: the
            deprecated ``SGLD``.
        sampling_method_kwargs: its settings.
        chain: number that callbacks are told.
        seed: of the global generators; their states come back afterwards. None: they run on from where they are.
        dataloader_seed: of the row order; None: that of an unseeded generator.
        device: where to sample.
        callbacks: at draws, with ``loss``, ``draw``, ``chain``, ``model`` and ``optimizer``.
        step_callback: after every step.
        micro_callback: after every batch.
        batch_size: rows of a batch.
        init_noise: deviation of noise added to what moves, after the optimiser took its centre.
        shuffle: one permutation of the rows.
        epoch_mode: "cycle" replays the first epoch, "once" refuses to go beyond it.
        exact: as in other calls; this loop is devinterp's bit for bit in either mode.

    Raises:
        UnknownParameter: (a KeyError) a mask of a parameter that the model does not have.
        ValueError: too few rows.
    """
    generator = torch.Generator(device="cpu")
    if dataloader_seed is not None:
        generator.manual_seed(dataloader_seed)
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=batch_size, shuffle=shuffle, generator=generator, drop_last=True
    )
    schedule = Schedule(num_draws, num_burnin_steps, num_steps_bw_draws, gradient_accumulation_steps)
    hooks = Hooks(micro_callback, step_callback, callbacks or [])
    method = sampling_method or import_module("sltfast.compat.devinterp.optim").SGLD
    with nullcontext() if seed is None else global_seed(device):
        walk_from(
            ref_model,
            param_masks,
            partial(method, **(sampling_method_kwargs or {})),
            replayed(loader, epoch_mode, schedule.steps * gradient_accumulation_steps),
            evaluate,
            schedule,
            hooks,
            chain=chain,
            seed=seed,
            init_noise=init_noise,
            device=device,
        )


def walk_from(
    ref_model: nn.Module,
    param_masks: Mapping[str, Tensor | None],
    method: Callable[[list[dict[str, Any]]], Any],
    feed: Iterator[Any],
    evaluate: Callable[[nn.Module, Any], tuple[Tensor, Any]],
    schedule: Schedule,
    hooks: Hooks,
    *,
    chain: int,
    seed: int | None,
    init_noise: float | None,
    device: Any,
) -> int:
    """Copy the model, seed, make the optimiser, move the start, walk: a chain in devinterp's order of these.

    Args:
        ref_model: copied.
        param_masks: as in ``sample_single_chain``.
        method: makes the optimiser of one group ``{"params", "mask"}`` a parameter.
        feed: batches.
        evaluate: as in ``sample_single_chain``.
        schedule: of the steps.
        hooks: who listens.
        chain: its number.
        seed: of the global generators, which stay where the chain leaves them.
        init_noise: as in ``sample_single_chain``.
        device: where to sample.

    Returns:
        The step at which the chain died, -1 if it lived.
    """
    model = chain_copy(ref_model, param_masks, device)
    if seed is not None:
        set_seed(seed)
    named = dict(model.named_parameters(remove_duplicate=False))
    masks = {name: None if mask is None else mask.to(device) for name, mask in param_masks.items()}
    optimizer = method([{"params": named[name], "mask": mask} for name, mask in masks.items()])
    if init_noise:
        for name, mask in masks.items():
            weight = named[name].data
            weight.add_(torch.randn_like(weight) * init_noise * (1.0 if mask is None else mask))
    return walk(model.train(), feed, evaluate, optimizer, schedule, hooks, chain=chain, device=device)


def chain_copy(ref_model: nn.Module, param_masks: Mapping[str, Tensor | None], device: Any) -> nn.Module:
    """A deep copy on ``device`` in which only the named parameters get gradients.

    Raises:
        UnknownParameter: a name that the model does not have.
    """
    model = placed(deepcopy(ref_model), device)
    named = dict(model.named_parameters(remove_duplicate=False))
    for name in param_masks:
        if name not in named:
            raise UnknownParameter(
                f"param_masks names {name!r}, and the model has no such parameter: see model.named_parameters()"
            )
    moving = {id(named[name]) for name in param_masks}
    for parameter in named.values():
        if id(parameter) not in moving:
            parameter.requires_grad_(False)
    return model


def placed(model: nn.Module, device: Any) -> nn.Module:
    """The model moved to a device; TransformerLens's does not print that."""
    told: dict[str, Any] = {"print_details": False} if is_transformer_lens_model(model) else {}
    moved: nn.Module = model.to(device, **told)
    return moved


def global_seed(device: Any) -> AbstractContextManager[None]:
    """Let the global generators be seeded within the block; their states come back afterwards."""
    return generators_kept(range(torch.cuda.device_count()) if str(device).startswith("cuda") else [])
