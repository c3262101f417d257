"""The loss of a run: per item, of one chain or of many lanes at once, and the scalar that the lanes descend."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sltfast.data import leaves
from sltfast.losses.items import ItemLosses, LaneWeights, LossFn, Objective
from sltfast.losses.next_token import NextToken
from sltfast.losses.tokens import is_language_model
from sltfast.losses.unembedding import Unembedding
from sltfast.losses.unembedding_search import find_unembedding


class ItemLoss:
    """A checked loss function: ``item_loss(model, batch) -> ItemLosses``.

    Attributes:
        unembedding: of a language model, the map from hidden states to logits (``without_logits``). With it no logits
            are formed; None: the model's own logits are used.
        logits_because: why logits are formed, "" where they are not.
    """

    def __init__(self, function: LossFn, name: str) -> None:
        self.function, self.name = function, name
        self.unembedding: Unembedding | None = None
        self.logits_because = "nothing else was tried"

    def without_logits(self, model: nn.Module, batch: Any, precision: str | None = None) -> str:
        """From now on form no logits, where the model proves that none are needed; returns why not, else "".

        Args:
            model: see ``find_unembedding``, as for the others.
            batch: any batch of the run's data.
            precision: the run's.
        """
        found = find_unembedding(model, self, batch, precision)
        self.unembedding, self.logits_because = (found, "") if isinstance(found, Unembedding) else (None, found)
        return self.logits_because

    def __call__(
        self, model: nn.Module, batch: Any, lanes: int = 1, lane_weights: LaneWeights | None = None
    ) -> ItemLosses:
        """Losses of a batch; refuses what is not one loss per item.

        Args:
            model: any module; a folded one reads ``lanes`` batches of B rows, one after another.
            batch: what the loss function takes.
            lanes: L >= 1.
            lane_weights: where a folded model keeps the lanes' own weights; None: every lane reads the model's.

        Raises:
            ValueError, TypeError: the loss function returns anything but losses per item (and weights of their shape).
        """
        if self.unembedding is not None and isinstance(self.function, NextToken):
            from_hidden = self.function.without_logits(model, batch, self.unembedding, lanes, lane_weights)
            if from_hidden is not None:
                return from_hidden
            self._give_up()
        result = self.function(model, batch)
        values, weights = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        if weights is not None and not isinstance(weights, Tensor):
            raise TypeError(f"{self.name} must return weights as a tensor, got {type(weights).__name__}")
        rows = len(leaves(batch)[0])
        if not isinstance(values, Tensor) or not values.is_floating_point():
            raise TypeError(f"{self.name} must return a float tensor of losses per item, got {_described(values)}")
        if values.ndim == 0 or len(values) != rows:
            raise ValueError(
                f"{self.name} must return one loss per item, shape [{rows}] or [{rows}, T], got {_described(values)} "
                "(use reduction='none' and average over each item's own outputs)"
            )
        if values.numel() == 0:
            raise ValueError(f"{self.name} returned no losses (shape {tuple(values.shape)}): give at least one an item")
        if weights is not None and weights.shape != values.shape:
            raise ValueError(f"{self.name} returned weights of shape {tuple(weights.shape)} for {_described(values)}")
        return ItemLosses(values.reshape(rows, -1), None if weights is None else weights.reshape(rows, -1))

    def objective(
        self,
        model: nn.Module,
        batch: Any,
        lanes: int = 1,
        scale: float = 1.0,
        lane_weights: LaneWeights | None = None,
    ) -> Objective:
        """``scale``·Σ_l L_l, L_l the mean loss of lane l's rows, and the losses themselves.

        A lane whose loss is NaN makes the total NaN; the gradients of the other lanes are what they are without it.

        Args:
            model: as for a call, and so are ``batch``, ``lanes`` and ``lane_weights``.
            batch: of L·B rows.
            lanes: L >= 1.
            scale: of the total, 1/m for m mini-batches a step.
            lane_weights: where the lanes' own weights are.

        Raises:
            ValueError, TypeError: as a call; rows that the lanes cannot share evenly.
        """
        if self.unembedding is not None and isinstance(self.function, NextToken):
            objective = self.function.objective(model, batch, self.unembedding, lanes, scale, lane_weights)
            if objective is not None:
                return objective
            self._give_up()
        losses = self(model, batch, lanes, lane_weights)
        total = losses.lane_means(lanes).sum()
        return Objective(total if scale == 1.0 else total * scale, losses.detach())

    def _give_up(self) -> None:
        """Form logits from now on: a model that runs as one unit hides what its head is given."""
        self.unembedding, self.logits_because = None, "the module above the head runs whole, lane by lane or under vmap"


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__


def item_loss(model: nn.Module, loss_fn: LossFn | None) -> ItemLoss:
    """The loss of a run: the caller's ``loss_fn``, or next-token cross-entropy for a language model.

    Raises:
        TypeError: ``loss_fn`` is not callable, or is missing where the model is no language model.
    """
    if loss_fn is not None:
        if not callable(loss_fn):
            raise TypeError(f"loss_fn must be callable as loss_fn(model, batch), got {type(loss_fn).__name__}")
        return ItemLoss(loss_fn, f"loss_fn {getattr(loss_fn, '__qualname__', type(loss_fn).__qualname__)}")
    if not is_language_model(model):
        raise TypeError(
            f"{type(model).__name__} is not recognised as a causal language model (Hugging Face or TransformerLens): "
            "give loss_fn(model, batch) -> losses per item, shape [B] or [B, T]"
        )
    return ItemLoss(NextToken(model), "next-token cross-entropy")
