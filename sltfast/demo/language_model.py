"""A small GPT-NeoX, trained on rows of tokens on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sltfast.extras import require
from sltfast.isolation import isolated_rng


def trained_language_model(
    rows: Tensor,
    *,
    vocabulary: int,
    steps: int,
    layers: int = 2,
    heads: int = 4,
    hidden_size: int = 48,
    attention_only: bool = False,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    seed: int = 0,
    watch: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train a GPT-NeoX to predict the next token: AdamW, warm-up of 50 steps, cosine decay to a tenth.

    Args:
        rows: token ids, int64 [rows, tokens].
        vocabulary: number of tokens there are.
        steps: of training.
        layers: blocks.
        heads: of each block.
        hidden_size: width; the MLP is four times as wide.
        attention_only: the MLPs' output is 0 and stays 0, and so do their gradients.
        batch_size: rows a step.
        learning_rate: its peak.
        seed: of the weights and the order of rows; global random states are left alone.
        watch: called with the step (from 0, before it) and the model.

    Returns:
        The model, in evaluation mode.

    Raises:
        MissingExtra: transformers is not installed.
    """
    transformers = require("transformers", extra="hf", purpose="for a small language model")
    config = transformers.GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=rows.shape[1],
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    with isolated_rng(seed):
        model: Any = transformers.GPTNeoXForCausalLM(config).train()
        if attention_only:
            for layer in model.gpt_neox.layers:
                for parameter in layer.mlp.parameters():
                    parameter.requires_grad_(False).zero_()
        moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(moving, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        order = torch.Generator().manual_seed(seed)
        for step in range(steps):
            if watch is not None:
                watch(step, model)
            batch = rows[torch.randint(len(rows), (batch_size,), generator=order)]
            logits = model(input_ids=batch).logits
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    finished: nn.Module = model.eval()
    return finished


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate."""
    decay = 0.55 + 0.45 * float(torch.cos(torch.tensor(torch.pi * step / max(1, steps))))
    return min(1.0, (step + 1) / 50) * decay
