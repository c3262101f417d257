"""One forward and backward at w*, before anything is promised: shapes, finiteness, a gradient, causality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sltfast.batches import BatchStream, fetch
from sltfast.data import leaves
from sltfast.losses import ItemLoss, ItemLosses, check_causal, token_ids
from sltfast.observables import Observable
from sltfast.restriction import Restriction
from sltfast.sampler.shortage import ran_out_of_memory
from sltfast.stacking.prefix import Outline, outlined

Result = TypeVar("Result")


class Shapes(NamedTuple):
    """What a run will record, and what the first batch gave.

    Attributes:
        positions: losses per item T.
        tokens: per row (0: none).
        observable_positions: T of each observable.
        first: losses of the first batch.
        outline: of its forward.
    """

    positions: int
    tokens: int
    observable_positions: list[int]
    first: ItemLosses
    outline: Outline


def trial(
    clone: nn.Module,
    restrictions: Mapping[str, Restriction],
    loss: ItemLoss,
    stream: BatchStream,
    observables: Sequence[Observable],
    device: torch.device,
    *,
    language_model: bool,
) -> Shapes:
    """Try the first batch and a row of each observable. The clone is as it was afterwards.

    Raises:
        ValueError: the model fails on its data, a loss that is not finite or has no gradient (by the weights of any one
            restriction), weights that are negative or all 0.
        TypeError: a language model's loss on a model that is not causal.
        Exception: whatever the caller's ``loss_fn`` raises, with a note on what it was called with.
    """
    batch = stream.batch(0, device)
    parameters = dict(clone.named_parameters())
    moving = {segment.name for restriction in restrictions.values() for segment in restriction.segments}
    for name in moving:
        parameters[name].requires_grad_()
    try:
        with outlined(clone) as calls:
            total, losses = _attempt(loss.objective, clone, loss, batch, language_model=language_model)
        _check_losses(losses, loss)
        _check_gradient(total, loss, parameters, restrictions)
        del total
    finally:
        for name in moving:
            parameters[name].requires_grad_(False)
            parameters[name].grad = None
    if language_model:
        check_causal(clone, loss, batch)
    widths = []
    with torch.no_grad():
        for observable in observables:
            few = observable.rows[: 1 if language_model else observable.batch_size]
            first = fetch(observable.source, few, device)
            widths.append(_attempt(loss, clone, loss, first, language_model=language_model).values.shape[1])
    ids = token_ids(batch)
    tokens = 0 if ids is None else ids.shape[1]
    return Shapes(losses.values.shape[1], tokens, widths, losses.detach(), tuple(calls))


def _attempt(
    call: Callable[[nn.Module, Any], Result], clone: nn.Module, loss: ItemLoss, batch: Any, *, language_model: bool
) -> Result:
    try:
        return call(clone, batch)
    except (IndexError, RuntimeError) as error:
        if ran_out_of_memory(error):
            raise
        if not language_model:
            error.add_note(f"{loss.name} was called with {_described(batch)}")
            raise
        raise ValueError(
            f"{type(clone).__name__} fails on {_described(batch)}: {error} (sequences longer than the model's context?)"
        ) from error
    except Exception as error:
        error.add_note(f"{loss.name} was called with {_described(batch)}")
        raise


def _check_gradient(
    mean: Tensor,
    loss: ItemLoss,
    parameters: Mapping[str, nn.Parameter],
    restrictions: Mapping[str, Restriction],
) -> None:
    if not bool(torch.isfinite(mean)):
        raise ValueError(
            f"the loss at w* is {float(mean.detach())} on the first batch: the model diverges before the first step "
            "(check the data, and the precision of the model)"
        )
    if not mean.requires_grad:
        raise ValueError(f"{loss.name} gives a loss without a gradient (detached, or computed under no_grad)")
    mean.backward(inputs=[parameter for parameter in parameters.values() if parameter.requires_grad])
    for name, restriction in restrictions.items():
        if all(parameters[segment.name].grad is None for segment in restriction.segments):
            whose = f" of {name!r}" if name else ""
            raise ValueError(
                f"no gradient of {loss.name} reaches the selected weights{whose}: the loss must be computed with the "
                "model that is passed to it (sltfast passes its own copy), and the selected weights must be used in it"
            )


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        columns = {key: tuple(value.shape) for key, value in batch.items() if isinstance(value, torch.Tensor)}
        return f"a batch of columns {columns}"
    return f"a batch ({type(batch).__name__}) of shapes {[tuple(leaf.shape) for leaf in leaves(batch)]}"


def _check_losses(losses: ItemLosses, loss: ItemLoss) -> None:
    weights = losses.weights
    if weights is not None and (bool((weights < 0).any()) or not bool(torch.isfinite(weights).all())):
        raise ValueError(
            f"{loss.name} returned negative or infinite weights: a weight is how much an entry counts, >= 0"
        )
    if weights is not None and not bool((weights > 0).any()):
        raise ValueError(f"{loss.name} returned weights that are all 0 on the first batch: nothing counts")
