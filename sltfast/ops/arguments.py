"""Rules about the tensors that every op is given, with the error that names the mend.

The native ops check the same rules in C++ on every call; these run when one refuses, and in the reference.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

MASTER_DTYPES = (torch.float32, torch.float64)
LOW_DTYPES = (torch.bfloat16, torch.float16)


def dtype_names(dtypes: Sequence[torch.dtype]) -> str:
    """The dtypes in words."""
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def check_tensor(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtypes: Sequence[torch.dtype], device: torch.device
) -> None:
    """Raise unless a tensor has this shape, one of these dtypes, this device, and is contiguous."""
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name} must be {dtype_names(dtypes)}, got {dtype_names([tensor.dtype])}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()} (use .contiguous())")


def check_list(
    name: str,
    tensors: Sequence[Tensor],
    numels: list[int],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    *,
    optional: bool,
    empty_means: str = "",
) -> None:
    """Raise unless there is one tensor a segment, with `numels` values (or none, where `empty_means` something)."""
    if optional and not tensors:
        return
    if len(tensors) != len(numels):
        raise ValueError(f"{name} must hold one tensor a segment: {len(numels)} segments, got {len(tensors)} tensors")
    for s, (tensor, numel) in enumerate(zip(tensors, numels, strict=True)):
        check_values(f"{name}[{s}]", tensor, numel, dtypes, device, empty_means)


def check_values(
    name: str,
    tensor: Tensor,
    numel: int,
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    empty_means: str = "",
) -> None:
    """Raise unless a tensor holds `numel` values of one of these dtypes, in any shape; or none, as in `check_list`."""
    if tensor.numel() == 0 and (empty_means or numel == 0):
        return
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name} must be {dtype_names(dtypes)}, got {dtype_names([tensor.dtype])}")
    if tensor.numel() != numel:
        hint = f", or none ({empty_means})" if empty_means else ""
        raise ValueError(f"{name} must hold {numel} values{hint}, got shape {list(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}")
