"""The sampled coordinates of the lanes in flight, in one flat aligned buffer per precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sltfast.gradient_home import GradientHome, give_home
from sltfast.restriction import Restriction, Segment

ALIGNMENT = 16  # elements: every segment starts on a cache line in fp32 and fp64 alike
LOW_PRECISION = (torch.bfloat16, torch.float16)


def master_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision a chain's weights are kept in: float64 for float64 weights, float32 for all others.

    A bf16 weight cannot hold an SGLD step: half its spacing exceeds the drift, and the chain only diffuses.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


class Leaf(NamedTuple):
    """What autograd differentiates by: one segment in every lane.

    Attributes:
        segments: of each restriction, the rectangle of the parameter that it moves.
        tensor: [L, *segment.shape], requires a gradient; a view of the weights, so that a step shows in it.
    """

    segments: tuple[Segment, ...]
    tensor: Tensor

    @property
    def name(self) -> str:
        """The parameter's name."""
        return self.segments[0].name


class Share(NamedTuple):
    """One restriction's part of a block: where its coordinates lie in the full model, and w* there."""

    table: Tensor  # int64 [S, 5]: offset, numel, element, run, stride (see ``ops.langevin_step_``)
    anchors: list[Tensor]  # S flat tensors: the caller's own storage where device and layout allow, else a copy
    masks: list[Tensor]  # S bool tensors, empty where all of the segment moves
    lanes: slice


