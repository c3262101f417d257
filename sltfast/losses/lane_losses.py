"""Cross-entropy of many lanes' tokens from their hidden states, by `ops.token_loss`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sltfast.losses.tokens import IGNORE_INDEX
from sltfast.losses.unembedding import LogitRule
from sltfast.ops.token_loss import WeightedTokenLoss, token_loss

WORTH_LEAVING_OUT = 0.1  # of the tokens: fewer ignored ones are not worth a copy of the others


class LaneTokens(NamedTuple):
    """The tokens of L lanes, N = B·T a lane, and the map to their logits.

    hidden: [L, N, d]; unembedding: [V, d] or [L, V, d]; bias: [V], [L, V] or None; targets: [L, N], IGNORE_INDEX where
    ignored, which ``padded`` says can be; width: T.
    """

    hidden: Tensor
    unembedding: Tensor
    bias: Tensor | None
    targets: Tensor
    rule: LogitRule
    padded: bool
    width: int


def lane_losses(tokens: LaneTokens) -> Tensor:
    """[L, N] loss of each token, differentiable; 0 where ignored."""
    counted = _counted(tokens)
    if counted is None:
        losses = _token_loss(tokens, None)
        assert isinstance(losses, Tensor)
        return losses
    some = lane_losses(_only(tokens, counted))
    return some.new_zeros(tokens.targets.shape).index_copy(1, counted, some)


def lane_objective(tokens: LaneTokens, weights: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """(κ·Σ_l Σ_n ρ_ln·ℓ_ln, ℓ [L, N] detached), ρ_ln = a_ln / Σ_m a_lm.

    Args:
        tokens: of the lanes.
        weights: [L, N], a; None: all 1.
        scale: κ.
    """
    dtype = torch.float64 if tokens.hidden.dtype == torch.float64 else torch.float32
    if weights is None:
        shares = torch.full_like(tokens.targets, scale / tokens.targets.shape[1], dtype=dtype)
    else:
        counts = weights.to(dtype)
        total = counts.sum(1, keepdim=True)
        # a lane of nothing but padding has loss 0 and gradient 0
        shares = counts * (scale / torch.where(total == 0, 1, total))
    counted = _counted(tokens)
    if counted is None:
        result = _token_loss(tokens, shares)
        assert isinstance(result, WeightedTokenLoss)
        return result
    result = _token_loss(_only(tokens, counted), shares[:, counted])
    assert isinstance(result, WeightedTokenLoss)
    return result.total, result.losses.new_zeros(tokens.targets.shape).index_copy_(1, counted, result.losses)


def _token_loss(tokens: LaneTokens, shares: Tensor | None) -> Tensor | WeightedTokenLoss:
    hidden, rule = tokens.hidden, tokens.rule
    # autocast hands over whatever the last product came in, and would round both operands of the next
    hidden = hidden.to(tokens.unembedding.dtype)
    precision = "bf16" if torch.is_autocast_enabled(hidden.device.type) else rule.precision
    return token_loss(
        hidden,
        tokens.unembedding,
        tokens.targets,
        bias=tokens.bias,
        ignore_index=IGNORE_INDEX,
        scale=rule.scale,
        softcap=rule.softcap,
        token_weights=shares,
        precision=precision,
    )


def _counted(tokens: LaneTokens) -> Tensor | None:
    """Indices of the tokens that count in any lane, where leaving out the others saves more than it costs; None: all.

    On a GPU their number would have to be waited for.
    """
    if not tokens.padded or tokens.targets.device.type != "cpu":
        return None
    counted = torch.from_numpy((tokens.targets != IGNORE_INDEX).any(0).numpy().nonzero()[0])
    worth = 0 < len(counted) <= (1 - WORTH_LEAVING_OUT) * tokens.targets.shape[1]
    return counted if worth else None


def _only(tokens: LaneTokens, counted: Tensor) -> LaneTokens:
    return tokens._replace(hidden=tokens.hidden[:, counted], targets=tokens.targets[:, counted], padded=False)
