"""Whether a model's loss is a function of weights and batch alone: what stacked chains take for granted."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.compat.devinterp_v1.utils import EvaluateFn, split_results

PLAIN = int | float | str | bool | None


def why_not_steady(model: nn.Module, evaluate: EvaluateFn, batch: Any, device: torch.device) -> tuple[str, int]:
    """Why a loss is not the same in both modes and whenever it is asked, "" where it is, and a forward's bytes.

    Args:
        model: the caller's; copies run.
        evaluate: the caller's.
        batch: any.
        device: where.

    Returns:
        (reason, bytes that a forward keeps for its backward).
    """
    trained, evaluated = copy.deepcopy(model).to(device).train(), copy.deepcopy(model).to(device).eval()
    before = _state(trained)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        first = split_results(evaluate(trained, batch))[0]
    if not isinstance(first, Tensor) or first.numel() != 1:
        return "evaluate gives no single number", 0
    with torch.no_grad():
        again, other = split_results(evaluate(trained, batch))[0], split_results(evaluate(evaluated, batch))[0]
    if not torch.equal(first.detach(), again):
        return "the loss is random (dropout?)", 0
    if not torch.equal(first.detach(), other):
        return "the loss in train mode is another than in eval mode (batch norm?)", 0
    if not _same(before, _state(trained)):
        return "the model changes itself as it runs", 0
    return "", sum(kept.values())


def _state(model: nn.Module) -> list[Any]:
    """Buffers, parameters and plain attributes of every module."""
    plain = [
        (name, key, value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, PLAIN)
    ]
    return [plain, [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())]]


def _same(a: list[Any], b: list[Any]) -> bool:
    return a[0] == b[0] and all(torch.equal(x, y) for x, y in zip(a[1], b[1], strict=True))
