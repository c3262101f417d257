"""Tiny models and rows of which both packages sample the same chains."""

from collections.abc import Iterator

import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

VOCABULARY, TOKENS = 11, 6


class Reads(nn.Module):
    """Logits [B, T, V] of each token by itself, through what train mode changes if asked for."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.embed, self.mix, self.out = nn.Embedding(VOCABULARY, 5), nn.Linear(5, 5), nn.Linear(5, VOCABULARY)
        self.norm = nn.BatchNorm1d(5) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.tanh(self.mix(self.embed(ids)))
        return self.out(self.drop(self.norm(x.transpose(1, 2)).transpose(1, 2)))


@pytest.fixture(scope="session", autouse=True)
def no_collections() -> Iterator[None]:
    """Devinterp collects garbage twice a chain, which takes longer than these chains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devinterp.slt.sampler._gc_and_empty_cache", lambda: None)
        yield


@pytest.fixture(autouse=True)
def as_with_optimisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devinterp checks its metrics in float32, which fails now and then on float64 weights; python -O leaves it out."""
    monkeypatch.setattr("torch.testing.assert_close", lambda *args, **kwargs: None)


@pytest.fixture(scope="session")
def data() -> Dataset:
    """19 rows: no whole number of batches of 4."""
    ids = torch.randint(0, VOCABULARY, (19, TOKENS), generator=torch.Generator().manual_seed(1))
    return Dataset.from_dict({"input_ids": ids.tolist()}).with_format("torch")
