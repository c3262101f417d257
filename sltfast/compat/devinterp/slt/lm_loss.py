"""Next-token losses of a language model, position by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

EvaluateFn = Callable[[nn.Module, dict[str, Any]], tuple[Tensor, dict[str, Any]]]
"""``evaluate(model, batch) -> (losses [B, T − 1], {})``, the batch a mapping with ``input_ids``."""
LossFn = Callable[[nn.Module, Tensor], Tensor]
"""``loss_fn(model, input_ids) -> losses [B, T − 1]``."""


class NonFiniteLogitsError(ValueError):
    """A model's logits hold NaN or infinite values."""


def lm_forward_logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Logits [B, T, V] of a Hugging Face or TransformerLens model, or of any module called with token ids.

    Args:
        model: gives logits, or an output that has them as ``.logits``.
        input_ids: int64 [B, T].
    """
    if is_transformer_lens_model(model):
        logits: Tensor = model(input_ids, return_type="logits")
        return logits
    if _is_pretrained(model):
        first: Tensor = model(input_ids, use_cache=False, return_dict=False)[0]
        return first
    output = model(input_ids)
    found: Tensor = getattr(output, "logits", output)
    return found


def is_transformer_lens_model(model: nn.Module) -> bool:
    """Whether the model has TransformerLens's ``cfg.n_heads``."""
    return hasattr(getattr(model, "cfg", None), "n_heads")


def _is_pretrained(model: nn.Module) -> bool:
    """Whether the model is one of Hugging Face's; transformers is not imported to find out."""
    return any(
        one.__name__ == "PreTrainedModel" and one.__module__.startswith("transformers") for one in type(model).mro()
    )


def lm_cross_entropy_loss(logits: Tensor, input_ids: Tensor) -> Tensor:
    """−log p(x_{t+1} | x_{≤t}) in nats, [B, T − 1], in the precision of the logits.

    Args:
        logits: [B, T, V].
        input_ids: int64 [B, T].
    """
    ahead = input_ids[..., 1:].unsqueeze(-1)
    log_probabilities = torch.log_softmax(logits, dim=-1)[..., :-1, :]
    return log_probabilities.gather(-1, ahead).squeeze(-1).neg()


def compute_per_token_loss(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Next-token losses of a batch, [B, T − 1].

    Raises:
        NonFiniteLogitsError: a logit is NaN or infinite.
    """
    logits = lm_forward_logits(model, input_ids)
    if not bool(torch.isfinite(logits).all()):
        raise NonFiniteLogitsError(
            f"Non-finite values detected in model logits of a batch of {len(input_ids)} sequences: lower lr or n_beta"
        )
    return lm_cross_entropy_loss(logits, input_ids)


def make_evaluate_fn(loss_fn: LossFn | None = None) -> EvaluateFn:
    """An ``evaluate`` for ``sample_single_chain``.

    Args:
        loss_fn: per-token losses; None: ``compute_per_token_loss``.
    """
    losses = compute_per_token_loss if loss_fn is None else loss_fn

    def evaluate(model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        return losses(model, batch["input_ids"]), {}

    return evaluate
