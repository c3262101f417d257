"""What a first forward tells before a run: which loss is sampled, and whether train mode changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from sltfast.clone import structural_clone
from sltfast.compat.devinterp.slt.lm_loss import (
    compute_per_token_loss,
    lm_cross_entropy_loss,
    lm_forward_logits,
)
from sltfast.isolation import surroundings
from sltfast.losses import check_causal, item_loss

Losses = Callable[[nn.Module, Tensor], Tensor]
ROUNDING = 64  # units of the last place: train and eval mode may take different kernels of the same sums


class Before(NamedTuple):
    """``loss_fn`` for the engine (None: its own next-token loss); whether ``train_mode`` changes the losses."""

    loss_fn: Losses | None
    train_mode: bool


def look(model: nn.Module, rows: Tensor, loss_fn: Losses | None, seed: int, device: torch.device) -> Before:
    """Try a batch through a clone, in eval and in train mode.

    Args:
        model: the caller's, left as it is.
        rows: token ids [B, T + 1], the first batch.
        loss_fn: the caller's, or None.
        seed: of what the forward draws.
        device: where to try.

    Raises:
        ValueError: ``loss_fn`` gives anything but losses [B, T].
    """
    own = loss_fn is None or loss_fn is compute_per_token_loss
    with surroundings(seed, device):
        clone = structural_clone(model, device)
        rows = (rows[:1] if own else rows).to(device)
        losses: Losses = plain_losses if own or loss_fn is None else loss_fn
        with torch.no_grad():
            plain = losses(clone.eval(), rows)
            check_shape(plain, rows)
            chosen = _engine_loss(clone, rows) if own else loss_fn
            training = any(_acts_in_training(module) for module in clone.modules()) or _differ(
                plain, losses(clone.train(), rows)
            )
    return Before(chosen, training)


def check_shape(losses: Tensor, rows: Tensor) -> None:
    """Refuse losses that are not one for every predicted token of ``rows`` [B, T + 1].

    Raises:
        ValueError: another shape.
    """
    wanted = (*rows.shape[:-1], rows.shape[-1] - 1)
    if tuple(losses.shape) != wanted:
        raise ValueError(
            f"loss_fn must return per-token loss of shape {wanted}, got {tuple(losses.shape)}: one loss for every "
            "token that is predicted"
        )


def plain_losses(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Next-token losses of any model that devinterp takes, without a look at whether they are finite."""
    return lm_cross_entropy_loss(lm_forward_logits(model, input_ids), input_ids)


def _engine_loss(clone: nn.Module, rows: Tensor) -> Losses | None:
    """None where the engine's own next-token loss takes the model; else devinterp's (of models that are not causal)."""
    try:
        check_causal(clone, item_loss(clone, None), rows)
    except TypeError:
        return plain_losses
    return None


def _acts_in_training(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return isinstance(module, _BatchNorm)


def _differ(plain: Tensor, training: Tensor) -> bool:
    scale = float(plain.abs().nan_to_num().max()) + 1.0
    apart = float((plain.double() - training.double()).abs().nan_to_num().max())
    return apart > ROUNDING * torch.finfo(plain.dtype).eps * scale
