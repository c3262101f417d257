"""The modules below the point: run once and remembered, or skipped."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import nn

from sltfast.stacking.prefix.memo import Memo
from sltfast.stacking.prefix.passing import Passing
from sltfast.stacking.prefix.placeholders import Placeholders, shape_of
from sltfast.stacking.prefix.points import Point
from sltfast.stacking.prefix.tensors import Path, arguments_of, replaced_argument
from sltfast.stacking.prefix.trace import Call


class Hidden:
    """The activations that enter a module: kept in the memo, or taken from it."""

    def __init__(self, name: str, path: Path, memo: Memo) -> None:
        self.name, self.path, self.memo = name, path, memo

    def exchange(
        self, passing: Passing, here: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with the remembered activations (``here``: this is where a skipped forward begins), or kept."""
        key = passing.memo_key()
        if here:
            like = arguments_of(args, kwargs)[self.path]
            kept = self.memo.get(key, self.name, (like.dtype, like.device))
            return replaced_argument(args, kwargs, self.path, lambda _: kept)
        return replaced_argument(args, kwargs, self.path, lambda tensor: self.memo.keep(key, self.name, tensor))


class Below:
    """Stands in for ``forward`` of a module below the point.

    Args:
        model: the clone that it is a module of.
        calls: every call of it, in order.
        memo: where a stage's activations are kept.
        placeholders: what a skipped call returns.
    """

    def __init__(self, model: nn.Module, calls: list[Call], memo: Memo, placeholders: Placeholders) -> None:
        first, self.left = calls[0], calls[-1].left
        self.name, self.module, self.entered = first.name, model.get_submodule(first.name), first.entered
        self.memo, self.placeholders = memo, placeholders
        once = len(calls) == 1 and first.hidden is not None and not first.puzzling
        self.hidden = Hidden(first.name, first.hidden or (), memo) if once else None
        self.before: Any = self.module.__dict__.get("forward")
        self.original = self.module.forward
        self.passing: Passing | None = None

    def install(self) -> None:
        """Put it in the module's place."""
        self.module.__dict__["forward"] = self

    def remove(self) -> None:
        """Give the module its own forward back."""
        if self.before is None:
            self.module.__dict__.pop("forward", None)
        else:
            self.module.__dict__["forward"] = self.before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output, or its stand-in where the memo makes it needless."""
        passing = self.passing
        if passing is None or passing.key is None or not passing.inside or passing.parted:
            return self.original(*args, **kwargs)
        if self.left < passing.start:
            nth = passing.seen.get(self.name, 0)
            passing.seen[self.name] = nth + 1
            return self.placeholders(passing.skipped[self.name][nth])
        if self.hidden is not None:
            here = self.entered == passing.start
            if here or self.name in self.memo.wanted:
                args, kwargs = self.hidden.exchange(passing, here, args, kwargs)
        output = self.original(*args, **kwargs)
        passing.shapes.setdefault(self.name, []).append(shape_of(output))
        return output


def skippable(model: nn.Module, point: Point, *, with_weights: bool) -> list[list[Call]]:
    """Modules below the point whose output may matter only to one another, each with its calls.

    Left out are modules that are also called elsewhere, and those that return what is an argument at the point or
    behind it (position embeddings, say).

    Args:
        model: that was traced.
        point: where lanes part.
        with_weights: only modules that hold weights.
    """
    needed = {
        id(tensor)
        for call in (point.call, *point.behind)
        for path, tensor in call.arguments.items()
        if path != point.call.hidden or call is not point.call
    }
    grouped: dict[str, list[Call]] = {}
    for call in point.below:
        grouped.setdefault(call.name, []).append(call)
    totals = Counter(call.name for call in point.inside)
    return [
        group
        for key, group in grouped.items()
        if totals[key] == len(group)
        and not any(id(tensor) in needed for call in group for tensor in call.outputs.values())
        and (not with_weights or _holds_weights(model.get_submodule(key)))
    ]


def _holds_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
