"""Next-token cross-entropy, from a model's logits or from its hidden states."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sltfast.losses.items import ItemLosses, LaneWeights, Objective, by_lane
from sltfast.losses.lane_losses import LaneTokens, lane_losses, lane_objective
from sltfast.losses.mask_reads import masks_unread
from sltfast.losses.tokens import IGNORE_INDEX, columns_of, logits_of
from sltfast.losses.unembedding import Unembedding


class Question(NamedTuple):
    """What a model is asked: ``ids`` [B, T]; ``given``, its other inputs; ``targets`` [B, T−1], IGNORE_INDEX where a
    label says so; ``weights`` bool [B, T−1], which targets count, or None (all).
    """

    ids: Tensor
    given: dict[str, Tensor]
    targets: Tensor
    weights: Tensor | None


class NextToken:
    """Per-token loss −log p(x_{t+1} | x_{≤t}), [B, T−1], in fp32 whatever the model's precision (float64: float64)."""

    def __init__(self, model: nn.Module) -> None:
        parameters = inspect.signature(model.forward).parameters
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        self.takes_mask = "attention_mask" in parameters or open_ended
        self.takes_positions = "position_ids" in parameters

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor | None]:
        """(losses, weights or None) from the model's logits."""
        ids, given, shifted, weights = self.question(batch)
        with masks_unread():
            logits = logits_of(model, ids, given)
        if logits.dtype != torch.float64:
            logits = logits.float()
        # Targets are shifted, not the logits: a [B, T, V] slice would be copied whole.
        targets = F.pad(shifted, (0, 1), value=IGNORE_INDEX)
        flat = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
        return flat.view(ids.shape)[:, :-1], None if weights is None else weights.to(flat.dtype)

    def without_logits(
        self, model: nn.Module, batch: Any, unembedding: Unembedding, lanes: int, lane_weights: LaneWeights | None
    ) -> ItemLosses | None:
        """The same losses from hidden states, or None where they cannot be had (``Unembedding.hidden``)."""
        found = self._tokens(model, batch, unembedding, lanes, lane_weights)
        if found is None:
            return None
        tokens, weights = found
        values = lane_losses(tokens).view(-1, tokens.width)
        return ItemLosses(values, None if weights is None else weights.to(values.dtype))

    def objective(
        self,
        model: nn.Module,
        batch: Any,
        unembedding: Unembedding,
        lanes: int,
        scale: float,
        lane_weights: LaneWeights | None,
    ) -> Objective | None:
        """Their lanes' means summed, times ``scale``; the weight of each token is known before its loss is."""
        found = self._tokens(model, batch, unembedding, lanes, lane_weights)
        if found is None:
            return None
        tokens, weights = found
        total, losses = lane_objective(tokens, None if weights is None else by_lane(weights, lanes), scale)
        values = losses.view(-1, tokens.width)
        return Objective(total, ItemLosses(values, None if weights is None else weights.to(values.dtype)))

    def question(self, batch: Any) -> Question:
        """What a batch asks of the model."""
        columns = columns_of(batch)
        ids = columns["input_ids"].long()
        mask, labels = columns.get("attention_mask"), columns.get("labels")
        given = {"attention_mask": mask} if mask is not None and self.takes_mask else {}
        if mask is not None and self.takes_positions:
            # the first real token stands at position 0, however much padding is to its left
            given["position_ids"] = ((mask != 0).cumsum(1) - 1).clamp(min=0)
        targets = (ids if labels is None else labels.long())[:, 1:]
        weights = None if labels is None else targets != IGNORE_INDEX
        if mask is not None:
            real = (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
            weights = real if weights is None else weights & real
        return Question(ids, given, targets, weights)

    def _tokens(
        self, model: nn.Module, batch: Any, unembedding: Unembedding, lanes: int, lane_weights: LaneWeights | None
    ) -> tuple[LaneTokens, Tensor | None] | None:
        ids, given, targets, weights = self.question(batch)
        with masks_unread():
            whole = unembedding.hidden(model, ids, given)
        if whole is None:
            return None
        hidden = whole[:, :-1]  # [L·B, T−1, d]; the last predicts nothing known
        if weights is not None:
            targets = targets.masked_fill(~weights, IGNORE_INDEX)
        weight, bias = unembedding.weights(model, lane_weights)
        tokens = LaneTokens(
            hidden=by_lane(hidden, lanes).view(lanes, -1, hidden.shape[-1]),
            unembedding=weight,
            bias=bias,
            targets=by_lane(targets, lanes),
            rule=unembedding.rule,
            padded=weights is not None,
            width=targets.shape[1],
        )
        return tokens, weights
