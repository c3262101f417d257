"""Every rule about the arguments of the `token_loss` ops, and what a tracer sees of their outputs."""

import math

import torch
from torch import Tensor

from sltfast.ops.arguments import LOW_DTYPES, MASTER_DTYPES, dtype_names

PRECISIONS = ("fp32", "tf32", "bf16")


def computed_dtype(given: torch.dtype) -> torch.dtype:
    """What products and sums are held in: float64 for float64, else float32."""
    return torch.float64 if given == torch.float64 else torch.float32


def check_token_loss(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
) -> None:
    """Raise the first broken rule (positional, in the schema's order); C = 1 for arguments without a chain axis."""
    check_shapes(hidden, unembedding, bias, targets, scale, softcap, precision)
    counted = targets[targets != ignore_index]
    vocabulary = unembedding.shape[1]
    if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= vocabulary):
        raise ValueError(
            f"targets must be in 0..{vocabulary - 1} or {ignore_index} (ignored), got {int(counted.min())}.."
            f"{int(counted.max())}"
        )


def check_shapes(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scale: float,
    softcap: float,
    precision: str,
) -> None:
    """Raise the first broken rule that can be told without looking at the targets."""
    if hidden.dtype not in (*MASTER_DTYPES, *LOW_DTYPES):
        raise TypeError(
            f"hidden must be {dtype_names((*MASTER_DTYPES, *LOW_DTYPES))}, got {dtype_names([hidden.dtype])}"
        )
    if hidden.dim() != 3:
        raise ValueError(f"hidden must have shape [N, d] or [C, N, d], got {list(hidden.shape)}")
    chains, tokens, depth = hidden.shape
    if unembedding.dim() != 3 or unembedding.shape[0] not in (1, chains) or unembedding.shape[2] != depth:
        raise ValueError(
            f"unembedding must have shape [V, {depth}], or [{chains}, V, {depth}] for one a chain, got "
            f"{list(unembedding.shape)}"
        )
    same = {"unembedding": unembedding, "bias": bias}
    for name, tensor in same.items():
        if tensor is not None and tensor.dtype != hidden.dtype:
            raise TypeError(
                f"{name} must be {dtype_names([hidden.dtype])} like hidden, got {dtype_names([tensor.dtype])}"
            )
        if tensor is not None and tensor.device != hidden.device:
            raise ValueError(f"{name} must be on {hidden.device}, got {tensor.device}")
    vocabulary = unembedding.shape[1]
    if bias is not None and (bias.dim() != 2 or bias.shape[0] not in (1, chains) or bias.shape[1] != vocabulary):
        raise ValueError(
            f"bias must have shape [{vocabulary}], or [{chains}, {vocabulary}] for one a chain, got {list(bias.shape)}"
        )
    if targets.dtype != torch.int64:
        raise TypeError(f"targets must be int64, got {dtype_names([targets.dtype])}")
    if tuple(targets.shape) != (chains, tokens):
        raise ValueError(f"targets must have shape {[chains, tokens]}, got {list(targets.shape)}")
    if targets.device != hidden.device:
        raise ValueError(f"targets must be on {hidden.device}, got {targets.device}")
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    if not 0.0 <= softcap < math.inf:
        raise ValueError(f"softcap must be finite and > 0, got {softcap} (None: no cap)")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")


def check_rows(name: str, tensor: Tensor, like: Tensor, dtype: torch.dtype) -> None:
    """Raise unless there is one number of `dtype` for each of the targets `like` [C, N]."""
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {dtype_names([dtype])}, got {dtype_names([tensor.dtype])}")
    if tensor.shape != like.shape:
        raise ValueError(f"{name} must have shape {list(like.shape)}, got {list(tensor.shape)}")
    if tensor.device != like.device:
        raise ValueError(f"{name} must be on {like.device}, got {tensor.device}")


def traced_token_loss(hidden: Tensor, unembedding: Tensor, bias: Tensor | None, targets: Tensor, *_: object) -> object:
    """The outputs of `token_loss` without their values."""
    rows = hidden.shape[:2]
    return hidden.new_empty(rows, dtype=computed_dtype(hidden.dtype)), hidden.new_empty(rows, dtype=torch.float64)


def traced_gradients(
    hidden: Tensor, unembedding: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by hidden, unembedding and bias without their values; of no values where not needed."""
    given = (hidden, unembedding, bias)
    empty = [hidden.new_empty(t.shape if need and t is not None else 0) for t, need in zip(given, needs, strict=True)]
    return empty[0], empty[1], empty[2]


def traced_token_loss_backward(
    dloss: Tensor, hidden: Tensor, unembedding: Tensor, bias: Tensor | None, *rest: object
) -> object:
    """The outputs of `token_loss_backward` without their values."""
    return traced_gradients(hidden, unembedding, bias, (bool(rest[-3]), bool(rest[-2]), bool(rest[-1])))


def traced_token_loss_with_gradient(
    hidden: Tensor, unembedding: Tensor, bias: Tensor | None, targets: Tensor, *rest: object
) -> object:
    """The outputs of `token_loss_with_gradient` without their values."""
    loss = hidden.new_empty(hidden.shape[:2], dtype=computed_dtype(hidden.dtype))
    gradients = traced_gradients(hidden, unembedding, bias, (True, bool(rest[-2]), bool(rest[-1])))
    return loss.new_empty(()), loss, *gradients
