"""Whether an attention run on lanes gives what the attention itself gives, one lane's weights after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sltfast.restriction import Restriction
from sltfast.stacking.heads_assignment import NotHeads
from sltfast.stacking.heads_attention import LaneAttention
from sltfast.stacking.heads_weights import LaneWeights
from sltfast.stacking.spread import written

MOST_LANES = 4


@dataclass(frozen=True)
class AttentionCall:
    """What an attention is called with."""

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
    calls: list[AttentionCall] = []

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(AttentionCall(args, kwargs))
        raise _Reached

    hook = attention.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except _Reached:
        return calls[0]
    finally:
        hook.remove()
    raise NotHeads(f"{type(attention).__name__} is not called as a module")


@torch.no_grad()
def disagreement(lanes: LaneAttention, name: str, restrictions: Sequence[Restriction], call: AttentionCall) -> str:
    """Why the lanes' attention is not the attention's; empty where it is.

    Every lane gets other weights, w* + noise as large as w*, so that a head taken for another, or lanes that mix, show
    in full. Compared is what moving the weights changes: |y_l - ŷ_l| against max |ŷ_l - y*|.
    """
    weights, attention = lanes.weights, lanes.attention
    leaves, tried = weights.leaves, _perturbed(weights, restrictions)
    weights.leaves = tried
    try:
        folded = _first(written(lanes(lanes.freeze(*call.args, **call.kwargs), *call.args, **call.kwargs)))
        frozen = _first(attention(*call.args, **call.kwargs))
        worst = 0.0
        for lane in _some(weights.lanes):
            parameters = {}
            for segment, leaf in zip(restrictions[lane // weights.chains].segments, tried, strict=True):
                local = segment.name.removeprefix(f"{name}.")
                if local not in parameters:
                    parameters[local] = attention.get_parameter(local).detach().clone()
                segment.of(parameters[local]).copy_(leaf[lane].reshape(segment.of(parameters[local]).shape))
            alone = _first(torch.func.functional_call(attention, parameters, call.args, call.kwargs))
            found = folded.unflatten(0, (weights.lanes, -1))[lane]
            scale = (alone - frozen).abs().max() + torch.finfo(alone.dtype).eps
            worst = max(worst, float((found - alone).abs().max() / scale))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        return f"{type(attention).__name__} ({name}) does not run on lanes: {error}"
    finally:
        weights.leaves = leaves
    allowed = 1e-3 if torch.finfo(folded.dtype).eps < 1e-6 else 0.1
    if not worst <= allowed:
        return f"{type(attention).__name__} ({name}) on lanes differs from itself by {worst:.2g} of what the lane moves"
    return ""


def _perturbed(weights: LaneWeights, restrictions: Sequence[Restriction]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    tried = []
    for index, leaf in enumerate(weights.leaves):
        anchors = [r.segments[index].anchor() for r in restrictions]
        anchor = torch.stack([a.to(leaf) for a in anchors]).repeat_interleave(weights.chains, dim=0).view(leaf.shape)
        noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
        tried.append(anchor + noise * (anchor.float().square().mean().sqrt() + 1e-2).to(leaf.dtype))
    return tried


def _some(lanes: int) -> list[int]:
    """At most MOST_LANES lanes, the first and the last among them."""
    count = min(lanes, MOST_LANES)
    return sorted({index * (lanes - 1) // max(count - 1, 1) for index in range(count)})


def _first(output: Any) -> Tensor:
    return next(leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))
