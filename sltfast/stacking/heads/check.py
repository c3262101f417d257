"""Whether an attention run on lanes gives what the attention itself gives, one lane's weights after another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sltfast.restriction import Restriction
from sltfast.stacking.heads.assignment import Assignment, NotHeads
from sltfast.stacking.heads.attention import LaneAttention
from sltfast.stacking.heads.layout import HeadLayout
from sltfast.stacking.heads.spread import written
from sltfast.stacking.heads.weights import LaneWeights

MOST_LANES = 4
ALLOWED = 1e-3  # rounding in float32 is far below it, a wrong head far above


@dataclass(frozen=True)
class AttentionCall:
    """What an attention is called with.

    Attributes:
        attention: it, or a copy in float32 where it has less: a wrong head must not hide in rounding.
        args, kwargs: the call's, in the same precision.
    """

    attention: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Reached(Exception):
    pass


@torch.no_grad()
def attention_call(attention: nn.Module, run: Callable[[], Any]) -> AttentionCall:
    """Run a model until its attention is called, and tell with what.

    Raises:
        NotHeads: the attention is not called.
    """
    calls: list[tuple[Any, Any]] = []

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))
        raise _Reached

    hook = attention.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except _Reached:
        pass
    finally:
        hook.remove()
    if not calls:
        raise NotHeads(f"{type(attention).__name__} is not called as a module")
    exact = attention
    if any(_exact(parameter) is not parameter for parameter in attention.parameters()):
        exact = copy.deepcopy(attention)
        for parameter in exact.parameters():
            parameter.data = _exact(parameter.data)
    args, kwargs = pytree.tree_map_only(Tensor, _exact, calls[0])
    return AttentionCall(exact, args, kwargs)


@torch.no_grad()
def disagreement(
    call: AttentionCall,
    layout: HeadLayout,
    assignment: Assignment,
    name: str,
    restrictions: Sequence[Restriction],
    chains: int,
) -> str:
    """Why an attention on lanes is not itself; empty where it is.

    Every lane gets other weights, w* + noise as large as w*, so that a head taken for another, or lanes that mix, show
    in full. Compared is what moving the weights changes: |y_l - ŷ_l| against max |ŷ_l - y*|.

    Args:
        call: of the attention, on a few rows.
        layout: of that attention, to be tried.
        assignment: of its heads.
        name: the attention's in the model.
        restrictions: R of them.
        chains: C.
    """
    attention, lanes = call.attention, len(restrictions) * chains
    told = f"{type(attention).__name__} ({name})"
    leaves = _perturbed(restrictions, chains, layout.output.weight)
    try:
        on_lanes = LaneAttention(attention, LaneWeights(layout, assignment, leaves, lanes))
        folded = _first(written(on_lanes(on_lanes.freeze(*call.args, **call.kwargs), *call.args, **call.kwargs)))
        frozen = _first(attention(*call.args, **call.kwargs))
        worst = 0.0
        for lane in _some(lanes):
            parameters = {}
            for segment, leaf in zip(restrictions[lane // chains].segments, leaves, strict=True):
                local = segment.name.removeprefix(f"{name}.")
                if local not in parameters:
                    parameters[local] = attention.get_parameter(local).detach().clone()
                block = segment.of(parameters[local])
                block.copy_(leaf[lane].reshape(block.shape))
            alone = _first(torch.func.functional_call(attention, parameters, call.args, call.kwargs))
            found = folded.unflatten(0, (lanes, -1))[lane]
            scale = (alone - frozen).abs().max() + torch.finfo(alone.dtype).eps
            worst = max(worst, float((found - alone).abs().max() / scale))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        return f"{told} does not run on lanes: {error}"
    if not worst <= ALLOWED:
        return f"{told} on lanes differs from itself by {worst:.2g} of what the lane moves"
    return ""


def _perturbed(restrictions: Sequence[Restriction], chains: int, like: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tried = []
    for index, segment in enumerate(restrictions[0].segments):
        anchors = torch.stack([r.segments[index].anchor().to(like) for r in restrictions])
        anchors = anchors.repeat_interleave(chains, dim=0).view(-1, *segment.shape)
        noise = torch.randn(anchors.shape, generator=generator).to(like)
        tried.append(anchors + noise * (anchors.square().mean().sqrt() + 1e-2))
    return tried


def _exact(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _some(lanes: int) -> list[int]:
    """At most MOST_LANES lanes, the first and the last among them."""
    count = min(lanes, MOST_LANES)
    return sorted({index * (lanes - 1) // max(count - 1, 1) for index in range(count)})


def _first(output: Any) -> Tensor:
    return next(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
