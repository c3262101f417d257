"""All lanes folded into the batch of one model, what does not move computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.arena import Arena
from sltfast.data import map_leaves
from sltfast.losses import ItemLoss, ItemLosses, Objective
from sltfast.restriction import Restriction
from sltfast.sampler.engines.engine import LaneBatch
from sltfast.sampler.engines.understanding import Understanding
from sltfast.stacking import Piece, Stack, refusal
from sltfast.stacking.heads import HeadLanes
from sltfast.stacking.prefix import Expansion, Memo


class StackedEngine:
    """Modules whose weights move read per-lane weights; everything else sees a bigger batch.

    Where all lanes see the same rows, modules below the first weight that moves run once for all of them. Heads of one
    attention go further: only the lane's own head is the lane's (``stacking.heads``).

    Args:
        clone: a structural clone that is this engine's own.
        restrictions: what moves; congruent.
        loss: the run's loss.
        num_chains: chains of each restriction.
        device: where.
        examples: a few rows of each kind of batch, the run's own first; none where lanes have rows of their own.
        memo: keeps what does not move of batches that come again.
        understanding: of these restrictions; what it lacks is found out and filled in.
        short: the first of ``examples`` with fewer tokens a row; None: there is no such.

    Raises:
        ValueError: lanes in one batch would mix, or draw other numbers than alone.
    """

    name = "stacked"

    def __init__(
        self,
        clone: nn.Module,
        restrictions: Sequence[Restriction],
        loss: ItemLoss,
        num_chains: int,
        device: torch.device,
        examples: Sequence[Any] = (),
        memo: Memo | None = None,
        understanding: Understanding | None = None,
        short: Any = None,
    ) -> None:
        reason = refusal(clone)
        if reason is not None:
            raise ValueError(reason)
        self.loss, self.model = loss, clone
        known = self._understanding = Understanding() if understanding is None else understanding
        read_as = {name: parameter.dtype for name, parameter in clone.named_parameters()}
        self.arena = Arena(restrictions, read_as, num_chains, device)
        self.arena.reset()
        self.expansion: Expansion | None = None
        self.heads: HeadLanes | None = None
        self.stack: Stack | None = None
        reason = "lanes have rows of their own"
        if examples:
            moving = list(dict.fromkeys(leaf.name for leaf in self.arena.leaves))
            whole, said = examples[0], {"short": short, "outline": known.outline}
            self.expansion = Expansion(clone, moving, self._values, whole, memo, known=known.sharing, **said)
            for other in examples[1:] if known.sharing is None else ():
                self.expansion.keep_to(self._values, other)
            known.sharing = self.expansion.finding
            short = short if known.sharing.short else None
            reason = self._find_heads(restrictions, num_chains, whole if short is None else short)
        self._not_heads = reason
        if self.heads is None:
            weights: dict[str, list[Piece]] = {}
            for leaf in self.arena.leaves:
                weights.setdefault(leaf.name, []).extend(Piece.of_restrictions(leaf.segments, leaf.tensor))
            self.stack = Stack(clone, weights, self.arena.lanes, known.units)
            if known.settled and examples and short is not None:  # what its first forward notes, a few tokens show
                with torch.no_grad():
                    self.losses(LaneBatch(short, True))

    def _values(self, model: nn.Module, batch: Any) -> Tensor:
        return self.loss(model, batch).values

    def _find_heads(self, restrictions: Sequence[Restriction], num_chains: int, example: Any) -> str:
        """Let only the heads of the lanes be their own; returns why not."""
        assert self.expansion is not None
        known = self._understanding
        if known.not_heads:
            return known.not_heads
        known.not_heads = self._heads_refused(restrictions, num_chains, example)
        return known.not_heads

    def _heads_refused(self, restrictions: Sequence[Restriction], num_chains: int, example: Any) -> str:
        assert self.expansion is not None
        known = self._understanding
        if all(leaf.segments[0].whole for leaf in self.arena.leaves):
            return "whole parameters move"
        if self.expansion.point is None:
            return f"nothing is shared ({self.expansion.reason})"
        leaves = {id(leaf.segments[0]): leaf.tensor for leaf in self.arena.leaves}
        of_segments = [leaves[id(segment)] for segment in restrictions[0].segments]

        def run() -> Any:
            with torch.no_grad():
                return self._values(self.model, example)

        layout = None if known.not_heads is None else known.layout
        heads, reason = HeadLanes.of(self.model, restrictions, of_segments, num_chains, run, layout)
        if heads is not None:
            try:
                heads.apply(self.expansion)
            except ValueError as error:
                return str(error)
            self.heads, known.layout = heads, heads.layout
        return reason

    def objective(self, batch: LaneBatch, scale: float) -> Objective:
        """Σ of the lanes' mean losses, and the losses."""
        lanes = self.arena.lanes
        with self._sharing(batch):
            return self.loss.objective(self.model, self._rows(batch), lanes, scale, self._lane_weights)

    def losses(self, batch: LaneBatch) -> ItemLosses:
        """Losses of all lanes, [L·B, T]."""
        with self._sharing(batch):
            return self.loss(self.model, self._rows(batch), self.arena.lanes, self._lane_weights)

    def _sharing(self, batch: LaneBatch) -> Any:
        if self.expansion is None or not batch.shared:
            return nullcontext()
        return self.expansion.on(self.arena.lanes, batch.key)

    def _rows(self, batch: LaneBatch) -> Any:
        if self.stack is not None:
            return self.stack.expand(batch.data) if batch.shared else self.stack.take(batch.data)
        lanes = self.arena.lanes
        return map_leaves(lambda rows: rows.repeat(lanes, *[1] * (rows.ndim - 1)), batch.data)

    def _lane_weights(self, parameter: nn.Parameter) -> Tensor | None:
        return None if self.stack is None else self.stack.lane_weights(parameter)

    def buffers(self) -> dict[str, Tensor]:
        """None: it is not used in train mode."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Where the lanes part, what each of them computes, and how its modules read their weights."""
        facts: dict[str, Any] = {"heads": "lanes of their own" if self.heads is not None else self._not_heads}
        if self.expansion is not None:
            facts["lanes_part_at"] = self.expansion.point or f"the model's input ({self.expansion.reason})"
            facts["suffix_share"] = round(self.expansion.suffix_share, 4)
        if self.stack is not None:
            rungs = list(self.stack.rungs.values())
            facts["modules"] = {rung: rungs.count(rung) for rung in dict.fromkeys(rungs)}
        return facts

    def close(self) -> None:
        """Take the patches off."""
        if self.heads is not None:
            self.heads.restore()
        if self.stack is not None:
            self._understanding.units = self.stack.units
            self._understanding.settled = True
            self.stack.restore()
        if self.expansion is not None:
            self.expansion.restore()
