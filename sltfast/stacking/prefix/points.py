"""Where lanes may part: the calls at whose input nothing has moved yet, and what runs before and after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from sltfast.stacking.prefix.trace import Call, Trace


class Point(NamedTuple):
    """A call at whose input lanes may part.

    Attributes:
        call: the call.
        root: the outermost call around it, at whose entry the batch is narrowed to one lane's rows.
        inside: every call inside the root.
        below: calls that are over before it, without those inside them.
        behind: calls that begin after it, without those inside them.
        share: fraction of the forward's FLOPs that is spent in it and behind it.
    """

    call: Call
    root: Call
    inside: list[Call]
    below: list[Call]
    behind: list[Call]
    share: float


def first_use(traced: Trace, model: nn.Module, moving: Mapping[str, nn.Parameter]) -> tuple[Call, str] | str:
    """The first call that reads a weight that moves, and the weight's name; a string says why there is none.

    A module's own call reads its weights; where a parent reads them without calling the module, the parent's does.
    """
    called: dict[str, Call] = {}
    for call in traced.calls:
        called.setdefault(call.name, call)
    first = {id(module): called[name] for name, module in model.named_modules() if name in called}
    found: tuple[Call, str] | None = None
    names = {id(parameter): name for name, parameter in moving.items()}
    for owner_name, owner in model.named_modules(remove_duplicate=False):
        for parameter in owner.parameters(recurse=False):
            if id(parameter) not in names:
                continue
            reader = _reader(model, owner_name, first)
            if reader is None:
                return f"{names[id(parameter)]} is read by no module of the forward"
            if found is None or reader.entered < found[0].entered:
                found = reader, names[id(parameter)]
    return found or "nothing moves"


def _reader(model: nn.Module, name: str, first: dict[int, Call]) -> Call | None:
    while True:
        call = first.get(id(model.get_submodule(name)))
        if call is not None or not name:
            return call
        name = name.rpartition(".")[0]


def points(traced: Trace, reader: Call, model: nn.Module) -> tuple[list[Point], str]:
    """Where lanes may part before ``reader``, the best first, and why not elsewhere.

    The latest is best, except that a block of a ``ModuleList`` comes before what is inside it: every such block has the
    same inputs, so that what one pass remembers serves the passes of lower blocks.
    """
    found, reason = [], ""
    chain = [reader, *reader.ancestors()]
    root = chain.pop()
    if any(call.parent is None and call.name != root.name for call in traced.calls):
        return [], "the loss calls modules of the model one by one"
    # a loss may run the model several times; the first time tells what each of them does
    inside = [call for call in traced.calls if root.entered < call.entered < root.left]
    counts = Counter(call.name for call in inside)
    for call in chain:
        if call.hidden is None or call.puzzling:
            reason = f"{call.name} is given no activations that grow with the batch"
        elif call.moved:
            reason = f"what enters {call.name} depends on weights that move"
        elif counts[call.name] > 1:
            reason = f"{call.name} is called several times"
        elif call.random:
            reason = f"random numbers are drawn before {call.name} (dropout in train mode): lanes must not share them"
        else:
            around = {id(other) for other in call.ancestors()}
            siblings = [other for other in inside if id(other.parent) in around]
            below = [other for other in siblings if other.left < call.entered]
            if not below:
                reason = f"nothing is called before {call.name}"
                continue
            behind = [other for other in siblings if other.entered > call.left]
            found.append(Point(call, root, inside, below, behind, share=1 - call.flops / max(traced.flops, 1)))
    found.sort(key=lambda point: not _in_module_list(model, point.call.name))
    return found, reason or f"{reader.name or 'the model'} is called by itself"


def _in_module_list(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.ModuleList)


def blocks(model: nn.Module, traced: Trace) -> list[str]:
    """Names of the model's repeated blocks: of the list that spends most FLOPs with its children called in turn."""
    spent: dict[str, int] = {}
    members: dict[str, list[str]] = {}
    for call, following in zip(traced.calls, [*_next_outside(traced)], strict=True):
        holder = call.name.rpartition(".")[0]
        if call.parent is not None and isinstance(model.get_submodule(holder), nn.ModuleList | nn.Sequential):
            spent[holder] = spent.get(holder, 0) + following - call.flops
            if call.name not in members.setdefault(holder, []):
                members[holder].append(call.name)
    return members[max(spent, key=lambda name: spent[name])] if spent else []


def _next_outside(traced: Trace) -> list[int]:
    """FLOPs spent when each call is over."""
    ends = []
    for i, call in enumerate(traced.calls):
        later = (other.flops for other in traced.calls[i + 1 :] if other.entered > call.left)
        ends.append(next(later, traced.flops))
    return ends
