"""A batch of tokens with fewer of them, for what a few show as well as all."""

from __future__ import annotations

from typing import Any

from sltfast.data import leaves, map_leaves
from sltfast.losses.tokens import token_ids

FEW_TOKENS = 17  # odd, so that no other size of the model is a multiple of it by chance


def shortened(batch: Any) -> Any:
    """The first few tokens of every row; None where a batch has no more, or masks and labels beside its tokens.

    Args:
        batch: of a language model.
    """
    ids = token_ids(batch)
    if ids is None or len(leaves(batch)) > 1 or ids.shape[1] <= FEW_TOKENS:
        return None
    return map_leaves(lambda part: part[:, :FEW_TOKENS], batch)