class Block:
    """The segments of one master precision, of congruent restrictions.

    Attributes:
        w: [L, P] master weights, updated in place; L = restrictions × chains, restriction-major.
        v: [L, P] second moments of the gradient (RMSprop methods), or None.
        momentum: [L, P] last moves (sghmc, sgnht), or None; thermostat: float64 [L], ζ (sgnht), or None.
        shares: of each restriction, its table and anchors.
        low: S tensors [L, n] in the precision that the model reads (empty where it reads the master).
        leaves: S leaves.
    """

    def __init__(
        self,
        restrictions: Sequence[Sequence[Segment]],
        read_as: Sequence[torch.dtype],
        num_chains: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        first = restrictions[0]
        lanes = len(restrictions) * num_chains
        self.num_chains = num_chains
        self.offsets, row = [], 0
        for segment in first:
            self.offsets.append(row)
            row += -(-segment.numel // ALIGNMENT) * ALIGNMENT
        self.w = torch.empty(lanes, row, dtype=dtype, device=device)
        for segment, start, end in zip(first, self.offsets, [*self.offsets[1:], row], strict=True):
            self.w[:, start + segment.numel : end] = 0  # the rest is w* before it is read
        self.v: Tensor | None = None
        self.momentum: Tensor | None = None
        self.thermostat: Tensor | None = None
        self.shares = [
            self._share(segments, slice(k * num_chains, (k + 1) * num_chains), device)
            for k, segments in enumerate(restrictions)
        ]
        self.low: list[Tensor] = []
        self.leaves: list[Leaf] = []
        for index, (segment, read) in enumerate(zip(first, read_as, strict=True)):
            is_low = read in LOW_PRECISION
            shape = (lanes, segment.numel) if is_low else (0, 0)
            self.low.append(torch.empty(shape, dtype=read if is_low else torch.bfloat16, device=device))
            source = self.low[-1] if is_low else self.rows(index)
            leaf = source.view(lanes, *segment.shape).detach().requires_grad_()
            self.leaves.append(Leaf(tuple(segments[index] for segments in restrictions), leaf))

    def _share(self, segments: Sequence[Segment], lanes: slice, device: torch.device) -> Share:
        rows = [(o, s.numel, s.element, s.run, s.stride) for o, s in zip(self.offsets, segments, strict=True)]
        anchors = [segment.anchor().to(device).contiguous().view(-1) for segment in segments]
        nothing = torch.empty(0, dtype=torch.bool, device=device)
        masks = [nothing if s.mask is None else s.mask.to(device) for s in segments]
        return Share(torch.tensor(rows, dtype=torch.int64, device="cpu"), anchors, masks, lanes)

    @property
    def has_low(self) -> bool:
        """Whether any parameter is read by the model in a lower precision than its master."""
        return any(copy.numel() for copy in self.low)

    @property
    def has_masks(self) -> bool:
        """Whether any segment moves only in part."""
        return any(mask.numel() for share in self.shares for mask in share.masks)

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name: what a resumed lane goes on from."""
        kept = {"w": self.w, "v": self.v, "momentum": self.momentum, "thermostat": self.thermostat}
        return {name: tensor for name, tensor in kept.items() if tensor is not None}

    def rows(self, index: int) -> Tensor:
        """[L, n] view of one segment's master weights."""
        offset = self.offsets[index]
        return self.w[:, offset : offset + int(self.shares[0].table[index, 1])]

    def reset(self) -> None:
        """W <- w* in every lane."""
        for share in self.shares:
            for index, anchor in enumerate(share.anchors):
                self.rows(index)[share.lanes] = anchor
        self.refresh_low()

    def refresh_low(self) -> None:
        """Round the masters into the copies that the model reads."""
        for index, copy in enumerate(self.low):
            if copy.numel():
                copy.copy_(self.rows(index))


class Arena:
    """Weights of L lanes: C chains of each of R congruent restrictions (the same parameters, in the same shapes).

    Args:
        restrictions: what moves, one restriction after another.
        read_as: the dtype that the model holds each parameter in, by name.
        num_chains: C, chains of each restriction.
        device: where they live.
    """

    def __init__(
        self,
        restrictions: Sequence[Restriction],
        read_as: Mapping[str, torch.dtype],
        num_chains: int,
        device: torch.device,
    ) -> None:
        self.lanes = len(restrictions) * num_chains
        self.num_restrictions = len(restrictions)
        dtypes = [master_dtype(segment.parameter.dtype) for segment in restrictions[0].segments]
        self.blocks: list[Block] = []
        for dtype in dict.fromkeys(dtypes):
            kept = [k for k, other in enumerate(dtypes) if other == dtype]
            parts = [[restriction.segments[k] for k in kept] for restriction in restrictions]
            self.blocks.append(Block(parts, [read_as[part.name] for part in parts[0]], num_chains, dtype, device))
        self._differentiated = [[leaf.tensor for leaf in block.leaves] for block in self.blocks]
        self._homes: list[GradientHome] = []

    @property
    def leaves(self) -> list[Leaf]:
        """Every leaf, block by block."""
        return [leaf for block in self.blocks for leaf in block.leaves]

    def reset(self) -> None:
        """Every lane back to w*."""
        for block in self.blocks:
            block.reset()

    def bind(self, model: nn.Module) -> None:
        """Let the parameters of ``model`` themselves be the leaves (one lane, whole parameters).

        Raises:
            ValueError: more lanes than one, or a rectangle: the parameter of a module has one value and one shape.
        """
        if self.lanes != 1 or not all(leaf.segments[0].whole for leaf in self.leaves):
            raise ValueError("one lane of whole parameters can be bound to a model, no more and no less")
        parameters = dict(model.named_parameters())
        for block, tensors in zip(self.blocks, self._differentiated, strict=True):
            for index, leaf in enumerate(block.leaves):
                parameter = parameters[leaf.name]
                parameter.data = leaf.tensor.detach()[0]
                parameter.requires_grad_()
                tensors[index] = parameter

    def backward(self, total: Tensor) -> None:
        """Gradients of a scalar, into the leaves alone (a model that a loss function closes over is the caller's, and
        gets none).
        """
        total.backward(inputs=[tensor for tensors in self._differentiated for tensor in tensors])

    def keep_gradients(self) -> None:
        """Form gradients in the same memory from now on: one backward between two ``take_gradients``, on a CPU."""
        self._homes = self._homes or [give_home(leaf.tensor) for leaf in self.leaves]

    def take_gradients(self) -> list[list[Tensor | None]]:
        """What autograd made, block by block and leaf by leaf; None where the loss does not use the leaf.

        They hold until the next ``backward`` where gradients are kept.
        """
        for home in self._homes:
            home.free()
        taken: list[list[Tensor | None]] = []
        for tensors in self._differentiated:
            taken.append([tensor.grad for tensor in tensors])
            for tensor in tensors:
                tensor.grad = None
        return taken
