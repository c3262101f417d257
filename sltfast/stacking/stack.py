"""L lanes through one model in one pass: a structural clone whose moving modules read weights of their own a lane."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.data import leaves
from sltfast.stacking.guard import Guard, GuardedWeight
from sltfast.stacking.lanes import Lanes
from sltfast.stacking.opening import with_other_rows
from sltfast.stacking.padding_rows import has_padding_rows, keeping_padding_rows
from sltfast.stacking.pieces import MovingWeight, Piece
from sltfast.stacking.registry import OWN_FORWARD, Rule, rule_of
from sltfast.stacking.site import Site
from sltfast.stacking.unit import Unit


class Stack:
    """A clone, patched so that a batch of L·B rows meets L sets of weights: row l·B + b the weights of lane l.

    Modules whose weights move read them from the leaves, which may be stepped in place between calls; every other
    module runs as it is on the folded batch. The ladder, module by module: a folding rule (``registry``), vmap of the
    smallest module that reads the weights, a loop over lanes where vmap fails. The first call settles it: a module that
    reads another's weight meets a guard, and the module above the weight's becomes a unit.

    Args:
        clone: a structural clone; its modules' forwards are replaced until ``restore``.
        weights: by name in ``clone.named_parameters()``, what moves of the parameter.
        lanes: L.
        units: modules to run whole, by name ("" is the model itself).

    Attributes:
        model: the clone.
        folding: how lanes and rows fold, with B of the batch last expanded.

    Raises:
        KeyError: a name that is no parameter of the clone.
        ValueError: a leaf whose shape is not [L, *segment.shape], lanes that do not exist, or no weights at all.
    """

    def __init__(
        self, clone: nn.Module, weights: Mapping[str, Sequence[Piece]], lanes: int, units: Collection[str] = ()
    ) -> None:
        self.model, self.folding = clone, Lanes(lanes)
        parameters = dict(clone.named_parameters())
        self._moving: dict[int, MovingWeight] = {}
        for name, pieces in weights.items():
            if name not in parameters:
                raise KeyError(f"no parameter {name!r} in {type(clone).__name__}, which has {sorted(parameters)}")
            for piece in pieces:
                _check(name, piece, lanes)
            self._moving[id(parameters[name])] = MovingWeight(name, parameters[name], pieces, lanes)
        if not self._moving:
            raise ValueError("no weights move: give at least one parameter with its pieces")
        self._units = set(units)
        self._patched: list[tuple[nn.Module, Any]] = []
        self._guarded: list[tuple[dict[str, Any], str, Any]] = []
        self._guards: dict[int, MovingWeight] = {}  # by id of the guard that stands where the weight was
        self._checkpointing: list[tuple[Any, bool]] = []
        self._kept: list[Any] = [*parameters.values()]  # their ids are keys
        self._rules: dict[str, Rule] = {}
        self._running: dict[str, Unit] = {}
        self._is_open = False
        self._patch()

    @property
    def lanes(self) -> int:
        """L."""
        return self.folding.count

    @property
    def rungs(self) -> dict[str, str]:
        """The rung of every patched module by name: "registry", "vmap" or "loop"."""
        return {**dict.fromkeys(self._rules, "registry"), **{name: unit.rung for name, unit in self._running.items()}}

    @property
    def units(self) -> frozenset[str]:
        """Modules that were asked to run whole, or turned out to have to."""
        return frozenset(self._units)

    @property
    def reasons(self) -> dict[str, str]:
        """Why a unit loops over lanes instead of running under vmap, by name."""
        return {name: unit.why for name, unit in self._running.items() if unit.why}

    def expand(self, batch: Any) -> Any:
        """The batch (any nesting of tensors [B, …]) repeated for every lane: [L·B, …], row l·B + b is row b."""
        return self.folding.expand(batch)

    def take(self, batch: Any) -> Any:
        """A batch that is folded already, [L·B, …] with rows of its own in every lane: noted and given back."""
        self.folding.batch = len(leaves(batch)[0]) // self.folding.count
        return batch

    def lane_weights(self, parameter: Tensor) -> Tensor | None:
        """[L, *shape] of a parameter, given as its module holds it now; None where all lanes share it."""
        weight = self._guards.get(id(parameter))
        return None if weight is None else weight.dense()

    def restore(self) -> None:
        """Take the patches off: the clone is as it was given."""
        for module, forward in reversed(self._patched):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
        for parameters, key, weight in self._guarded:
            parameters[key] = weight
        for module, value in self._checkpointing:
            module.gradient_checkpointing = value
        self._patched, self._guarded, self._checkpointing = [], [], []

    @property
    def pieces(self) -> dict[str, tuple[Piece, ...]]:
        """What moves, by parameter name."""
        return {weight.name: weight.pieces for weight in self._moving.values()}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """w* of the parameters that move, by name."""
        return {weight.name: weight.frozen for weight in self._moving.values()}

    @contextmanager
    def reading(self, pieces: Mapping[str, Sequence[Piece]], lanes: int) -> Iterator[None]:
        """Read other leaves of the same segments for a while, in ``lanes`` lanes."""
        before, count, batch = self.pieces, self.folding.count, self.folding.batch
        self.folding.count, self.folding.asking = lanes, True
        try:
            for weight in self._moving.values():
                weight.read(pieces[weight.name], lanes)
            yield
        finally:
            self.folding.count, self.folding.batch, self.folding.asking = count, batch, False
            for weight in self._moving.values():
                weight.read(before[weight.name], count)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """The clone without patches, for a while."""
        patched = [(module, vars(module)["forward"]) for module, _ in self._patched]
        guards = [(held, key, held[key]) for held, key, _ in self._guarded]
        before = self._patched, self._guarded, self._checkpointing
        self.restore()
        try:
            yield
        finally:
            self._patched, self._guarded, self._checkpointing = before
            for module, forward in patched:
                module.forward = forward
            for held, key, guard in guards:
                held[key] = guard
            for module, _ in self._checkpointing:
                module.gradient_checkpointing = False

    def promote(self, name: str) -> bool:
        """Run the module above ``name`` whole, or that one where its own forward may have read it; False: none is."""
        modules = dict(self.model.named_modules(remove_duplicate=False))
        covering = next((unit for unit in self._running if _below(name, unit)), None)
        name = name if covering is None else covering
        if self._rules.get(name) in OWN_FORWARD:
            name = f"{name}.weight"  # its own forward reads the weight in a way that is not known: it is the unit
        while name:
            name = name.rpartition(".")[0]
            if not _is_container(modules[name]):
                self._units.add(name)
                self.restore()
                self._patch()
                return True
        return False

    def run_whole(self) -> bool:
        """Run the model as one unit; False where it does already."""
        if "" in self._units:
            return False
        self._units.add("")
        self.restore()
        self._patch()
        return True

    def _open(self, args: Any, kwargs: Any) -> None:
        """Run the model with another number of rows, until every weight is read where it is known."""
        self._is_open = True
        try:
            other = with_other_rows(self.folding, args, kwargs)
            if other is None:
                return
            batch, self.folding.batch = self.folding.batch, other[2]
            try:
                with torch.no_grad():
                    self._root(*other[0], **other[1])
                self.folding.asking = False
            finally:
                self.folding.batch = batch
        except GuardedWeight as error:
            if not self.promote(error.module):
                raise
            self._open(args, kwargs)
        except Exception:  # the call itself will say what is wrong
            return

    def _patch_root(self) -> None:
        self._root = self.model.forward

        @functools.wraps(self._root)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._is_open:
                self._open(args, kwargs)
            while True:
                try:
                    return self._root(*args, **kwargs)
                except GuardedWeight as error:
                    if not self.promote(error.module):
                        raise
                    self._is_open = True

        self._replace(self.model, forward)

    def _patch(self) -> None:
        self._rules, self._running, self._guards, self._is_open = {}, {}, {}, False
        done: dict[int, str] = {}
        self._walk(self.model, "", done)
        if self._crossed(done):
            # a module of a unit is also called from outside it: only the model as a whole sees every call
            self.run_whole()
            return
        for name, module in self.model.named_modules():
            for key, weight in module._parameters.items():
                if id(weight) in self._moving:
                    guard = Guard.of(weight, name, key)
                    self._guarded.append((module._parameters, key, weight))
                    self._guards[id(guard)] = self._moving[id(weight)]
                    module._parameters[key] = guard
        self._patch_root()

    def _walk(self, module: nn.Module, name: str, done: dict[int, str]) -> None:
        if id(module) in done:
            return
        own = {key: self._moving[id(w)] for key, w in module._parameters.items() if id(w) in self._moving}
        computed = "parametrizations" in module._modules and self._has_moving(module)
        rule = rule_of(module) if own and name not in self._units else None
        if (name in self._units or computed or own) and rule is None:
            self._run_whole(module, name, done)
            return
        done[id(module)] = name
        if rule is not None:
            self._rules[name] = rule
            self._replace(module, rule(Site(module, name, own, self.folding)))
        for key, child in module.named_children():
            self._walk(child, f"{name}.{key}" if name else key, done)

    def _run_whole(self, module: nn.Module, name: str, done: dict[int, str]) -> None:
        weights: dict[int, MovingWeight] = {}
        slots = []
        for below in module.modules():
            done[id(below)] = name
            if getattr(below, "gradient_checkpointing", False):
                # a recomputed forward would come back after the lanes' weights are gone; the values are the same
                self._checkpointing.append((below, True))
                below.gradient_checkpointing = False  # type: ignore[assignment]
            for key, weight in below._parameters.items():
                if id(weight) in self._moving:
                    weights.setdefault(id(weight), self._moving[id(weight)])
                    slots.append((below._parameters, key, [*weights].index(id(weight))))
        forward = keeping_padding_rows(module.forward) if has_padding_rows(module) else module.forward
        unit = Unit(name, forward, [*weights.values()], slots, self.folding)
        self._running[name] = unit
        self._replace(module, unit)

    def _crossed(self, done: dict[int, str]) -> bool:
        """Whether a module whose weights move lies both inside a unit and outside it."""
        for name, module in self.model.named_modules(remove_duplicate=False):
            inside = done.get(id(module)) in self._running
            if inside and self._has_moving(module) and not any(_below(name, unit) for unit in self._running):
                return True
        return False

    def _has_moving(self, module: nn.Module) -> bool:
        return any(id(weight) in self._moving for weight in module.parameters())

    def _replace(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self._patched.append((module, vars(module).get("forward")))
        module.forward = forward


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.ModuleDict) or type(module).forward is nn.Module.forward


def _below(name: str, unit: str) -> bool:
    return not unit or name == unit or name.startswith(f"{unit}.")


def _check(name: str, piece: Piece, lanes: int) -> None:
    first, last = piece.lanes if piece.lanes is not None else (0, lanes)
    if not 0 <= first < last <= lanes:
        raise ValueError(
            f"lanes of a piece of {name!r} must be (l0, l1) with 0 <= l0 < l1 <= {lanes}, got {piece.lanes}"
        )
    expected, got = (last - first, *piece.segment.shape), tuple(piece.leaf.shape)
    if got not in (expected, (lanes, *expected[1:])):
        raise ValueError(f"leaf of {name!r} must have shape {expected} ([lanes, *segment.shape]), got {got}")
