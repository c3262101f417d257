"""In which precision the model computes, over master weights of fp32, without a global flag.

fp32: every product in float32. tf32: the operands of Linear and Conv1D products rounded to TF32, sums in float32.
bf16: autocast, matrix products in bfloat16, softmax, normalisation and losses in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sltfast.ops.tf32 import tf32_linear

Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def check_precision(precision: str | None, model: nn.Module) -> None:
    """Refuse a precision that means nothing for a model.

    Raises:
        ValueError: not one of PRECISIONS or None, or a model of float64, which would lose what it was given.
    """
    if precision is None:
        return
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(
            f"precision must be None (the model's own) or one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    double = [name for name, parameter in model.named_parameters() if parameter.dtype == torch.float64]
    if double:
        raise ValueError(
            f"precision={precision!r} would compute float64 weights ({double[0]!r}) in less than they hold: leave "
            "precision=None, or pass model.float()"
        )


def compute_dtype(precision: str | None) -> torch.dtype | None:
    """The dtype that the clone's weights are held in: float32 for every named precision, None for the model's own."""
    return None if precision is None else torch.float32


def computed_in(model: nn.Module, precision: str | None, device: torch.device) -> torch.dtype:
    """The dtype whose rounding a forward's results have, inside ``computing``: that of autocast, of TF32's operands
    (float16 keeps as many bits), or the coarsest of the weights.
    """
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    if precision == "tf32":
        return torch.float16
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return max(kinds, key=lambda kind: float(torch.finfo(kind).eps))


@contextmanager
def computing(precision: str | None, device: torch.device) -> Iterator[None]:
    """Run forwards and backwards in a precision; None keeps the caller's autocast. No autocast cache in any case: it
    would hold weights that the chains have moved since.
    """
    kind = device.type
    if precision is None:
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    else:
        dtype, enabled = torch.bfloat16, precision == "bf16"
    with torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False):
        yield


def use_tf32(clone: nn.Module) -> list[str]:
    """Let every Linear and GPT-2 Conv1D of a structural clone multiply in TF32; returns their names.

    Attention's own products stay in fp32. A subclass with a forward of its own is left as it is.
    """
    changed = []
    for name, module in clone.named_modules():
        forward = type(module).forward
        if forward is nn.Linear.forward:
            module.forward = _Linear(module, transposed=False)
        elif type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
            module.forward = _Linear(module, transposed=True)
        else:
            continue
        changed.append(name)
    return changed


class _Linear:
    """The forward of one module; GPT-2's Conv1D keeps its weight as [in, out]."""

    def __init__(self, module: nn.Module, *, transposed: bool) -> None:
        self.module, self.transposed = module, transposed

    def __call__(self, x: Tensor) -> Tensor:
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        bias: Tensor | None = self.module.bias  # type: ignore[assignment]
        return tf32_linear(x, weight.t() if self.transposed else weight, bias)
