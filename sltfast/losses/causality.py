"""Whether a model's predictions leave out what comes later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sltfast.data import map_leaves
from sltfast.losses.items import ItemLosses
from sltfast.losses.objective import ItemLoss
from sltfast.losses.shortened import shortened
from sltfast.losses.tokens import token_ids

ROWS = 2  # of the batch
CAUSAL_TOLERANCE = 1e-5  # relative; masked-out tokens add exact zeros, so a causal model moves by rounding at most


@torch.no_grad()
def check_causal(model: nn.Module, loss: ItemLoss, batch: Any) -> None:
    """Refuse a model whose earlier predictions change with a later token.

    Raises:
        TypeError: the model is not causal (a masked language model, say).
    """
    rows = map_leaves(lambda part: part[:ROWS], batch)
    batch, before = _few(model, loss, rows)
    ids = token_ids(batch)
    if ids is None or ids.shape[1] < 3:
        return
    changed = ids.clone()
    changed[:, -1] = torch.where(ids[:, -1] == ids[:, 0], ids[:, 1], ids[:, 0])
    other = {**batch, "input_ids": changed} if isinstance(batch, Mapping) else changed
    before = loss(model, batch) if before is None else before
    one, two = (losses.recorded()[:, :-1].nan_to_num() for losses in (before, loss(model, other)))
    if bool((one - two).abs().max() > CAUSAL_TOLERANCE * (1 + one.abs().max())):
        raise TypeError(
            f"{type(model).__name__} is not causal: its predictions change with later tokens, so a next-token loss "
            "means nothing; give loss_fn(model, batch) -> losses per item"
        )


def _few(model: nn.Module, loss: ItemLoss, rows: Any) -> tuple[Any, ItemLosses | None]:
    """A few tokens of the rows, which show as much, and their losses; whole rows for a model that takes no short ones,
    whose losses are not known yet.
    """
    short = shortened(rows)
    if short is None:
        return rows, None
    try:
        return short, loss(model, short)
    except Exception:  # whatever a model raises that takes no short rows; the whole ones went through already
        return rows, None
