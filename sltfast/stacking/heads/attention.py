"""An attention whose heads are lanes: its own forward, over projections that return the lanes' heads alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sltfast.stacking.heads.inputs import LaneInputs
from sltfast.stacking.heads.layout import CONCATENATED, ROLES
from sltfast.stacking.heads.output import HeadOutput
from sltfast.stacking.heads.spread import Spread
from sltfast.stacking.heads.weights import LaneWeights, chosen

QUERY_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
KEY_COUNTS = ("num_key_value_heads", "num_kv_heads")
GROUP_COUNTS = ("num_key_value_groups",)
WIDTHS = ("split_size", "embed_dim", "hidden_size")


class Frozen(NamedTuple):
    """What an attention computes at w* for one batch, as far as lanes need it.

    Attributes:
        base: [R, B, T, d], the attention's output without the share of restriction r's heads.
        features: role -> [B, T, R·n·D], queries, keys or values of the restrictions' heads that do not move.
    """

    base: Tensor
    features: dict[str, Tensor]


class LaneAttention:
    """A clone of an attention module with the lanes' heads for heads.

    Args:
        attention: the frozen module; it is not changed.
        weights: of the lanes.
    """

    def __init__(self, attention: nn.Module, weights: LaneWeights) -> None:
        self.attention, self.weights = attention, weights
        layout, assignment = weights.layout, weights.assignment
        # Keys and values that do not move are one a restriction, read by all of its chains, where the attention knows
        # groups; elsewhere they are repeated.
        self._shares_keys = (
            any(hasattr(attention, name) for name in GROUP_COUNTS)
            and len(assignment.keys[0]) == 1
            and (not layout.fused or layout.order == CONCATENATED)
            and not assignment.moving("k")
            and not assignment.moving("v")
        )
        self._output = _LaneOutputs(weights)
        self._inputs = [
            LaneInputs(weights, name, self._shares_keys)
            for name in {projection.name: None for projection in layout.inputs.values()}
        ]
        self._clone = self._small_clone()

    def __call__(self, frozen: Frozen, *args: Any, **kwargs: Any) -> Any:
        """The attention's own forward on B rows; its output is spread: base_r + the lane's own share."""
        self._output.base = frozen.base
        for projection in self._inputs:
            projection.frozen = frozen.features
        try:
            return self._clone(*args, **kwargs)
        finally:
            self._output.base = None
            for projection in self._inputs:
                projection.frozen = {}

    @torch.no_grad()
    def freeze(self, *args: Any, **kwargs: Any) -> Frozen:
        """Run the attention at w* and keep what lanes need of it."""
        seen: dict[str, Tensor] = {}

        def keep_features(name: str) -> Any:
            return lambda module, inputs, output: seen.__setitem__(name, output)

        def keep_output(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen["z"], seen["out"] = inputs[0], output

        layout, assignment = self.weights.layout, self.weights.assignment
        inputs = {p.name: p for p in layout.inputs.values()}
        hooks = [p.module.register_forward_hook(keep_features(p.name)) for p in inputs.values()]
        hooks.append(layout.output.module.register_forward_hook(keep_output))
        try:
            self.attention(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        heads = seen["z"].unflatten(-1, (layout.heads, layout.head_dim))
        out = seen["out"]
        base = out.new_empty(self.weights.restrictions, *out.shape)
        for index, own in enumerate(assignment.queries):
            share = chosen(heads, -2, own).flatten(-2) @ self.weights.frozen_output(own)
            torch.sub(out, share, out=base[index])
        features = {}
        for role in ROLES:
            count, every = assignment.moving(role), seen[layout.inputs[role].name]
            starts = [layout.start(role, head) for own in assignment.heads(role) for head in own[count:]]
            if starts:
                columns = [every[..., start : start + layout.head_dim] for start in starts]
                features[role] = torch.cat(columns, dim=-1)
        return Frozen(base, features)

    def _small_clone(self) -> nn.Module:
        clone = copy.copy(self.attention)
        clone.__dict__ = dict(self.attention.__dict__)
        clone.__dict__.pop("forward", None)  # an instance's patch, if any, is the caller of this
        clone._modules = dict(self.attention._modules)
        layout, assignment = self.weights.layout, self.weights.assignment
        queries = self.weights.lanes * len(assignment.queries[0])
        keys = self.weights.restrictions if self._shares_keys else self.weights.lanes * len(assignment.keys[0])
        size, heads = layout.head_dim, layout.heads
        _resize(clone, QUERY_COUNTS, heads, queries)
        _resize(clone, KEY_COUNTS, layout.kv_heads, keys)
        _resize(clone, GROUP_COUNTS, heads // layout.kv_heads, queries // keys)
        _resize(clone, WIDTHS, heads * size, queries * size)
        config = getattr(clone, "config", None)
        if config is not None:
            clone.config = copy.copy(config)
            _resize(clone.config, QUERY_COUNTS, heads, queries)
            _resize(clone.config, KEY_COUNTS, layout.kv_heads, keys)
        for name, inputs in zip({p.name: None for p in layout.inputs.values()}, self._inputs, strict=True):
            clone._modules[name] = inputs
        clone._modules[layout.output.name] = self._output
        return clone


class _LaneOutputs(nn.Module):
    """z [B, T, L·n·D] -> spread [L·B, T, d]: base_r + z_l W_l^T.

    Nothing is written yet, so that what the block adds to all lanes alike is added to the base.
    """

    def __init__(self, weights: LaneWeights) -> None:
        super().__init__()
        self.weights = weights
        self.base: Tensor | None = None

    def forward(self, z: Tensor) -> Tensor:
        assert self.base is not None
        moved, rest = self.weights.output()
        lanes = self.weights.lanes
        return Spread.of(self.base, lanes, lambda base: HeadOutput.apply(base, z, moved, rest, lanes))


def _resize(owner: Any, names: Sequence[str], old: int, new: int) -> None:
    for name in names:
        if getattr(owner, name, None) == old:
            setattr(owner, name, new)
