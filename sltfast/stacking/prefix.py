"""Prefix sharing: nothing below the lowest module that moves is computed more than once for all lanes.

L lanes see one batch of B rows. Given to a model lane after lane, [L·B, …], the rows are narrowed to the first B at the
model's entry, run once as far as the point, the input of the lowest module that reads a weight that moves, and repeated
there: from the point on the model sees L·B rows again. With a memo the activations at the point are kept by batch, and
the modules below do not run at all when it comes again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.data import leaves, map_leaves
from sltfast.isolation import isolated_rng
from sltfast.stacking.below import skippable
from sltfast.stacking.growing import tiled
from sltfast.stacking.hooks import Hooks
from sltfast.stacking.memo import Key, Memo
from sltfast.stacking.passing import Passing
from sltfast.stacking.points import Point, blocks, first_use, points
from sltfast.stacking.trace import Trace, trace

Forward = Callable[[nn.Module, Any], Any]
TRIED_LANES, TRIED_ROWS = 2, 2
AGREEMENT = 64  # roundings of the largest value: the same sums in another order, over the depth of a model


class Expansion:
    """Prefix sharing of one model and one set of weights that move.

    Made before the weights are stacked: it traces and tries plain forwards. Inside ``on`` a forward of L·B rows shares
    its prefix; outside, and where ``point`` is None, the model is as it was.

    Args:
        model: a structural clone, which nobody else uses meanwhile.
        moving: first names of the parameters that differ between lanes.
        forward: ``forward(model, batch)``, the loss that is going to be used; any number of rows.
        batch: an example, of the kind of all later batches (columns, masks); two different rows tell most.
        memo: keeps activations of batches that come again, for calls with a key; may serve several models.

    Attributes:
        point: name of the module at whose input lanes part, or None: nothing is shared.
        reason: why there and not later, or why nothing is shared.
        blocks: names of the model's repeated blocks, in order (empty where it has none).
        suffix_share: fraction of a forward's FLOPs that each lane spends; 1 where nothing is shared.
        memo: the memo, or None where the model cannot skip what is below the point (``memo_reason``).

    Raises:
        ValueError: a name in ``moving`` that the model does not have, or none at all.
    """

    def __init__(
        self, model: nn.Module, moving: Iterable[str], forward: Forward, batch: Any, memo: Memo | None = None
    ) -> None:
        parameters = dict(model.named_parameters())
        names = list(moving)
        unknown = [name for name in names if name not in parameters]
        if unknown or not names:
            raise ValueError(
                f"moving must name parameters of {type(model).__name__}, got {unknown or names} (first names, as "
                "model.named_parameters() gives them)"
            )
        self.model = model
        self.point: str | None = None
        self.reason, self.memo_reason = "", ""
        self.blocks: list[str] = []
        self.suffix_share = 1.0
        self.memo: Memo | None = None
        self._hooks: Hooks | None = None
        self._forward, self._batch = forward, batch
        self._device = next(iter(parameters.values())).device
        with isolated_rng(0, self._device), _buffers_kept(model):
            self._find({name: parameters[name] for name in names}, memo)
        del self._batch, self._forward

    def on(self, lanes: int, key: Key | None = None) -> On:
        """Inside it forwards share: ``with expansion.on(lanes, ("step", 17)): loss(model, expanded_batch)``.

        Args:
            lanes: L >= 1: the model is given L·B rows.
            key: of the batch, for the memo: ("step", k, …) or anything else that names it for good.
        """
        if lanes < 1:
            raise ValueError(f"lanes must be >= 1, got {lanes}")
        shares = self._hooks is not None and (lanes > 1 or (key is not None and self.memo is not None))
        return On(self._hooks if shares else None, lanes, key if self.memo is not None else None)

    @property
    def late(self) -> bool:
        """Whether the module at the point is given one lane's rows and returns L·B: its forward has been replaced."""
        return self._hooks is not None and self._hooks.late

    @late.setter
    def late(self, late: bool) -> None:
        if self._hooks is None:
            raise ValueError(f"nothing is shared ({self.reason}), so no module can expand late")
        self._hooks.late = late

    @property
    def passing(self) -> Passing | None:
        """The forward under way (lanes, rows, the memo's key), for whoever expands late."""
        return None if self._hooks is None else self._hooks.passing

    def restore(self) -> None:
        """Take the hooks off the model."""
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None

    def _find(self, moving: Mapping[str, nn.Parameter], memo: Memo | None) -> None:
        def run(rows: int) -> Any:
            return self._forward(self.model, _example(self._batch, rows))

        traced = trace(self.model, run, moving.values(), self._device)
        if isinstance(traced, str):
            self.reason = traced
            return
        self.blocks = blocks(self.model, traced)
        reader = first_use(traced, self.model, moving)
        if isinstance(reader, str):
            self.reason = reader
            return
        found, self.reason = points(traced, reader[0], self.model)
        if not found:
            self.reason = f"{reader[1]} moves, and {self.reason}"
            return
        with torch.no_grad():
            batch = map_leaves(lambda rows: tiled(rows, TRIED_LANES), _example(self._batch, TRIED_ROWS))
            plain = self._forward(self.model, batch)
            for point in found:
                failure = self._try(point, batch, plain)
                if failure is None:
                    self._settle(point, f"{reader[1]} is the first weight to be read that moves")
                    self._remember(traced, point, batch, plain, memo)
                    return
                self.reason = f"lanes cannot part at {point.call.name}: {failure}"

    def _try(self, point: Point, batch: Any, plain: Any) -> str | None:
        hooks = Hooks(point, None, [])
        failure = self._disagreement(hooks, None, batch, plain)
        if failure is not None:
            hooks.remove()
            return failure
        hooks.settle()
        self._hooks = hooks
        return None

    def _settle(self, point: Point, reason: str) -> None:
        self.point, self.reason, self.suffix_share = point.call.name, reason, point.share

    def _remember(self, traced: Trace, point: Point, batch: Any, plain: Any, memo: Memo | None) -> None:
        if memo is None:
            return
        needed = {
            id(tensor)
            for call in (point.call, *point.behind)
            for path, tensor in call.arguments.items()
            if path != point.call.hidden or call is not point.call
        }
        for with_weights in (False, True):
            skipped = skippable(point.below, traced.calls, needed, with_weights=with_weights)
            trial = Memo(2**62)
            hooks = Hooks(point, trial, skipped)
            failure = self._disagreement(hooks, ("trial",), batch, plain)
            failure = failure or self._disagreement(hooks, ("trial",), batch, plain)
            hooks.remove()
            if failure is None and trial.hits == 1:
                self.restore()
                self._hooks, self.memo = Hooks(point, memo, skipped), memo
                memo.wanted.add(point.call.name)
                return
            self.memo_reason = f"what lies below {point.call.name} cannot be skipped: {failure}"

    def _disagreement(self, hooks: Hooks, key: Key | None, batch: Any, plain: Any) -> str | None:
        """Why a shared forward is not the plain one, or None."""
        try:
            with On(hooks, TRIED_LANES, key):
                shared = self._forward(self.model, batch)
        except Exception as error:  # whatever a model raises when it is given lanes too late
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return _difference(leaves(shared), leaves(plain))


