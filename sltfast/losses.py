"""From a model and a batch to losses per item: next-token cross-entropy for language models, or the caller's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sltfast.data import leaves

IGNORE_INDEX = -100
CAUSAL_TOLERANCE = 1e-5  # relative; masked-out tokens add exact zeros, so a causal model moves by rounding at most
LossFn = Callable[[nn.Module, Any], Any]


class ItemLosses(NamedTuple):
    """Losses of a batch: ``values`` [B, T] (T = 1 for one loss an item), ``weights`` [B, T] or None (all 1).

    L(batch) = Σ weights·values / Σ weights; a weight of 0 ignores the entry (padding).
    """

    values: Tensor
    weights: Tensor | None

    def mean(self, dtype: torch.dtype | None = None) -> Tensor:
        """The batch's mean loss, accumulated in ``dtype`` (default: float32, or float64 where values are)."""
        if dtype is None:
            dtype = torch.float64 if self.values.dtype == torch.float64 else torch.float32
        values = self.values.to(dtype)
        if self.weights is None:
            return values.mean()
        weights = self.weights.to(dtype)
        total = weights.sum()
        # A batch of nothing but padding has loss 0 and gradient 0.
        return torch.where(weights != 0, weights * values, 0).sum() / torch.where(total == 0, 1, total)

    def recorded(self) -> Tensor:
        """[B, T] float32, detached; NaN where the weight is 0."""
        values = self.values.detach().float()
        return values if self.weights is None else values.masked_fill(self.weights == 0, torch.nan)


class ItemLoss:
    """A checked loss function: ``item_loss(model, batch) -> ItemLosses``."""

    def __init__(self, function: LossFn, name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, model: nn.Module, batch: Any) -> ItemLosses:
        """Losses of a batch; refuses what is not one loss per item."""
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
        if weights is not None and weights.shape != values.shape:
            raise ValueError(f"{self.name} returned weights of shape {tuple(weights.shape)} for {_described(values)}")
        return ItemLosses(values.reshape(rows, -1), None if weights is None else weights.reshape(rows, -1))


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
    return ItemLoss(_NextToken(model), "next-token cross-entropy")


def is_language_model(model: nn.Module) -> bool:
    """Whether the model maps ``input_ids`` to next-token logits by a convention known here."""
    if hasattr(getattr(model, "cfg", None), "n_heads"):  # TransformerLens
        return True
    if getattr(getattr(model, "config", None), "is_encoder_decoder", not hasattr(model, "config")):
        return False
    return "input_ids" in inspect.signature(model.forward).parameters


