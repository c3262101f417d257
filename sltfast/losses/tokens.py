"""Batches of tokens: what they are made of, which models read them, and which are refused before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.data import leaves

IGNORE_INDEX = -100


def is_language_model(model: nn.Module) -> bool:
    """Whether the model maps ``input_ids`` to next-token logits by a convention known here."""
    if hasattr(getattr(model, "cfg", None), "n_heads"):  # TransformerLens
        return True
    if getattr(getattr(model, "config", None), "is_encoder_decoder", not hasattr(model, "config")):
        return False
    return "input_ids" in inspect.signature(model.forward).parameters


def token_ids(batch: Any) -> Tensor | None:
    """The token sequences [B, tokens] of a batch, if it is one of tokens."""
    found = batch.get("input_ids") if isinstance(batch, Mapping) else None
    tensors = leaves(batch)
    if found is None and not isinstance(batch, Mapping) and len(tensors) == 1:
        found = tensors[0]
    usable = isinstance(found, Tensor) and found.ndim == 2 and not found.is_floating_point()
    return found if usable else None


def columns_of(batch: Any) -> Mapping[str, Tensor]:
    """A batch of tokens by column: input_ids, and attention_mask and labels where it has them.

    Raises:
        TypeError: several tensors without names.
    """
    return batch if isinstance(batch, Mapping) else {"input_ids": _only_tensor(batch)}


def logits_of(model: nn.Module, ids: Tensor, given: dict[str, Tensor]) -> Tensor:
    """[B, T, V] of a forward.

    Raises:
        TypeError: the model gives no logits for every token.
    """
    output = model(ids, **given)
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None or logits.ndim != 3 or logits.shape[:2] != ids.shape:
        got = type(output).__name__ if logits is None else f"logits of shape {tuple(logits.shape)}"
        raise TypeError(
            f"{type(model).__name__} gives no next-token logits [{len(ids)}, {ids.shape[1]}, V] (got {got}): it is "
            "no causal language model; give loss_fn(model, batch) -> losses per item"
        )
    return logits


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
    columns = columns_of(tensors)
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
        if name in columns:
            _check_column(name, columns[name])
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


def _check_column(name: str, column: Tensor) -> None:
    if name == "labels" and (column.is_floating_point() or column.dtype == torch.bool):
        raise ValueError(f"labels must be whole numbers (int64), got {column.dtype}")
    if name == "attention_mask" and not bool((column >= 0).all()):
        raise ValueError("attention_mask must be 1 where a token counts and 0 where it is padding, got negative or NaN")


def _vocabulary(model: nn.Module) -> int | None:
    find: Any = getattr(model, "get_input_embeddings", None)
    embedding = find() if callable(find) else None
    size = getattr(embedding, "num_embeddings", None) or getattr(getattr(model, "cfg", None), "d_vocab", None)
    return int(size) if size else None
