"""A small attention model of synthetic text, some of whose rows say their first half twice."""

import numpy as np
import torch
from torch import Tensor, nn

VOCABULARY, TOKENS, WIDTH, HEADS = 12, 12, 16, 2


class Attention(nn.Module):
    """One causal attention of two heads between an embedding and an unembedding."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
            self.unembed = nn.Linear(WIDTH, VOCABULARY, bias=False)
            self.register_buffer("positions", torch.randn(TOKENS, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens) + self.positions
        query, key, value = (
            layer(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.unembed(hidden + self.output(mixed.transpose(1, 2).flatten(2)))


def token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """[B, T − 1] losses of the next tokens."""
    logits = model(tokens)[:, :-1]
    return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")


def text(rows: int, seed: int, *, noise: bool = False) -> Tensor:
    """[rows, T] of a Markov chain, every second row its first half twice; or tokens drawn alike, without any order."""
    rng = np.random.default_rng(seed)
    if noise:
        return torch.tensor(rng.integers(VOCABULARY, size=(rows, TOKENS)))
    following = np.random.default_rng(0).dirichlet(np.full(VOCABULARY, 0.3), size=VOCABULARY)
    written = np.empty((rows, TOKENS), dtype=np.int64)
    for row in range(rows):
        tokens = [int(rng.integers(VOCABULARY))]
        while len(tokens) < TOKENS:
            tokens.append(int(rng.choice(VOCABULARY, p=following[tokens[-1]])))
        written[row] = tokens[: TOKENS // 2] * 2 if row % 2 else tokens
    return torch.tensor(written)


def trained(data: Tensor, steps: int = 200) -> Attention:
    """The model after some steps of Adam."""
    model, order = Attention(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = data[torch.randint(len(data), (32,), generator=order)]
        optimizer.zero_grad()
        token_loss(model, batch).mean().backward()
        optimizer.step()
    return model