class _NextToken:
    """Per-token loss −log p(x_{t+1} | x_{≤t}), [B, T−1], in fp32 whatever the model's precision."""

    def __init__(self, model: nn.Module) -> None:
        parameters = inspect.signature(model.forward).parameters
        open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        self.takes_mask = "attention_mask" in parameters or open_ended
        self.takes_positions = "position_ids" in parameters

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor | None]:
        columns = batch if isinstance(batch, Mapping) else {"input_ids": _only_tensor(batch)}
        ids = columns["input_ids"].long()
        mask, labels = columns.get("attention_mask"), columns.get("labels")
        given = {"attention_mask": mask} if mask is not None and self.takes_mask else {}
        if mask is not None and self.takes_positions:
            # the first real token stands at position 0, however much padding is to its left
            given["position_ids"] = ((mask != 0).cumsum(1) - 1).clamp(min=0)
        output = model(ids, **given)
        logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
        if logits is None or logits.ndim != 3 or logits.shape[:2] != ids.shape:
            got = type(output).__name__ if logits is None else f"logits of shape {tuple(logits.shape)}"
            raise TypeError(
                f"{type(model).__name__} gives no next-token logits [{len(ids)}, {ids.shape[1]}, V] (got {got}): it is "
                "no causal language model; give loss_fn(model, batch) -> losses per item"
            )
        if logits.dtype != torch.float64:
            logits = logits.float()
        # Targets are shifted, not the logits: a [B, T, V] slice would be copied whole.
        targets = torch.full_like(ids, IGNORE_INDEX)
        targets[:, :-1] = (ids if labels is None else labels)[:, 1:]
        weights = None
        if labels is not None:
            weights = targets[:, :-1] != IGNORE_INDEX
        if mask is not None:
            real = (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
            weights = real if weights is None else weights & real
        flat = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
        return flat.view(ids.shape)[:, :-1], None if weights is None else weights.to(flat.dtype)


def token_ids(batch: Any) -> Tensor | None:
    """The token sequences [B, tokens] of a batch, if it is one of tokens."""
    found = batch.get("input_ids") if isinstance(batch, Mapping) else None
    tensors = leaves(batch)
    if found is None and not isinstance(batch, Mapping) and len(tensors) == 1:
        found = tensors[0]
    usable = isinstance(found, Tensor) and found.ndim == 2 and not found.is_floating_point()
    return found if usable else None


@torch.no_grad()
def check_causal(model: nn.Module, loss: ItemLoss, batch: Any) -> None:
    """Refuse a model whose earlier predictions change with a later token.

    Raises:
        TypeError: the model is not causal (a masked language model, say).
    """
    ids = token_ids(batch)
    if ids is None or ids.shape[1] < 3:
        return
    changed = ids.clone()
    changed[:, -1] = torch.where(ids[:, -1] == ids[:, 0], ids[:, 1], ids[:, 0])
    other = {**batch, "input_ids": changed} if isinstance(batch, Mapping) else changed
    before, after = (loss(model, x).recorded()[:, :-1].nan_to_num() for x in (batch, other))
    if bool((before - after).abs().max() > CAUSAL_TOLERANCE * (1 + before.abs().max())):
        raise TypeError(
            f"{type(model).__name__} is not causal: its predictions change with later tokens, so a next-token loss "
            "means nothing; give loss_fn(model, batch) -> losses per item"
        )


def _only_tensor(batch: Any) -> Tensor:
    tensors = leaves(batch)
    if len(tensors) != 1:
        raise TypeError(
            f"a language model's data set must be token ids, or columns named input_ids (attention_mask, labels); "
            f"got a {type(batch).__name__} of {len(tensors)} tensors"
        )
    return tensors[0]


def check_tokens(model: nn.Module, tensors: Any) -> None:
    """Refuse token data that next-token prediction cannot use, before anything runs.

    Raises:
        ValueError: no input_ids, ids that are not whole numbers or not 2-dimensional, sequences of fewer than two
            tokens, ids outside the vocabulary, or nothing left after ignoring padding.
    """
    columns = tensors if isinstance(tensors, Mapping) else {"input_ids": _only_tensor(tensors)}
    if "input_ids" not in columns:
        raise ValueError(f"a language model's data set needs a column input_ids, got {sorted(columns)}")
    ids = columns["input_ids"]
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"input_ids must be whole numbers (int64), got {ids.dtype}")
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(
            f"input_ids must have shape [rows, tokens] with at least 2 tokens a row, got {tuple(ids.shape)}"
        )
    for name in ("attention_mask", "labels"):
        if name in columns and columns[name].shape != ids.shape:
            raise ValueError(f"{name} has shape {tuple(columns[name].shape)}, input_ids {tuple(ids.shape)}")
    vocabulary = _vocabulary(model)
    ids = ids.long()
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (vocabulary is not None and high >= vocabulary):
        raise ValueError(f"input_ids span {low}..{high}, but the model's vocabulary is 0..{(vocabulary or 0) - 1}")
    labels, mask = columns.get("labels"), columns.get("attention_mask")
    counted = torch.ones_like(ids[:, 1:], dtype=torch.bool)
    if labels is not None:
        counted &= labels[:, 1:] != IGNORE_INDEX
        used = labels[labels != IGNORE_INDEX]
        if used.numel() and (int(used.min()) < 0 or (vocabulary is not None and int(used.max()) >= vocabulary)):
            raise ValueError(
                f"labels span {int(used.min())}..{int(used.max())}, but the model's vocabulary is "
                f"0..{(vocabulary or 0) - 1} ({IGNORE_INDEX} = ignored)"
            )
    if mask is not None:
        counted &= (mask[:, 1:] != 0) & (mask[:, :-1] != 0)
    if not bool(counted.any()):
        raise ValueError(
            f"no token is left to predict: attention_mask is 0 or labels are {IGNORE_INDEX} (ignored) at every position"
        )


def _vocabulary(model: nn.Module) -> int | None:
    find: Any = getattr(model, "get_input_embeddings", None)
    embedding = find() if callable(find) else None
    size = getattr(embedding, "num_embeddings", None) or getattr(getattr(model, "cfg", None), "d_vocab", None)
    return int(size) if size else None
