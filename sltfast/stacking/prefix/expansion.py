"""Prefix sharing: nothing below the lowest module that moves is computed more than once for all lanes.

L lanes see one batch of B rows. Given to a model lane after lane, [L·B, …], the rows are narrowed to the first B at the
model's entry, run once as far as the point, the input of the lowest module that reads a weight that moves, and repeated
there: from the point on the model sees L·B rows again. With a memo the activations at the point are kept by batch, and
the modules below do not run at all when it comes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.data import map_leaves
from sltfast.isolation import isolated_rng
from sltfast.stacking.prefix.below import skippable
from sltfast.stacking.prefix.hooks import Hooks, LateBlock, On
from sltfast.stacking.prefix.memo import Key, Memo
from sltfast.stacking.prefix.points import Point, blocks, first_use, points
from sltfast.stacking.prefix.trace import SIZES, Trace, trace
from sltfast.stacking.prefix.trials import Forward, Trial


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
        del self._batch, self._forward  # neither is needed again, and both may hold much

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

    def expand_late(self, block: LateBlock | None) -> None:
        """Lanes part inside the module at the point, which ``block`` has patched, or at its input again (None).

        The module is then given one lane's rows, masks included, and returns those of all lanes.

        Raises:
            ValueError: nothing is shared, or up to another module.
        """
        if block is not None and (self._hooks is None or block.block_name != self.point):
            raise ValueError(f"lanes part at {self.point} ({self.reason}), not at {block.block_name}")
        if self._hooks is not None:
            self._hooks.late = block

    def keep_to(self, forward: Forward, batch: Any) -> None:
        """Share nothing, where a forward of another kind of batch (other columns) cannot: ``reason`` says why.

        Args:
            forward: as when it was made.
            batch: a few rows.
        """
        if self._hooks is None:
            return
        with isolated_rng(0, self._device), _buffers_kept(self.model), torch.no_grad():
            once = forward(self.model, batch)
            failure = Trial(self.model, forward, batch, once, self._device).disagreement(self._hooks, None)
        if failure is not None:
            self.restore()
            self.point, self.memo, self.suffix_share = None, None, 1.0
            self.reason = f"other batches are of another kind: {failure}"

    def fits(self, rungs: Mapping[str, str]) -> bool:
        """Whether a stack with these ``rungs`` may be put on: none of its units runs the point from outside."""
        units = [name for name, rung in rungs.items() if rung != "registry"]
        point = self.point
        return point is None or not any(name == "" or point.startswith(f"{name}.") for name in units)

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
        self._choose(traced, moving, memo)
        for call in traced.calls:
            call.forget_tensors()

    def _choose(self, traced: Trace, moving: Mapping[str, nn.Parameter], memo: Memo | None) -> None:
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
            trial = Trial(self.model, self._forward, _example(self._batch, SIZES[0]), traced.returned, self._device)
            for point in found:
                hooks = Hooks(point, None, [])
                failure = trial.disagreement(hooks, None)
                if failure is None:
                    hooks.settle()
                    self._hooks, self.point, self.suffix_share = hooks, point.call.name, point.share
                    self.reason = f"{reader[1]} is the first weight to be read that moves"
                    self._remember(point, trial, memo)
                    return
                hooks.remove()
                self.reason = f"lanes cannot part at {point.call.name}: {failure}"

    def _remember(self, point: Point, trial: Trial, memo: Memo | None) -> None:
        if memo is None:
            return
        for with_weights in (False, True):
            skipped = skippable(point, with_weights=with_weights)
            unlimited = Memo(2**62)
            hooks = Hooks(point, unlimited, skipped)
            failure = trial.disagreement(hooks, ("trial",)) or trial.disagreement(hooks, ("trial",))
            hooks.remove()
            if failure is None and unlimited.hits == 1:
                self.restore()
                self._hooks, self.memo, self.memo_reason = Hooks(point, memo, skipped), memo, ""
                memo.wanted.add(point.call.name)
                return
            self.memo_reason = f"what lies below {point.call.name} cannot be skipped: {failure}"


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Whatever buffers a forward in train mode writes to are as before."""
    modules = [module for module in model.modules() if module.training]
    buffers = {id(buffer): buffer for module in modules for buffer in module.buffers(recurse=False)}
    before = [(buffer, buffer.clone()) for buffer in buffers.values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _example(batch: Any, rows: int) -> Any:
    """That many rows of a batch; the second one padded at the end, for libraries drop a mask that hides nothing."""
    taken = map_leaves(lambda leaf: leaf[torch.arange(rows, device=leaf.device) % len(leaf)], batch)
    mask = taken.get("attention_mask") if isinstance(taken, Mapping) else None
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] > 1 and bool((mask != 0).all()):
        mask[1, -1] = 0
    return taken
