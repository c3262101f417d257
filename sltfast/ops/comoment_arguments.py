"""Every rule about the arguments of the co-moment ops, with the error that names the mend."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sltfast.ops.arguments import MASTER_DTYPES, check_tensor, dtype_names

PRECISIONS = ("fp32", "fp64")


class Comoments(NamedTuple):
    """Number, means and co-moments of the draws of G groups, all float64; `comoments` makes an empty one."""

    draws: Tensor  # [G], how many were counted
    mean_x: Tensor  # [G, N]
    m2_x: Tensor  # [G, N], Σ (x − mean_x)²
    mean_y: Tensor | None = None  # [G, M]; None: y is x
    m2_y: Tensor | None = None  # [G, M]
    block: Tensor | None = None  # [G, N, M], Σ (x − mean_x)(y − mean_y); None: moments alone

    @property
    def symmetric(self) -> bool:
        """Is y x?"""
        return self.mean_y is None


def check_rows(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtypes: Sequence[torch.dtype], device: torch.device
) -> None:
    """Raise unless a tensor has this shape, one of these dtypes, this device, and contiguous rows."""
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name} must be {dtype_names(dtypes)}, got {dtype_names([tensor.dtype])}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
    if tensor.device != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}")
    if shape[-1] > 1 and tensor.stride(-1) != 1:
        raise ValueError(f"{name} must have contiguous rows, got strides {tensor.stride()} (use .contiguous())")


def check_rank(name: str, tensor: Tensor, shape: str) -> None:
    """Raise unless a tensor has as many dimensions as `shape`, say "[G, k, N]"."""
    if tensor.dim() != shape.count(",") + 1:
        raise ValueError(f"{name} must have shape {shape}, got {list(tensor.shape)}")


def check_state(state: Comoments, prefix: str = "") -> tuple[int, int, int]:
    """Raise unless a state is whole; return G, N, M."""
    device = state.draws.device
    f64 = [torch.float64]
    check_rank(f"{prefix}count", state.draws, "[G]")
    check_rank(f"{prefix}mean_x", state.mean_x, "[G, N]")
    g, n = state.draws.shape[0], state.mean_x.shape[1]
    check_tensor(f"{prefix}count", state.draws, (g,), f64, device)
    check_tensor(f"{prefix}mean_x", state.mean_x, (g, n), f64, device)
    check_tensor(f"{prefix}m2_x", state.m2_x, (g, n), f64, device)
    m = n
    if (state.mean_y is None) != (state.m2_y is None):
        raise ValueError(f"{prefix}mean_y and {prefix}m2_y go together: give both, or neither where y is x")
    if state.mean_y is not None and state.m2_y is not None:
        check_rank(f"{prefix}mean_y", state.mean_y, "[G, M]")
        m = state.mean_y.shape[1]
        check_tensor(f"{prefix}mean_y", state.mean_y, (g, m), f64, device)
        check_tensor(f"{prefix}m2_y", state.m2_y, (g, m), f64, device)
    if state.block is not None:
        check_rows(f"{prefix}block", state.block, (g, n, m), f64, device)
    return g, n, m


def _check_valid(valid: Tensor | None, groups: int, draws: int, device: torch.device) -> None:
    if valid is not None:
        check_tensor("valid", valid, (groups, draws), [torch.bool, torch.uint8], device)


def check_comoment(state: Comoments, x: Tensor, y: Tensor | None, valid: Tensor | None, precision: str) -> None:
    """Raise the first broken rule of `ops.comoment_`."""
    g, n, m = check_state(state)
    device = state.draws.device
    check_rank("x", x, "[G, k, N]")
    k = x.shape[1]
    check_rows("x", x, (g, k, n), MASTER_DTYPES, device)
    if (y is None) != state.symmetric:
        given = "is missing, but this state has a mean_y" if y is None else "was given, but in this state y is x"
        raise ValueError(f"y {given} (make the state with comoments(groups, n, m) for another y)")
    if y is not None:
        check_rank("y", y, "[G, k, M]")
        check_rows("y", y, (g, k, m), MASTER_DTYPES, device)
    _check_valid(valid, g, k, device)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {' or '.join(PRECISIONS)}, got {precision!r}")


def check_merge(state: Comoments, other: Comoments) -> None:
    """Raise the first broken rule of `ops.comoment_merge_`."""
    shape, others = check_state(state), check_state(other, "other_")
    if shape != others or state.symmetric != other.symmetric:
        raise ValueError(
            f"the states must have the same G, N and M, got {shape} and {others}"
            + ("" if state.symmetric == other.symmetric else "; in one of them y is x")
        )
    if (state.block is None) != (other.block is None):
        raise ValueError("block must be kept by both states or by neither")
    if state.draws.device != other.draws.device:
        raise ValueError(f"the states must be on one device, got {state.draws.device} and {other.draws.device}")


def check_correlation(out: Tensor, block: Tensor, m2_x: Tensor, m2_y: Tensor | None) -> None:
    """Raise the first broken rule of `ops.comoment_correlation`."""
    check_rank("block", block, "[G, N, M]")
    g, n, m = block.shape
    device = block.device
    check_rows("block", block, (g, n, m), [torch.float64], device)
    check_rows("out", out, (g, n, m), MASTER_DTYPES, device)
    check_tensor("m2_x", m2_x, (g, n), [torch.float64], device)
    if m2_y is not None:
        check_tensor("m2_y", m2_y, (g, m), [torch.float64], device)
    elif n != m:
        raise ValueError(f"block must be square where y is x (m2_y is None), got shape {list(block.shape)}")


def check_standardise(z: Tensor, x: Tensor, mean: Tensor, scale: Tensor, valid: Tensor | None) -> None:
    """Raise the first broken rule of `ops.comoment_standardise_`."""
    check_rank("x", x, "[G, k, N]")
    g, k, n = x.shape
    check_rows("x", x, (g, k, n), MASTER_DTYPES, x.device)
    check_rows("z", z, (g, k, n), MASTER_DTYPES, x.device)
    check_tensor("mean", mean, (g, n), [torch.float64], x.device)
    check_tensor("scale", scale, (g, n), [torch.float64], x.device)
    _check_valid(valid, g, k, x.device)


def check_top_k(values: Tensor, indices: Tensor, block: Tensor, column: int, row: int | None) -> None:
    """Raise the first broken rule of `ops.comoment_top_k_`."""
    check_rank("block", block, "[N, M]")
    check_rank("values", values, "[N, K]")
    n, m = block.shape
    check_rows("block", block, (n, m), MASTER_DTYPES, block.device)
    check_tensor("values", values, (n, values.shape[1]), [block.dtype], block.device)
    check_tensor("indices", indices, (n, values.shape[1]), [torch.int64], block.device)
    if column < 0 or (row is not None and row < 0):
        raise ValueError(f"column and row must be >= 0, got {column} and {row}")
