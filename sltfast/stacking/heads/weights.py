"""The weights of lanes' heads: what moves read from the leaves, what does not from the frozen projections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sltfast.stacking.heads.assignment import Assignment
from sltfast.stacking.heads.layout import ROLES, HeadLayout


def chosen(tensor: Tensor, dim: int, heads: Sequence[int]) -> Tensor:
    """The given heads along a dimension; a list as an index would be copied to the device, and waited for."""
    parts = [tensor.narrow(dim, head, 1) for head in heads]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


class LaneWeights:
    """Weights of L = R · C lanes.

    Args:
        layout: of the attention.
        assignment: of heads to restrictions.
        leaves: one a segment, [L, *segment.shape]; read at every call, so that they may be stepped in place.
        lanes: L.
    """

    def __init__(self, layout: HeadLayout, assignment: Assignment, leaves: Sequence[Tensor], lanes: int) -> None:
        self.layout, self.assignment = layout, assignment
        self.leaves = list(leaves)
        self.lanes = lanes
        self.restrictions = len(assignment.queries)
        self.chains = lanes // self.restrictions

    def role(self, role: str) -> tuple[Tensor, Tensor | None]:
        """The weight [L, n·D, in] and bias [L, n·D] of a role's n moving heads; where one of them stays, it is w*'s."""
        projection = self.layout.inputs[role]
        weight, bias = self._moved(role, "weight"), self._moved(role, "bias")
        if weight is None:
            weight = self._of_lanes(role, projection.weight.t() if projection.transposed else projection.weight)
        if bias is None and projection.bias is not None:
            bias = self._of_lanes(role, projection.bias)
        return weight, bias

    def whole_units(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight [L, rows, in] and bias [L, rows] of an interleaved projection, where one leaf each is all of it."""
        projection = self.layout.inputs["q"]
        found: list[Tensor | None] = []
        for kind in ("weight", "bias"):
            if kind == "bias" and projection.bias is None:
                found.append(None)
                continue
            places = [place for role in ROLES for place in self.assignment.places.get((role, kind), ())]
            expected = sum(len(self.assignment.heads(role)[0]) for role in ROLES)
            if len(places) < expected or len({leaf for leaf, _ in places}) > 1:
                return None
            leaf = self.leaves[places[0][0]]
            leaf = leaf.transpose(1, 2) if kind == "weight" and projection.transposed else leaf
            if leaf.shape[1] != expected * self.layout.head_dim:
                return None
            found.append(leaf)
        weight, bias = found
        assert weight is not None
        return weight, bias

    def output(self) -> tuple[Tensor | None, Tensor | None]:
        """[L, n·D, d] of the heads whose output weights move and [R, n'·D, d] of the others, None where there are none.

        Strides are the leaf's.
        """
        moved = self._moved("o", "weight")
        count = self.assignment.moving("o")
        rest = [own[count:] for own in self.assignment.queries]
        return moved, torch.stack([self.frozen_output(heads) for heads in rest]) if rest[0] else None

    def frozen_output(self, heads: Sequence[int]) -> Tensor:
        """[n·D, d]: what the output projection makes of the heads at w*."""
        output = self.layout.output
        by_input = output.weight if output.transposed else output.weight.t()
        return chosen(by_input.unflatten(0, (self.layout.heads, self.layout.head_dim)), 0, heads).flatten(0, 1)

    def _moved(self, role: str, kind: str) -> Tensor | None:
        places = self.assignment.places.get((role, kind))
        if places is None:
            return None
        projection = self.layout.output if role == "o" else self.layout.inputs[role]
        turned = kind == "weight" and projection.transposed != (role == "o")
        size = self.layout.head_dim
        runs: list[tuple[int, int, int]] = []
        for leaf, start in places:
            if runs and runs[-1][0] == leaf and runs[-1][2] == start:
                runs[-1] = (leaf, runs[-1][1], start + size)
            else:
                runs.append((leaf, start, start + size))
        tensors = []
        for leaf, start, stop in runs:
            tensor = self.leaves[leaf].transpose(1, 2) if turned else self.leaves[leaf]
            tensors.append(tensor if stop - start == tensor.shape[1] else tensor[:, start:stop])
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=1)

    def _of_lanes(self, role: str, frozen: Tensor) -> Tensor:
        """[features, …] -> [L, n·D, …] of each lane's moving heads."""
        count, size = self.assignment.moving(role), self.layout.head_dim
        rows = []
        for heads in self.assignment.heads(role):
            starts = [self.layout.start(role, head) for head in heads[:count]]
            rows.append(torch.cat([frozen[start : start + size] for start in starts]))
        return torch.stack(rows).repeat_interleave(self.chains, dim=0)