class On:
    """A context in which a model's hooks share; a no-op without hooks."""

    def __init__(self, hooks: Hooks | None, lanes: int, key: Key | None) -> None:
        self.hooks, self.lanes, self.key = hooks, lanes, key

    def __enter__(self) -> None:
        if self.hooks is not None:
            if self.hooks.passing is not None:
                raise RuntimeError("the model is in a shared forward already: leave one before the next")
            self.hooks.passing = Passing(self.lanes, self.key)

    def __exit__(self, *_: object) -> None:
        if self.hooks is not None and self.hooks.passing is not None:
            self.hooks.passing.end()
            self.hooks.passing = None


class _buffers_kept:
    """Whatever buffers a forward in train mode writes to are as before."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        modules = [module for module in self.model.modules() if module.training]
        buffers = {id(buffer): buffer for module in modules for buffer in module.buffers(recurse=False)}
        self.kept = [(buffer, buffer.clone()) for buffer in buffers.values()]

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for buffer, before in self.kept:
                buffer.copy_(before)


def _example(batch: Any, rows: int) -> Any:
    """That many rows of a batch; the second one padded at the end, for libraries drop a mask that hides nothing."""
    taken = map_leaves(lambda leaf: leaf[torch.arange(rows, device=leaf.device) % len(leaf)], batch)
    mask = taken.get("attention_mask") if isinstance(taken, Mapping) else None
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] > 1 and bool((mask != 0).all()):
        mask[1, -1] = 0
    return taken


def _difference(shared: list[Tensor], plain: list[Tensor]) -> str | None:
    if not plain or [tensor.shape for tensor in shared] != [tensor.shape for tensor in plain]:
        return f"outputs have shapes {[tuple(x.shape) for x in shared]}, not {[tuple(x.shape) for x in plain]}"
    for one, other in zip(shared, plain, strict=True):
        if not one.is_floating_point():
            if not torch.equal(one, other):
                return "whole-numbered outputs differ"
            continue
        if not torch.equal(one.isnan(), other.isnan()):
            return "outputs are NaN that depend on skipped modules"
        a, b = one.double().nan_to_num(), other.double().nan_to_num()
        bound = AGREEMENT * torch.finfo(one.dtype).eps * float(b.abs().max()) if b.numel() else 0.0
        apart = float((a - b).abs().max()) if b.numel() else 0.0
        if apart > bound:
            return f"outputs differ by {apart:.3g}, more than rounding ({bound:.3g})"
    return None
