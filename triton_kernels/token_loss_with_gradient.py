"""`token_loss_with_gradient` in Triton: forward and backward in one call.

Logits stay in registers, so they are formed twice: the saving of a slab that holds them is the native backend's.
"""

import torch
from torch import Tensor

from sltfast.triton_kernels.token_loss import token_loss
from sltfast.triton_kernels.token_loss_backward import token_loss_backward


def token_loss_with_gradient(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
    needs_unembedding: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`sltfast::triton_token_loss_with_gradient`."""
    rest = (ignore_index, scale, softcap, precision)
    loss, lse = token_loss(hidden, unembedding, bias, targets, *rest)
    gradients = token_loss_backward(
        weights, hidden, unembedding, bias, targets, lse, *rest, True, needs_unembedding, needs_bias
    )
    total = torch.where(weights != 0, weights.double() * loss.double(), 0).sum().to(loss.dtype)
    return total, loss, *gradients
