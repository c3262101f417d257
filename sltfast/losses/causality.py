"""Whether a model's predictions leave out what comes later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sltfast.losses.objective import ItemLoss
from sltfast.losses.tokens import token_ids

CAUSAL_TOLERANCE = 1e-5  # relative; masked-out tokens add exact zeros, so a causal model moves by rounding at most


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
