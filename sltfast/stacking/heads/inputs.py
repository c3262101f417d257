"""The input projections of lanes: queries, keys and values of the lanes' heads alone, all lanes in one product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sltfast.stacking.heads.layout import CONCATENATED, ROLES
from sltfast.stacking.heads.weights import LaneWeights


class LaneInputs(nn.Module):
    """x [B, T, d] -> [B, T, heads·D], in the order that the attention expects of the projection it stands for.

    Args:
        weights: of the lanes.
        name: the projection's.
        shares_keys: keys and values that do not move are given once a restriction, not once a lane.

    Attributes:
        frozen: role -> [B, T, R·n·D], features at w* of the heads that do not move, for the batch under way.
    """

    def __init__(self, weights: LaneWeights, name: str, shares_keys: bool) -> None:
        super().__init__()
        self.weights, self.shares_keys = weights, shares_keys
        self.roles = [role for role in ROLES if weights.layout.inputs[role].name == name]
        self.frozen: dict[str, Tensor] = {}
        moving = weights.assignment.moving
        self._all_move = all(moving(role) == len(weights.assignment.heads(role)[0]) for role in self.roles)

    def forward(self, x: Tensor) -> Tensor:
        """The features of all lanes."""
        if self._all_move:
            weight, bias = self._together()
            return F.linear(x, weight, bias)
        parts = [self._features(role, x) for role in self.roles]
        return self._arranged(parts, x.ndim - 1)

    @property
    def _interleaved(self) -> bool:
        return len(self.roles) > 1 and self.weights.layout.order != CONCATENATED

    def _together(self) -> tuple[Tensor, Tensor | None]:
        """One weight [features, in] and bias for all roles and lanes."""
        whole = self.weights.whole_units() if self._interleaved else None
        if whole is not None:
            weight, bias = whole
            return weight.flatten(0, 1), None if bias is None else bias.flatten()
        pairs = [self.weights.role(role) for role in self.roles]
        biases = [bias.flatten() for _, bias in pairs if bias is not None]
        weight = self._arranged([weight.flatten(0, 1) for weight, _ in pairs], 0)
        return weight, self._arranged(biases, 0) if biases else None

    def _features(self, role: str, x: Tensor) -> Tensor:
        """[B, T, L·n·D] of one role: the moving heads of each lane, then its frozen ones."""
        weights = self.weights
        count = weights.assignment.moving(role)
        total = len(weights.assignment.heads(role)[0])
        parts = []
        if count:
            weight, bias = weights.role(role)
            moved = F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
            parts.append(moved.unflatten(-1, (weights.lanes, -1)))
        if count < total:
            if self.shares_keys and role != "q":
                return self.frozen[role]
            rest = self.frozen[role].unflatten(-1, (weights.restrictions, 1, -1))
            parts.append(rest.expand(*rest.shape[:-2], weights.chains, -1).flatten(-3, -2))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).flatten(-2)

    def _arranged(self, parts: list[Tensor], dim: int) -> Tensor:
        """Features of several roles along ``dim`` as one: role after role, or for every key head its unit."""
        if len(parts) == 1:
            return parts[0]
        if not self._interleaved:
            return torch.cat(parts, dim=dim)
        units = self.weights.lanes * len(self.weights.assignment.keys[0])
        split = [part.unflatten(dim, (units, part.shape[dim] // units)) for part in parts]
        return torch.cat(split, dim=dim + 1).flatten(dim, dim + 1)
