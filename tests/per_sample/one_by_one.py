"""Gradients of single items by plain autograd, one batch of one after another, on the caller's own model: the truth.
Nothing of sltfast is used.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Callable[[nn.Module, Any], Tensor]


def each(batch, index):
    if isinstance(batch, Tensor):
        return batch[index : index + 1]
    if isinstance(batch, dict):
        return {key: value[index : index + 1] for key, value in batch.items()}
    return tuple(value[index : index + 1] for value in batch)


def size_of(batch) -> int:
    if isinstance(batch, dict):
        batch = tuple(batch.values())
    return len(batch if isinstance(batch, Tensor) else batch[0])


def next_token_loss(model, batch) -> Tensor:
    """Mean next-token cross-entropy of one sequence, over the targets that count."""
    columns = batch if isinstance(batch, dict) else {"input_ids": batch}
    ids, mask = columns["input_ids"], columns.get("attention_mask")
    given = {}
    if mask is not None:
        given = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    logits = model(ids, **given).logits[:, :-1]
    targets = columns.get("labels", ids)[:, 1:].clone()
    if mask is not None:
        targets[(mask[:, 1:] == 0) | (mask[:, :-1] == 0)] = -100
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return total / max(1, int((targets != -100).sum()))


def gradients(model: nn.Module, batch: Any, loss: Loss = next_token_loss) -> list[dict[str, Tensor]]:
    """By item, by parameter."""
    result = []
    parameters = dict(model.named_parameters())
    for index in range(size_of(batch)):
        value = loss(model, each(batch, index)).sum()
        found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        result.append(
            {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}
        )
    return result


def norms(rows: list[dict[str, Tensor]]) -> Tensor:
    return torch.stack([sum(g.double().square().sum() for g in row.values()).sqrt() for row in rows])


def products(rows: list[dict[str, Tensor]], direction: dict[str, Tensor]) -> Tensor:
    return torch.stack([sum((row[n].double() * v.double()).sum() for n, v in direction.items()) for row in rows])


def some_direction(model: nn.Module, seed: int = 9) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        for name, parameter in model.named_parameters()
    }


def length(direction: dict[str, Tensor]) -> float:
    return sum(float(v.double().square().sum()) for v in direction.values()) ** 0.5


def relative(got: Tensor, true: Tensor) -> float:
    """The largest error over the items, relative to the largest truth: an item without gradient has no digits."""
    return float((got.double() - true).abs().max() / true.abs().max())
