"""An attention whose heads are lanes: its own forward, over projections that return the lanes' heads alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sltfast.stacking.heads_assignment import Assignment
from sltfast.stacking.heads_layout import CONCATENATED, ROLES, HeadLayout
from sltfast.stacking.heads_output import HeadOutput
from sltfast.stacking.spread import Spread

QUERY_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
KEY_COUNTS = ("num_key_value_heads", "num_kv_heads")
GROUP_COUNTS = ("num_key_value_groups",)
WIDTHS = ("split_size", "embed_dim", "hidden_size")


@dataclass
class Frozen:
    """What an attention computes at w* for one batch, as far as lanes need it.

    Attributes:
        base: [R, B, T, d], the attention's output without the share of restriction r's heads.
        features: role -> [B, T, R·m·D], the frozen keys or values (or queries) that the restrictions' heads read.
    """

    base: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)


class LaneAttention:
    """A clone of an attention module with the lanes' heads for heads.

    Args:
        attention: the frozen module; it is not changed.
        layout: of its heads.
        assignment: of heads to restrictions.
        leaves: one a segment, [L, *segment.shape]; read at every forward.
        lanes: L = R · C.
    """

    def __init__(
        self, attention: nn.Module, layout: HeadLayout, assignment: Assignment, leaves: Sequence[Tensor], lanes: int
    ) -> None:
        self.attention, self.layout, self.assignment = attention, layout, assignment
        self.leaves = list(leaves)
        self.lanes = lanes
        self.restrictions = len(assignment.queries)
        self.chains = lanes // self.restrictions
        # Keys and values that do not move are one a restriction, read by all of its chains, where the attention knows
        # groups; elsewhere they are repeated.
        moving = {role for role, _ in assignment.pieces}
        self.moving = moving
        grouped = any(hasattr(attention, name) for name in GROUP_COUNTS) and len(assignment.keys[0]) == 1
        self.shares_keys = grouped and self._order_allows_sharing and not {"k", "v"} & moving
        self.frozen: Frozen | None = None
        self.clone = self._small_clone()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The attention's own forward; its output is spread: base_r + the lane's own share."""
        return self.clone(*args, **kwargs)

    @torch.no_grad()
    def freeze(self, *args: Any, **kwargs: Any) -> Frozen:
        """Run the attention at w* and keep what lanes need of it."""
        seen: dict[str, Tensor] = {}

        def keep_features(name: str) -> Any:
            return lambda module, inputs, output: seen.__setitem__(name, output)

        def keep_output(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen["z"], seen["out"] = inputs[0], output

        inputs = {p.name: p for p in self.layout.inputs.values()}
        hooks = [p.module.register_forward_hook(keep_features(p.name)) for p in inputs.values()]
        hooks.append(self.layout.output.module.register_forward_hook(keep_output))
        try:
            self.attention(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        heads = seen["z"].unflatten(-1, (self.layout.heads, self.layout.head_dim))
        out = seen["out"]
        base = out.new_empty(self.restrictions, *out.shape)
        for index, own in enumerate(self.assignment.queries):
            share = heads[..., list(own), :].flatten(-2) @ self._output_weight(own)
            torch.sub(out, share, out=base[index])
        features = {}
        for role in ROLES:
            if role not in self.moving:
                owners = self.assignment.queries if role == "q" else self.assignment.keys
                columns = [self.layout.start(role, head) for own in owners for head in own]
                every = seen[self.layout.inputs[role].name]
                size = self.layout.head_dim
                features[role] = torch.cat([every[..., start : start + size] for start in columns], dim=-1)
        return Frozen(base, features)

    @property
    def _order_allows_sharing(self) -> bool:
        return not self.layout.fused or self.layout.order == CONCATENATED

    @property
    def _counts(self) -> tuple[int, int]:
        """Heads of queries and of keys that the small clone sees."""
        keys = self.restrictions if self.shares_keys else self.lanes * len(self.assignment.keys[0])
        return self.lanes * len(self.assignment.queries[0]), keys

    def _small_clone(self) -> nn.Module:
        clone = copy.copy(self.attention)
        clone.__dict__ = dict(self.attention.__dict__)
        clone.__dict__.pop("forward", None)  # an instance's patch, if any, is the caller of this
        clone._modules = dict(self.attention._modules)
        queries, keys = self._counts
        size, heads = self.layout.head_dim, self.layout.heads
        self._resize(clone, QUERY_COUNTS, heads, queries)
        self._resize(clone, KEY_COUNTS, self.layout.kv_heads, keys)
        self._resize(clone, GROUP_COUNTS, heads // self.layout.kv_heads, queries // keys)
        self._resize(clone, WIDTHS, heads * size, queries * size)
        config = getattr(clone, "config", None)
        if config is not None:
            clone.config = copy.copy(config)
            self._resize(clone.config, QUERY_COUNTS, heads, queries)
            self._resize(clone.config, KEY_COUNTS, self.layout.kv_heads, keys)
        for name in {projection.name for projection in self.layout.inputs.values()}:
            clone._modules[name] = _LaneInputs(self, name)
        clone._modules[self.layout.output.name] = _LaneOutputs(self)
        return clone

    @staticmethod
    def _resize(owner: Any, names: Sequence[str], old: int, new: int) -> None:
        for name in names:
            if getattr(owner, name, None) == old:
                setattr(owner, name, new)

    def _output_weight(self, heads: Sequence[int]) -> Tensor:
        """[n·D, d] frozen: what the heads' features are multiplied by."""
        weight = self.layout.output.weight
        by_input = weight if self.layout.output.transposed else weight.t()
        return by_input.unflatten(0, (self.layout.heads, self.layout.head_dim))[list(heads)].flatten(0, 1)

    def moved(self, role: str, kind: str) -> Tensor | None:
        """Per-lane weights [L, n·D, in] or biases [L, n·D] of a role, None where they do not move.

        The output projection's are [L, n·D, d] too: inputs first, as strides of the leaf allow.
        """
        places = self.assignment.pieces.get((role, kind))
        if places is None:
            return None
        projection = self.layout.output if role == "o" else self.layout.inputs[role]
        turned = kind == "weight" and projection.transposed != (role == "o")
        size = self.layout.head_dim
        parts: list[tuple[int, int, int]] = []
        for leaf, start in places:
            if parts and parts[-1][0] == leaf and parts[-1][2] == start:
                parts[-1] = (leaf, parts[-1][1], start + size)
            else:
                parts.append((leaf, start, start + size))
        tensors = []
        for leaf, start, stop in parts:
            tensor = self.leaves[leaf].transpose(1, 2) if turned else self.leaves[leaf]
            tensors.append(tensor if stop - start == tensor.shape[1] else tensor[:, start:stop])
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)


class _LaneInputs(nn.Module):
    """x [B, T, d] -> the lanes' queries, keys and values, in the order that the attention expects."""

    def __init__(self, owner: LaneAttention, name: str) -> None:
        super().__init__()
        self._owner = [owner]  # in a list: not a submodule's business
        self._roles = [role for role in ROLES if owner.layout.inputs[role].name == name]

    def forward(self, x: Tensor) -> Tensor:
        """The projection of all lanes in one product."""
        owner = self._owner[0]
        if len(self._roles) > 1 and owner.layout.order != CONCATENATED:
            return self._interleaved(owner, x)
        parts: list[Tensor] = []
        weights: list[Tensor] = []
        biases: list[Tensor | None] = []

        def project() -> None:
            if weights:
                bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
                parts.append(F.linear(x, weights[0] if len(weights) == 1 else torch.cat(weights), bias))
                weights.clear()
                biases.clear()

        for role in self._roles:
            if role in owner.moving:
                weight, bias = _lane_weights(owner, role)
                weights.append(weight.flatten(0, 1))
                biases.append(None if bias is None else bias.flatten())
            else:
                project()
                parts.append(self._frozen(owner, role))
        project()
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _frozen(self, owner: LaneAttention, role: str) -> Tensor:
        """[B, T, heads·D] of a role that does not move."""
        assert owner.frozen is not None
        features = owner.frozen.features[role]
        if owner.shares_keys and role != "q":
            return features
        per = features.unflatten(-1, (owner.restrictions, 1, -1))
        return per.expand(*per.shape[:-2], owner.chains, -1).flatten(-3)

    def _interleaved(self, owner: LaneAttention, x: Tensor) -> Tensor:
        """[B, T, L·m·(G + 2)·D]: G queries, key, value of a lane's first key head, then of the next."""
        whole = _whole_units(owner)
        if whole is not None:
            weight, bias = whole
            return F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
        size = owner.layout.head_dim
        count = len(owner.assignment.keys[0])
        pieces = []
        for role in ROLES:
            if role in owner.moving:
                weight, bias = _lane_weights(owner, role)
                part = F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
            else:
                part = self._frozen(owner, role)
            pieces.append(part.unflatten(-1, (owner.lanes, count, -1, size)))
        return torch.cat(pieces, dim=-2).flatten(-4)


def _whole_units(owner: LaneAttention) -> tuple[Tensor, Tensor | None] | None:
    """The weight [L, rows, in] and bias of a fused projection where one leaf each is all of a lane's features."""
    pieces, layout = owner.assignment.pieces, owner.layout
    projection = layout.inputs["q"]
    found: list[Tensor | None] = []
    for kind in ("weight", "bias"):
        if kind == "bias" and projection.bias is None:
            found.append(None)
            continue
        places = [pieces.get((role, kind)) for role in ROLES]
        if any(place is None for place in places):
            return None
        flat = [place for part in places if part is not None for place in part]
        leaf = owner.leaves[flat[0][0]]
        if kind == "weight" and projection.transposed:
            leaf = leaf.transpose(1, 2)
        if len({index for index, _ in flat}) > 1 or len(flat) * layout.head_dim != leaf.shape[1]:
            return None
        found.append(leaf)
    weight, bias = found
    assert weight is not None
    return weight, bias


def _lane_weights(owner: LaneAttention, role: str) -> tuple[Tensor, Tensor | None]:
    """The weight [L, n·D, in] and bias [L, n·D] of a role of which either moves; the other is w*'s."""
    projection = owner.layout.inputs[role]
    weight, bias = owner.moved(role, "weight"), owner.moved(role, "bias")
    if weight is None:
        frozen = projection.weight.t() if projection.transposed else projection.weight
        weight = _of_lanes(owner, role, frozen)
    if bias is None and projection.bias is not None:
        bias = _of_lanes(owner, role, projection.bias)
    return weight, bias


def _of_lanes(owner: LaneAttention, role: str, frozen: Tensor) -> Tensor:
    """[features, …] -> [L, n·D, …], each lane's heads."""
    owners = owner.assignment.queries if role == "q" else owner.assignment.keys
    starts = [[owner.layout.start(role, head) for head in own] for own in owners]
    size = owner.layout.head_dim
    rows = torch.stack([torch.cat([frozen[start : start + size] for start in own]) for own in starts])
    return rows.repeat_interleave(owner.chains, dim=0)


class _LaneOutputs(nn.Module):
    """z [B, T, L·n·D] -> spread [L·B, T, d]: base_r + z_l W_l^T."""

    def __init__(self, owner: LaneAttention) -> None:
        super().__init__()
        self._owner = [owner]

    def forward(self, z: Tensor) -> Tensor:
        """Nothing is written yet: what the block adds to all lanes alike is added to the base."""
        owner = self._owner[0]
        assert owner.frozen is not None
        weight = owner.moved("o", "weight")
        if weight is None:
            weight = torch.stack([owner._output_weight(own) for own in owner.assignment.queries])
        return Spread.of(owner.frozen.base, owner.lanes, lambda base: HeadOutput.apply(base, z, weight, owner.lanes))
