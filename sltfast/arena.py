"""The sampled coordinates of the chains in flight, in one flat aligned buffer per precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sltfast.restriction import Restriction, Segment

ALIGNMENT = 16  # elements: every segment starts on a cache line in fp32 and fp64 alike
LOW_PRECISION = (torch.bfloat16, torch.float16)


def master_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision a chain's weights are kept in: float64 for float64 weights, float32 for all others.

    A bf16 weight cannot hold an SGLD step: half its spacing exceeds the drift, and the chain only diffuses.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


class Block:
    """The segments of one master precision.

    Attributes:
        w: [C, P] master weights, updated in place.
        v: [C, P] second moments of the gradient (RMSprop methods), or None.
        momentum: [C, P] last moves (sghmc, sgnht), or None; thermostat: float64 [C], ζ (sgnht), or None.
        segments: int64 [S, 5] on the CPU: offset, numel, element, run, stride (see ``ops.langevin_step_``).
        anchors: S flat tensors, w*: the caller's own storage where device and layout allow, else one copy.
        low: S tensors [C, n] in the parameter's low precision (empty where the master is what the model reads).
        masks: S bool tensors (empty where all of the segment moves).
    """

    def __init__(
        self,
        parts: Sequence[Segment],
        read_as: Sequence[torch.dtype],
        num_chains: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.names = [part.name for part in parts]
        rows, offset = [], 0
        for part in parts:
            numel = part.parameter.numel()
            rows.append((offset, numel, part.element, numel, 0))
            offset += -(-numel // ALIGNMENT) * ALIGNMENT
        self.segments = torch.tensor(rows, dtype=torch.int64, device="cpu")
        self.w = torch.zeros(num_chains, offset, dtype=dtype, device=device)
        self.v: Tensor | None = None
        self.momentum: Tensor | None = None
        self.thermostat: Tensor | None = None
        self.anchors: list[Tensor] = []
        self.low: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.shapes = [part.parameter.shape for part in parts]
        for part, read in zip(parts, read_as, strict=True):
            anchor = part.parameter.detach().to(device).contiguous().reshape(-1)
            is_low = read in LOW_PRECISION
            self.anchors.append(anchor)
            copies = num_chains if is_low else 0
            low_dtype = read if is_low else torch.bfloat16
            self.low.append(torch.empty(copies, anchor.numel() if is_low else 0, dtype=low_dtype, device=device))
            empty = torch.empty(0, dtype=torch.bool, device=device)
            self.masks.append(empty if part.mask is None else part.mask.to(device))

    @property
    def has_low(self) -> bool:
        """Whether any parameter is read by the model in a lower precision than its master."""
        return any(copy.numel() for copy in self.low)

    @property
    def state(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name: what a resumed chain goes on from."""
        kept = {"w": self.w, "v": self.v, "momentum": self.momentum, "thermostat": self.thermostat}
        return {name: tensor for name, tensor in kept.items() if tensor is not None}

    @property
    def has_masks(self) -> bool:
        """Whether any segment moves only in part."""
        return any(mask.numel() for mask in self.masks)

    def rows(self, index: int) -> Tensor:
        """[C, n] view of one segment's master weights."""
        offset, numel = (int(x) for x in self.segments[index, :2])
        return self.w[:, offset : offset + numel]

    def reset(self) -> None:
        """W <- w* in every chain."""
        for index, anchor in enumerate(self.anchors):
            self.rows(index).copy_(anchor.expand(self.w.shape[0], -1))
        self.refresh_low()

    def refresh_low(self) -> None:
        """Round the masters into the copies that the model reads."""
        for index, copy in enumerate(self.low):
            if copy.numel():
                copy.copy_(self.rows(index))

    def view(self, index: int, chain: int) -> Tensor:
        """What the model reads: one segment of one chain, in the parameter's own shape and precision."""
        source = self.low[index] if self.low[index].numel() else self.rows(index)
        return source[chain].view(self.shapes[index])


class Arena:
    """Weights of C chains, and the parameters of a structural clone that view them.

    Args:
        restriction: the coordinates that move.
        clone: the module whose parameters will view the arena.
        num_chains: C, chains in flight together.
        device: where they live.
    """

    def __init__(self, restriction: Restriction, clone: nn.Module, num_chains: int, device: torch.device) -> None:
        by_dtype: dict[torch.dtype, list[Segment]] = {}
        for segment in restriction.dense().segments:
            by_dtype.setdefault(master_dtype(segment.parameter.dtype), []).append(segment)
        parameters = dict(clone.named_parameters())
        self.blocks = [
            Block(parts, [parameters[part.name].dtype for part in parts], num_chains, dtype, device)
            for dtype, parts in by_dtype.items()
        ]
        self._bound = [[parameters[name] for name in block.names] for block in self.blocks]
        for parameters_of_block in self._bound:
            for parameter in parameters_of_block:
                parameter.requires_grad_(True)
        self._leaves = [parameter for group in self._bound for parameter in group]
        self.num_chains = num_chains
        self._attached: int | None = None

    def reset(self) -> None:
        """Every chain back to w*."""
        for block in self.blocks:
            block.reset()

    def attach(self, chain: int) -> None:
        """Let the clone's parameters view chain ``chain`` (0 <= chain < C)."""
        if self._attached == chain:
            return
        for block, parameters in zip(self.blocks, self._bound, strict=True):
            for index, parameter in enumerate(parameters):
                parameter.data = block.view(index, chain)
        self._attached = chain

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar loss, into the moving parameters alone (a model that a loss function closes over is
        the caller's, and gets none).
        """
        loss.backward(inputs=self._leaves)

    def take_gradients(self) -> list[list[Tensor | None]]:
        """The gradients as autograd made them, block by block; the parameters are left without."""
        taken: list[list[Tensor | None]] = []
        for parameters in self._bound:
            taken.append([parameter.grad for parameter in parameters])
            for parameter in parameters:
                parameter.grad = None
        return taken
