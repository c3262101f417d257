"""The map from a language model's hidden states to its logits, and forwards that stop before it.

    z = s·tanh(κ·u/s), or κ·u without softcap,  u = W·h + b

It is looked for once, at set-up, and believed only where the model's own forward agrees: logits that come from
anything else keep the plain path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.losses.items import LaneWeights


@dataclass(frozen=True)
class LogitRule:
    """From products u to logits: ``scale`` κ, ``softcap`` s or None; ``precision`` of the products' operands outside of
    autocast.
    """

    scale: float = 1.0
    softcap: float | None = None
    precision: str = "fp32"

    def logits(self, products: Tensor) -> Tensor:
        """Logits z of products u."""
        z = self.scale * products
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)


@dataclass(frozen=True)
class Unembedding:
    """Where a model keeps W [V, d] (``transposed``: [d, V]) and b [V], and the rule from u = W·h + b to its logits.

    Attributes:
        module: name of the module that multiplies.
        weight, bias: names of its parameters; bias None: there is none.
    """

    module: str
    weight: str
    bias: str | None
    transposed: bool
    rule: LogitRule = LogitRule()

    def hidden(self, model: nn.Module, ids: Tensor, given: dict[str, Tensor]) -> Tensor | None:
        """[B, T, d] hidden states of a forward that forms no logits; None where that forward is not to be seen through:
        it is run lane by lane, or under vmap.
        """
        head, seen = model.get_submodule(self.module), _Placeholder()
        for _ in range(2):  # a folded model may settle in its first forward, and put its own forwards back
            seen.hidden.clear()
            with replaced_forward(head, seen):
                model(ids, **given)
                settled = head.forward is seen
            if settled:
                break
        # a forward on other rows may come before the one that was asked for
        if not settled or not seen.hidden or torch._C._functorch.is_functorch_wrapped_tensor(seen.hidden[-1]):
            return None
        hidden = seen.hidden[-1]
        return hidden if hidden.shape[:-1] == ids.shape else None

    def weights(self, model: nn.Module, lane_weights: LaneWeights | None = None) -> tuple[Tensor, Tensor | None]:
        """W, [V, d] or [L, V, d] where the lanes have their own, and b, [V], [L, V] or None."""
        head = model.get_submodule(self.module)

        def held(name: str) -> Tensor:
            parameter: nn.Parameter = getattr(head, name)
            own = None if lane_weights is None else lane_weights(parameter)
            return parameter if own is None else own

        weight = held(self.weight)
        return weight.mT if self.transposed else weight, None if self.bias is None else held(self.bias)


class _Placeholder:
    """A forward that keeps its input and gives logits over no vocabulary, which any elementwise rule takes."""

    def __init__(self) -> None:
        self.hidden: list[Tensor] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        self.hidden.append(hidden)
        return hidden.new_zeros((*hidden.shape[:-1], 0))


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[Any]:
    """Let a module run another forward for a while, unless a further one takes its place; gives that forward."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield forward
    finally:
        if module.__dict__.get("forward") is forward:
            if own is None:
                del module.forward
            else:
                module.forward = own
