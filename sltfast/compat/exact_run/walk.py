"""One chain, step by step: losses, gradients, step, draws, in devinterp's order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sltfast.errors import ChainDiverged


class ChainHealthError(Exception):
    """A chain met a loss that is NaN or infinite."""


class ChainFailed(ChainDiverged, UserWarning):
    """A chain met a non-finite loss and was stopped (a UserWarning, as devinterp warns)."""


class Steps(Protocol):
    """What moves the weights: a torch optimiser, or anything with these two methods."""

    def step(self) -> Any:
        """Move them."""

    def zero_grad(self, set_to_none: bool = True) -> Any:
        """Forget the gradients."""


class Schedule(NamedTuple):
    """Steps of a chain: draw d is at step burn-in + d × between; ``accumulated`` batches a step."""

    draws: int
    burnin: int
    between: int
    accumulated: int

    @property
    def steps(self) -> int:
        """Of the whole chain."""
        return self.draws * self.between + self.burnin


class Hooks(NamedTuple):
    """Called with keywords, in devinterp's words: after each batch, after each step, and (each of them) at draws."""

    micro: Callable[..., None] | None
    step: Callable[..., None] | None
    draws: Sequence[Callable[..., None]]


def replayed(loader: DataLoader[Any], epoch_mode: str, batches: int) -> Iterator[Any]:
    """The batches of a chain: with "cycle" the first epoch over and over, with "once" one epoch.

    Args:
        loader: of one epoch.
        epoch_mode: "cycle" or "once".
        batches: that will be asked for.

    Raises:
        ValueError: another mode, or a loader without a batch or, for "once", with fewer than are asked for.
    """
    if epoch_mode not in ("cycle", "once"):
        raise ValueError(f"Unknown epoch_mode: {epoch_mode!r} (allowed: 'cycle', 'once')")
    if epoch_mode == "once" and len(loader) < batches:
        raise ValueError(
            f"Dataset too small: need {batches} batches, have {len(loader)}: use epoch_mode='cycle' or more rows"
        )
    if len(loader) == 0:
        raise ValueError("Dataset too small: it has fewer rows than one batch: give a smaller batch_size")
    seen = []
    for batch in loader:
        yield batch
        if epoch_mode == "cycle":
            seen.append(batch)
    while seen:
        yield from seen


def walk(
    model: nn.Module,
    feed: Iterator[Any],
    evaluate: Callable[[nn.Module, Any], tuple[Tensor, Any]],
    optimizer: Steps,
    schedule: Schedule,
    hooks: Hooks,
    *,
    chain: int,
    device: Any,
) -> int:
    """Walk one chain; a non-finite loss ends it with a warning (``ChainFailed``).

    Args:
        model: the chain's own, in the mode in which it is sampled.
        feed: batches, mappings with ``input_ids``.
        evaluate: ``evaluate(model, batch) -> (losses, anything)``.
        optimizer: moves the model's weights.
        schedule: how many steps, and which of them are draws.
        hooks: who listens.
        chain: its number.
        device: where batches go.

    Returns:
        The step at which it died, -1 if it lived.
    """
    from sltfast.compat.devinterp.slt.lm_loss import NonFiniteLogitsError

    taken = -1
    try:
        for step in range(schedule.steps):
            taken = step
            loss = _gradients(model, feed, evaluate, schedule.accumulated, hooks.micro, chain, step, device)
            if not bool(torch.isfinite(loss).all()):
                raise ChainHealthError(f"Chain {chain} failed: Loss is NaN or Inf at step {step}")
            optimizer.step()
            if hooks.step is not None:
                hooks.step(chain, step, optimizer)
            optimizer.zero_grad(set_to_none=True)
            draw, apart = divmod(step - schedule.burnin, schedule.between)
            if draw >= 0 and apart == 0:
                with torch.no_grad():
                    for hook in hooks.draws:
                        hook(loss=loss.detach(), draw=draw, chain=chain, model=model, optimizer=optimizer)
    except (ChainHealthError, NonFiniteLogitsError) as error:
        warnings.warn(f"Chain failed: {error} (chain {chain}, step {taken})", ChainFailed, stacklevel=4)
        return taken
    return -1


def _gradients(
    model: nn.Module,
    feed: Iterator[Any],
    evaluate: Callable[[nn.Module, Any], tuple[Tensor, Any]],
    accumulated: int,
    micro: Callable[..., None] | None,
    chain: int,
    step: int,
    device: Any,
) -> Tensor:
    """Gradients of the mean loss of ``accumulated`` batches; returns their losses' mean, entry by entry, float32."""
    loss = torch.zeros((), device=device, dtype=torch.float32)
    for part in range(accumulated):
        batch = dict(next(feed))
        ids = batch["input_ids"]
        batch["input_ids"] = ids.to(device)
        losses, _ = evaluate(model, batch)
        if micro is not None:
            micro(loss=losses.detach(), input_ids=ids, chain=chain, step=step, micro_step=part)
        losses = losses.float()
        (losses.mean() / accumulated).backward()
        loss = loss + losses.detach() / accumulated
    return loss
