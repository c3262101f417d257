"""Every rule about the arguments of the ops on grouped gradients, with the error that names the mend."""

import torch
from torch import Tensor

from sltfast.ops.arguments import LOW_DTYPES, MASTER_DTYPES, check_values, dtype_names
from sltfast.ops.langevin_arguments import check_langevin_step, check_segments

ALGORITHMS = ("auto", "ghost", "formed")
PRECISIONS = ("ieee", "tf32", "bf16")


def _check_matrices(name: str, tensor: Tensor, shape: tuple[int | None, ...], like: Tensor) -> None:
    """Raise unless a tensor has the first factor's dtype and device and this shape; None stands for any size."""
    if tensor.dtype not in MASTER_DTYPES:
        raise TypeError(
            f"{name} must be {dtype_names(MASTER_DTYPES)}, got {dtype_names([tensor.dtype])} (use .float())"
        )
    if tensor.dtype != like.dtype:
        raise TypeError(f"{name} must be {dtype_names([like.dtype])} like the first, got {dtype_names([tensor.dtype])}")
    if tensor.device != like.device:
        raise ValueError(f"{name} must be on {like.device}, got {tensor.device}")
    if tensor.dim() != len(shape) or any(n is not None and n != m for n, m in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("*" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have shape [{wanted}], got {list(tensor.shape)}")


def check_grouped_gradient_products(
    left_a: Tensor, right_a: Tensor, left_b: Tensor, right_b: Tensor, algorithm: str
) -> None:
    """Raise the first broken rule of `ops.grouped_gradient_products` (positional, in the schema's order)."""
    _check_matrices("left_a", left_a, (None, None, None), left_a)
    samples, positions, rows = left_a.shape
    _check_matrices("right_a", right_a, (samples, positions, None), left_a)
    _check_matrices("left_b", left_b, (samples, None, rows), left_a)
    _check_matrices("right_b", right_b, (samples, left_b.shape[1], right_a.shape[2]), left_a)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}, got {algorithm!r}")


def check_grouped_gradient_inner(left: Tensor, right: Tensor, v: Tensor) -> None:
    """Raise the first broken rule of `ops.grouped_gradient_inner` (positional, in the schema's order)."""
    _check_matrices("left", left, (None, None, None), left)
    _check_matrices("right", right, (*left.shape[:2], None), left)
    _check_matrices("v", v, (left.shape[2], right.shape[2]), left)


def check_grouped_gradient_step(
    w: Tensor,
    left: Tensor,
    right: Tensor,
    weights: Tensor | None,
    anchor: Tensor,
    segment: Tensor,
    hyper: Tensor,
    step: Tensor,
    chains: Tensor,
    seed: int,
    stream: int,
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    precision: str,
) -> None:
    """Raise the first broken rule of `ops.grouped_gradient_step_` (positional, in the schema's order)."""
    if segment.dim() != 1 or segment.shape[0] != 5:
        raise ValueError(
            f"segment must have shape [5] (offset, numel, element, run, stride), got {list(segment.shape)}"
        )
    # what it shares with `langevin_step_`; that op's lists of tensors are not there
    check_langevin_step(
        w, [], [], segment[None][:0], hyper, step, chains, seed, stream, "sgld",
        None, None, None, [], [], loss, alive, death_step, None, [], 0.99, 0.1, 1.0, False,
    )  # fmt: skip
    numel, run = check_segments(segment[None], w.shape[1])[0][1:4:2]
    own = (w.dtype, *LOW_DTYPES)
    check_values("anchor", anchor, numel, own, w.device)
    for name, factor in (("left", left), ("right", right)):
        if factor.dim() != 3:
            raise ValueError(f"{name} must have shape [C, N, *], got {list(factor.shape)}")
        if factor.dtype not in own:
            raise TypeError(f"{name} must be {dtype_names(own)}, got {dtype_names([factor.dtype])}")
        if factor.device != w.device:
            raise ValueError(f"{name} must be on {w.device}, got {factor.device}")
        if tuple(factor.shape[:2]) != (w.shape[0], left.shape[1]):
            raise ValueError(
                f"{name} must have shape [{w.shape[0]}, {left.shape[1]}, *], got {list(factor.shape)} "
                "(factors that the chains share: .expand)"
            )
    if weights is not None:
        if weights.dtype != w.dtype:
            raise TypeError(f"weights must be {dtype_names([w.dtype])}, got {dtype_names([weights.dtype])}")
        if weights.shape != left.shape[:2]:
            raise ValueError(f"weights must have shape {list(left.shape[:2])}, got {list(weights.shape)}")
        if weights.device != w.device:
            raise ValueError(f"weights must be on {w.device}, got {weights.device}")
    rows, columns = left.shape[2], right.shape[2]
    if numel != rows * columns:
        raise ValueError(f"segment must hold R·K = {rows}·{columns} coordinates, got {numel}")
    if numel and run not in (columns, numel):
        raise ValueError(f"segment's run must be K = {columns} (columns of a layer) or R·K = {numel}, got {run}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "ieee" and w.dtype == torch.float64:
        raise ValueError(f"precision of a float64 w must be 'ieee', got {precision!r}")
