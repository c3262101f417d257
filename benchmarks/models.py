"""The models and data that regimes measure: made on the spot from fixed seeds, nothing downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Regression:
    """A model at a minimum of its mean squared error, and the data.

    ``loss(call, batch)`` gives the losses [B]; ``call`` is the model or anything that stands for it.
    """

    model: nn.Module
    data: Batch  # x [N, in], y [N, out]

    @staticmethod
    def loss(call: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        return (call(batch[0]) - batch[1]).square().sum(-1)  # [B]

    def level(self) -> float:
        """L(w*) over all rows."""
        with torch.no_grad():
            return float(self.loss(self.model, self.data).double().mean())


class ToySuperposition(nn.Module):
    """The toy model of superposition: x → relu(WᵀW x + b), W of 2 × 6; 18 parameters."""

    def __init__(self, features: int = 6, hidden: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(hidden, features) / features**0.5)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x @ self.weight.t() @ self.weight + self.bias)


def toy(rows: int = 1024, training_steps: int = 1000) -> Regression:
    """The toy model trained to rebuild sparse features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ToySuperposition()
        x = torch.rand(rows, 6) * (torch.rand(rows, 6) < 0.2)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(training_steps):
            optimizer.zero_grad(set_to_none=True)
            Regression.loss(model, (x, x)).mean().backward()
            optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Regression(model, (x, x))


def mlp(widths: tuple[int, ...] = (64, 128, 128, 10), rows: int = 1024) -> Regression:
    """A ReLU network that made its own targets, so that w* is a minimum (26,122 parameters)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Linear(inner, outer), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        x = torch.randn(rows, widths[0])
        with torch.no_grad():
            y = model(x) + 0.1 * torch.randn(rows, widths[-1])
    return Regression(model, (x, y))


@dataclass(frozen=True)
class Shape:
    """Of a GPT-NeoX model and its run."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    tokens: int
    batch: int
    chains: int

    def __str__(self) -> str:
        model = f"GPT-NeoX {self.layers} × {self.width}, V {self.vocabulary}"
        return f"{model}, T {self.tokens}, B {self.batch}, {self.chains} chains"


def neox(shape: Shape, *, eager_attention: bool = False) -> Any:
    """A random GPT-NeoX; vmap needs eager attention."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        max_position_embeddings=shape.tokens,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
        **({"attn_implementation": "eager"} if eager_attention else {}),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPTNeoXForCausalLM(config).eval()


def tokens(vocabulary: int, width: int, rows: int | None = None, seed: int = 1) -> Tensor:
    """Random token ids [rows, width]; L(w*) is read over all rows, so there are fewer where the vocabulary is large."""
    rows = rows or (256 if vocabulary <= 5000 else 64)
    return torch.randint(0, vocabulary, (rows, width), generator=torch.Generator().manual_seed(seed))


def next_token_losses(call: Callable[..., Any], ids: Tensor) -> Tensor:
    """Per-token cross-entropy [B, T−1] the plain way."""
    logits = call(ids).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


@torch.no_grad()
def language_level(model: nn.Module, ids: Tensor, batch: int = 16) -> float:
    """L(w*) over all rows, in nats a token."""
    totals = [next_token_losses(model, rows).double().sum() for rows in ids.split(batch)]
    return float(torch.stack(totals).sum()) / (ids.shape[0] * (ids.shape[1] - 1))
