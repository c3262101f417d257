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
from sltfast.stacking.prefix.finding import Finding
from sltfast.stacking.prefix.hooks import Hooks, LateBlock, On
from sltfast.stacking.prefix.memo import Key, Memo
from sltfast.stacking.prefix.points import Point, blocks, first_use, points
from sltfast.stacking.prefix.trace import SIZES, Outline, Trace, trace
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
        short: the batch with fewer tokens a row, None: there is no such; it stands for the whole one where a forward
            makes the calls of ``outline``.
        outline: of a forward of whole rows.
        known: what another clone's expansion found; nothing is run.

    Attributes:
        finding: all of what was found out.

    Raises:
        ValueError: a name in ``moving`` that the model does not have, or none at all.
    """

    def __init__(
        self,
        model: nn.Module,
        moving: Iterable[str],
        forward: Forward,
        batch: Any,
        memo: Memo | None = None,
        *,
        short: Any = None,
        outline: Outline = (),
        known: Finding | None = None,
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
        self._given = memo
        self._hooks: Hooks | None = None
        self._device = next(iter(parameters.values())).device
        self.finding = Finding()
        if known is None:
            with isolated_rng(0, self._device), _buffers_kept(model):
                found = self._found({name: parameters[name] for name in names}, forward, batch, short, outline)
        self._take(known or found)

    @property
    def point(self) -> str | None:
        """Name of the module at whose input lanes part, or None."""
        return None if self.finding.point is None else self.finding.point.call.name

    @property
    def reason(self) -> str:
        """Why there and not later, or why nothing is shared."""
        return self.finding.reason

    @property
    def memo_reason(self) -> str:
        """Why nothing is remembered, "" where something is."""
        return self.finding.memo_reason

    @property
    def blocks(self) -> list[str]:
        """Names of the model's repeated blocks, in order."""
        return list(self.finding.blocks)

    @property
    def suffix_share(self) -> float:
        """Fraction of a forward's FLOPs that each lane spends."""
        return self.finding.suffix_share

    @property
    def memo(self) -> Memo | None:
        """What remembers, or None."""
        return None if self.finding.skipped is None else self._given

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
            reason = f"other batches are of another kind: {failure}"
            self.finding = self.finding._replace(point=None, skipped=None, suffix_share=1.0, reason=reason)

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

    def _take(self, found: Finding) -> None:
        """Share as it was found out, here or in another clone."""
        self.finding = found
        if found.point is not None:
            self._hooks = Hooks(self.model, found.point, self.memo, found.skipped or [])
            if self.memo is not None:
                self.memo.wanted.add(found.point.call.name)

    def _found(
        self, moving: Mapping[str, nn.Parameter], forward: Forward, batch: Any, short: Any, outline: Outline
    ) -> Finding:
        traced: Trace | str = ""
        if short is not None:
            traced = self._traced(forward, short, moving)
        is_short = isinstance(traced, Trace) and traced.is_like(outline)
        if not is_short:
            traced = self._traced(forward, batch, moving)
        if isinstance(traced, str):
            return Finding(reason=traced)
        found = self._chosen(traced, moving, forward, short if is_short else batch)._replace(short=is_short)
        for call in traced.calls:
            call.forget_tensors()
        return found

    def _traced(self, forward: Forward, batch: Any, moving: Mapping[str, nn.Parameter]) -> Trace | str:
        def run(rows: int) -> Any:
            return forward(self.model, _example(batch, rows))

        return trace(self.model, run, moving.values(), self._device)

    def _chosen(self, traced: Trace, moving: Mapping[str, nn.Parameter], forward: Forward, batch: Any) -> Finding:
        found = Finding(blocks=blocks(self.model, traced))
        reader = first_use(traced, self.model, moving)
        if isinstance(reader, str):
            return found._replace(reason=reader)
        candidates, reason = points(traced, reader[0], self.model)
        if not candidates:
            return found._replace(reason=f"{reader[1]} moves, and {reason}")
        with torch.no_grad():
            trial = Trial(self.model, forward, _example(batch, SIZES[0]), traced.returned, self._device)
            for point in candidates:
                hooks = Hooks(self.model, point, None, [])
                failure = trial.disagreement(hooks, None)
                settled = hooks.settled()
                hooks.remove()
                if failure is None:
                    reason = f"{reader[1]} is the first weight to be read that moves"
                    found = found._replace(point=settled, suffix_share=point.share, reason=reason)
                    return found if self._given is None else self._remembering(found, point, trial)
                reason = f"lanes cannot part at {point.call.name}: {failure}"
        return found._replace(reason=reason)

    def _remembering(self, found: Finding, point: Point, trial: Trial) -> Finding:
        """With what a forward skips whose activations at the point are remembered."""
        told = ""
        for with_weights in (False, True):
            skipped = skippable(self.model, point, with_weights=with_weights)
            unlimited = Memo(2**62)
            hooks = Hooks(self.model, point, unlimited, skipped)
            failure = trial.disagreement(hooks, ("trial",)) or trial.disagreement(hooks, ("trial",))
            hooks.remove()
            if failure is None and unlimited.hits == 1:
                return found._replace(skipped=skipped)
            told = f"what lies below {point.call.name} cannot be skipped: {failure}"
        return found._replace(memo_reason=told)


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
