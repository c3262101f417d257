"""Where an attention keeps its heads: which module computes which role, and which features belong to which head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

ROLES = ("q", "k", "v")
INTERLEAVED, CONCATENATED = "interleaved", "concatenated"


@dataclass(frozen=True)
class Projection:
    """A linear map of an attention: y = x W^T + b, its weight kept as [out, in], or [in, out] where ``transposed``.

    Attributes:
        name: its name in the attention.
        module: itself.
        transposed: whether the weight's rows are the inputs (GPT-2's Conv1D).
    """

    name: str
    module: nn.Module
    transposed: bool

    @property
    def weight(self) -> Tensor:
        """W as the module keeps it."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The bias [out], or None."""
        return getattr(self.module, "bias", None)

    @property
    def out_features(self) -> int:
        """Features that come out."""
        return int(self.weight.shape[1 if self.transposed else 0])

    @property
    def in_features(self) -> int:
        """Features that go in."""
        return int(self.weight.shape[0 if self.transposed else 1])


@dataclass(frozen=True)
class HeadLayout:
    """The heads of one attention, H of queries and K of keys and values, G = H / K, all of D features.

    Attributes:
        inputs: the projection that computes each role ("q", "k", "v"); the same one three times where it is fused.
        output: the projection behind the heads; head h reads its inputs h·D … (h+1)·D.
        head_dim: D.
        heads: H.
        kv_heads: K.
        order: of a fused projection's features: "interleaved" (G query heads, key, value of group 0, then of group
            1, …) or "concatenated" (all queries, all keys, all values).
    """

    inputs: Mapping[str, Projection]
    output: Projection
    head_dim: int
    heads: int
    kv_heads: int
    order: str

    @property
    def fused(self) -> bool:
        """Whether one projection computes queries, keys and values."""
        return self.inputs["q"].name == self.inputs["v"].name

    def count(self, role: str) -> int:
        """Heads of a role."""
        return self.heads if role == "q" else self.kv_heads

    def start(self, role: str, head: int) -> int:
        """The first feature of a head in its projection's output."""
        if not self.fused:
            return head * self.head_dim
        if self.order == CONCATENATED:
            before = {"q": 0, "k": self.heads, "v": self.heads + self.kv_heads}[role]
            return (before + head) * self.head_dim
        group = self.heads // self.kv_heads
        if role == "q":
            return ((head // group) * (group + 2) + head % group) * self.head_dim
        return (head * (group + 2) + group + ROLES.index(role) - 1) * self.head_dim


def projections(attention: nn.Module) -> dict[str, Projection]:
    """The direct children of an attention that are linear maps, by name."""
    found = {}
    for name, child in attention.named_children():
        transposed = type(child).__name__ == "Conv1D" and hasattr(child, "nf")
        if isinstance(child, nn.Linear) or transposed:
            found[name] = Projection(name, child, transposed)
    return found


def layouts(attention: nn.Module) -> Iterator[HeadLayout]:
    """Every layout that the shapes of an attention's projections allow, the likelier first.

    Which one is right is told by running it: an attention whose heads are taken by a wrong layout gives other values.
    """
    found = projections(attention)
    by_role = {}
    for name, projection in found.items():
        match = re.match(r"(?:w_?)?([qkv])", name.lower())
        if match:
            by_role[match[1]] = projection
    if len(by_role) == 3:
        for output in found.values():
            if output not in by_role.values():
                yield from _layout(attention, by_role, output, INTERLEAVED)
        return
    # of two matrices the one that computes queries, keys and values has the more outputs
    if len(found) == 2:
        fused, output = sorted(found.values(), key=lambda p: p.out_features / p.in_features, reverse=True)
        orders = [INTERLEAVED, CONCATENATED]
        if hasattr(attention, "split_size"):
            orders.reverse()
        for order in orders:
            yield from _layout(attention, dict.fromkeys(ROLES, fused), output, order)


def _layout(
    attention: nn.Module, inputs: Mapping[str, Projection], output: Projection, order: str
) -> Iterator[HeadLayout]:
    size = _head_dim(attention, output.in_features)
    if size is None:
        return
    heads = output.in_features // size
    wide = inputs["k"].out_features // size
    kv_heads = (wide - heads) // 2 if inputs["q"].name == inputs["k"].name else wide
    layout = HeadLayout(inputs, output, size, heads, kv_heads, order)
    widths = {"q": heads, "k": kv_heads, "v": kv_heads}
    expected = sum(widths.values()) if layout.fused else None
    fits = all(p.out_features == size * (expected or widths[role]) for role, p in inputs.items())
    if fits and kv_heads > 0 and heads % kv_heads == 0 and heads * size == output.in_features:
        yield layout


def _head_dim(attention: nn.Module, width: int) -> int | None:
    config = getattr(attention, "config", None)
    for owner in (attention, config):
        for name in ("head_dim", "head_size"):
            size = getattr(owner, name, None)
            if isinstance(size, int) and size > 0 and width % size == 0:
                return size
    for owner in (attention, config):
        for name in ("num_heads", "num_attention_heads"):
            count = getattr(owner, name, None)
            if isinstance(count, int) and count > 0 and width % count == 0:
                return width // count
    return None
