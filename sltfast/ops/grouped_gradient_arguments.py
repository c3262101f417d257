"""Every rule about the arguments of the ops on grouped gradients, with the error that names the mend."""

from torch import Tensor

from sltfast.ops.arguments import MASTER_DTYPES, dtype_names

ALGORITHMS = ("auto", "ghost", "formed")


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
