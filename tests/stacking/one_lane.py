"""A stack with other weights in every lane, and the same lanes run one at a time through torch.func."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.clone import structural_clone
from sltfast.restriction import Restriction
from sltfast.stacking import Piece, Stack

EXACT = 1e-10  # float64, relative: sums of a few hundred terms round to about 1e-14


def stacked(model: nn.Module, param_masks: Any, lanes: int, size: float = 0.1, strided: bool = True) -> Stack:
    """A stack of leaves w* + size·ξ, views into one buffer a lane as the arena's are."""
    clone = structural_clone(model, torch.device("cpu"))
    restriction = Restriction.of(model, param_masks)
    generator = torch.Generator().manual_seed(17)
    weights: dict[str, list[Piece]] = {}
    for segment in restriction.segments:
        buffer = torch.zeros(lanes, segment.numel + 3 * strided, dtype=segment.parameter.dtype)
        step = size * torch.randn(lanes, segment.numel, generator=generator, dtype=torch.float64)
        if segment.mask is not None:
            step *= segment.mask
        buffer[:, : segment.numel] = segment.anchor() + step
        leaf = buffer[:, : segment.numel].view(lanes, *segment.shape).detach().requires_grad_()
        weights.setdefault(segment.name, []).append(Piece(segment, leaf))
    return Stack(clone, weights, lanes)


def lane_weights(model: nn.Module, stack: Stack, lane: int) -> dict[str, Tensor]:
    """All of one lane's moving parameters, dense, each with the pieces written over w*."""
    parameters = dict(model.named_parameters())
    weights = {}
    for name, pieces in stack.pieces.items():
        weight = parameters[name].detach().clone()
        for piece in pieces:
            first, last = piece.span
            if first <= lane < last:
                block = piece.segment.of(weight)
                block.copy_(piece.leaf.detach()[piece.rows][lane - first].reshape(block.shape))
        weights[name] = weight.requires_grad_()
    return weights


class Lane(nn.Module):
    """The caller's model with a lane's weights, callable as a model."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.__dict__["wrapped"], self.__dict__["weights"] = model, weights
        self.config = getattr(model, "config", None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self.wrapped, self.weights, args, kwargs)


def assert_lanes_exact(
    model: nn.Module, stack: Stack, losses: Callable[[Any, Any], Tensor], batch: Any, rows: int
) -> None:
    """Losses and every leaf's gradient, lane by lane, against the lane alone."""
    lanes = stack.lanes
    folded = losses(stack.model, stack.expand(batch)).reshape(lanes * rows, -1)
    upstream = torch.randn(folded.shape, generator=torch.Generator().manual_seed(5), dtype=folded.dtype)
    leaves = [piece.leaf for pieces in stack.pieces.values() for piece in pieces]
    gradients = iter(torch.autograd.grad((folded * upstream).sum(), leaves, allow_unused=True))
    found = {name: [next(gradients) for _ in pieces] for name, pieces in stack.pieces.items()}
    norm = 0.0
    for lane in range(lanes):
        weights = lane_weights(model, stack, lane)
        own = slice(lane * rows, (lane + 1) * rows)
        alone = losses(Lane(model, weights), batch).reshape(rows, -1)
        torch.testing.assert_close(folded[own], alone, rtol=EXACT, atol=EXACT)
        expected = torch.autograd.grad((alone * upstream[own]).sum(), [*weights.values()], allow_unused=True)
        size = max((g.abs().max().item() for g in expected if g is not None), default=0.0)
        norm += size
        for (name, pieces), gradient in zip(stack.pieces.items(), expected, strict=True):
            for piece, got in zip(pieces, found[name], strict=True):
                first, last = piece.span
                if not first <= lane < last:
                    continue
                if gradient is None:
                    assert got is None or not got.any()
                    continue
                mine = piece.segment.of(gradient)
                assert got is not None
                assert got.shape == piece.leaf.shape
                got = got[piece.rows]
                theirs = got[lane - first].reshape(mine.shape)
                if piece.segment.mask is not None:
                    mask = piece.segment.mask.view(mine.shape)
                    mine, theirs = mine * mask, theirs * mask
                torch.testing.assert_close(theirs, mine, rtol=EXACT, atol=EXACT * max(size, 1e-30))
    assert norm > 0
