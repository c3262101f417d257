"""What stands in a model while lanes share what does not move: at its root, below the point, at it and behind it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from typing import Any, Protocol

from torch import Tensor, nn

from sltfast.stacking.prefix.below import Below, Hidden
from sltfast.stacking.prefix.growing import Growing
from sltfast.stacking.prefix.memo import KeptValues, Key, Memo
from sltfast.stacking.prefix.passing import Passing
from sltfast.stacking.prefix.placeholders import Placeholders
from sltfast.stacking.prefix.points import Point
from sltfast.stacking.prefix.tensors import arguments_of, replaced_argument
from sltfast.stacking.prefix.trace import Call, Rows


class LateBlock(Protocol):
    """Patches of the module at the point, for which lanes part inside it."""

    block_name: str

    def remember(self, memo: MutableMapping[Hashable, Any] | None, key: Hashable = None) -> None:
        """Keep in ``memo``, and take from it, what the lanes share of batch ``key``; None: no longer."""


class Hooks:
    """Installs them, and takes them off.

    Args:
        model: the clone.
        point: where lanes part, found in it or in another clone.
        memo: where activations are kept, or None.
        skipped: modules below the point that a remembered forward skips, each with its calls.

    Attributes:
        late: who has patched the module at the point to take one lane's rows and return those of all lanes, or None.
    """

    def __init__(self, model: nn.Module, point: Point, memo: Memo | None, skipped: list[list[Call]]) -> None:
        self.point, self.memo = point, memo
        self._root_type = type(model.get_submodule(point.root.name)).__name__
        self.late: LateBlock | None = None
        self._passing: Passing | None = None
        self._own = Growing(point.call)
        placeholders = Placeholders()
        self._below = [Below(model, calls, memo, placeholders) for calls in skipped] if memo is not None else []
        self._hidden = Hidden(point.call.name, point.call.hidden or (), memo) if memo is not None else None
        self._values = None if memo is None else KeptValues(memo)
        self._stages = [(point.call.entered, point.call.name)]
        self._stages += [(below.entered, below.name) for below in reversed(self._below) if below.hidden is not None]
        self._needed: dict[int, list[str]] = {
            entered: [below.name for below in self._below if below.left < entered] for entered, _ in self._stages
        }
        root, call = model.get_submodule(point.root.name), model.get_submodule(point.call.name)
        self._handles = [
            root.register_forward_pre_hook(self._enter, with_kwargs=True),
            root.register_forward_hook(self._leave),
            call.register_forward_pre_hook(self._part, with_kwargs=True),
        ]
        for below in self._below:
            below.install()
        self._behind: list[tuple[Growing, Any, bool]] = []
        later: dict[str, list[Call]] = {}
        for one in point.behind:
            later.setdefault(one.name, []).append(one)
        for name, calls in later.items():
            growing = Growing(*calls)
            if growing.plan:
                handle = model.get_submodule(name).register_forward_pre_hook(self._tile(growing), with_kwargs=True)
                self._behind.append((growing, handle, any(one.inputs > 1 for one in calls)))

    @property
    def passing(self) -> Passing | None:
        """The forwards under way, or None: every hook does nothing."""
        return self._passing

    @passing.setter
    def passing(self, passing: Passing | None) -> None:
        self._passing = passing
        for below in self._below:
            below.passing = passing

    def settled(self) -> Point:
        """After a first forward: the point, less what lies behind it and takes activations only, found tiled."""
        kept = {growing.name for growing, _, keep in self._behind if keep or growing.tiled_any}
        return self.point._replace(behind=[call for call in self.point.behind if call.name in kept])

    def remove(self) -> None:
        """Take everything off again."""
        for handle in self._handles:
            handle.remove()
        for _, handle, _ in self._behind:
            handle.remove()
        for below in self._below:
            below.remove()
        self._handles, self._behind, self._below, self._passing = [], [], [], None

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        passing = self._passing
        if passing is None:
            return None
        rows = self._rows(args, kwargs, passing.lanes)
        for path, carried in self.point.root.rows.items():
            args, kwargs = replaced_argument(args, kwargs, path, _narrowing(carried, rows))
        passing.begin(rows)
        if passing.key is not None and self.memo is not None:
            self._resume(passing, self.memo)
        return args, kwargs

    def _rows(self, args: tuple[Any, ...], kwargs: dict[str, Any], lanes: int) -> int:
        root, name = self.point.root, self._root_type
        given = arguments_of(args, kwargs)
        unknown = given.keys() - root.rows.keys() - root.still
        if unknown or root.rows.keys() - given.keys():
            raise RuntimeError(
                f"{name} is called with tensors at {sorted(map(str, given))}, but was traced with "
                f"{sorted(map(str, [*root.rows, *root.still]))}: trace the call, and the kind of batch, that are used"
            )
        sizes = {given[path].shape[carried.dim] / (carried.times * lanes) for path, carried in root.rows.items()}
        rows = sizes.pop()
        if sizes or rows != int(rows) or rows < 1:
            path, carried = next(iter(root.rows.items()))
            raise ValueError(
                f"{name} is given {given[path].shape[carried.dim] // carried.times} rows, which {lanes} lanes do not "
                "share evenly: give the batch once for every lane, lane after lane"
            )
        return int(rows)

    def _resume(self, passing: Passing, memo: Memo) -> None:
        """Start at the latest place whose activations are remembered."""
        key = passing.memo_key()
        shapes = memo.described(key)
        for entered, name in self._stages:
            if memo.has(key, name) and all(needed in shapes for needed in self._needed[entered]):
                passing.start, passing.skipped = entered, shapes
                break
        if passing.start == self.point.call.entered:
            memo.hits += 1
        else:
            memo.misses += 1

    def _part(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        passing = self._passing
        if passing is None or not passing.inside or passing.parted:
            return None
        if passing.key is not None and self._hidden is not None and self.memo is not None:
            here = passing.start == self.point.call.entered
            args, kwargs = self._hidden.exchange(passing, here, args, kwargs)
            if not here:
                self.memo.describe(passing.memo_key(), passing.described())
        passing.part()
        if self.late is not None:
            remembered = passing.key is not None and self._values is not None
            self.late.remember(self._values if remembered else None, passing.memo_key() if remembered else None)
            return args, kwargs
        return self._own.tile(passing, args, kwargs) or (args, kwargs)

    def _tile(self, growing: Growing) -> Callable[..., Any]:
        def behind(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            passing = self._passing
            if passing is None or not passing.parted:
                return None
            return growing.tile(passing, args, kwargs)

        return behind

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        passing = self._passing
        if passing is None or not passing.inside:
            return
        parted = passing.parted
        passing.end()
        if not parted:
            raise RuntimeError(
                f"{type(module).__name__} returned without calling {self.point.call.name}, where its lanes part: trace "
                "with the call that is used"
            )


def _narrowing(carried: Rows, rows: int) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.narrow(carried.dim, 0, carried.times * rows)


class On:
    """A context in which a model's hooks share; a no-op without hooks.

    Raises:
        RuntimeError: entered inside another of the same model.
    """

    def __init__(self, hooks: Hooks | None, lanes: int, key: Key | None) -> None:
        self.hooks, self.lanes, self.key = hooks, lanes, key

    def __enter__(self) -> None:
        if self.hooks is not None:
            if self.hooks.passing is not None:
                raise RuntimeError("forwards of this model share already: leave one context before the next")
            self.hooks.passing = Passing(self.lanes, self.key)

    def __exit__(self, *_: object) -> None:
        if self.hooks is not None and self.hooks.passing is not None:
            self.hooks.passing.end()
            self.hooks.passing = None
