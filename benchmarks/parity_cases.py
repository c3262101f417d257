"""What the parity with devinterp is measured on: a small trained model of tokens, and settings of runs.

Temperature and localisation both matter to λ̂ at these settings, so that a sampler that has one of them wrong shows.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import torch
from torch import nn

VOCABULARY, TOKENS = 7, 6
SETTINGS: dict[str, Any] = {
    "lr": 6e-3,
    "n_beta": 40.0,
    "localization": 120.0,
    "num_draws": 24,
    "batch_size": 8,
    "num_init_loss_batches": 1,
    "device": "cpu",
}
CASES: dict[str, dict[str, Any]] = {
    "sgld": {},
    "rmsprop_sgld": {"sampling_method": "rmsprop_sgld", "rmsprop_eps": 0.1, "lr": 1e-3},
    "masked, in a box, with decay": {
        "param_masks": {"embed.weight": torch.arange(28).view(7, 4) % 3 > 0, "out.weight": None},
        "bounding_box_size": 0.25,
        "llc_weight_decay": 5.0,
        "batch_size": 4,
    },
}


class Reader(nn.Module):
    """Next-token logits [B, T, V] from the token before."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(VOCABULARY, 4), nn.Linear(4, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Of token ids [B, T]."""
        logits: torch.Tensor = self.out(torch.tanh(self.embed(ids)))
        return logits


def reader(precision: torch.dtype = torch.float32) -> nn.Module:
    """A reader of its own for the caller, trained."""
    return copy.deepcopy(trained()).to(precision)


@cache
def trained() -> nn.Module:
    """A reader trained until nothing more is learnt."""
    generator, built, ids = torch.Generator().manual_seed(3), Reader(), rows()
    for parameter in built.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    optimizer = torch.optim.Adam(built.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(built(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
    built.zero_grad()
    return built


def rows() -> torch.Tensor:
    """Token ids [8, TOKENS]."""
    return torch.randint(0, VOCABULARY, (8, TOKENS), generator=torch.Generator().manual_seed(4))


def data() -> Any:
    """The rows as both packages take them."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": rows().tolist()}).with_format("torch")


def sampled(package: str, model: nn.Module, **settings: Any) -> Any:
    """A tree of "devinterp", or of its face in the mode "exact" or "fast", with observables "task" and "probe"."""
    from devinterp.slt.sampling import sample as their_sample

    from sltfast.compat.devinterp.slt.sampling import sample

    seen = {"task": (data(), 1), "probe": (data(), 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of settings that were chosen, and of runs kept in memory only
        if package == "devinterp":
            return their_sample(model, data(), seen, **settings)
        return sample(model, data(), seen, exact=package == "exact", **settings)


def chains(package: str, count: int, case: str, **changes: Any) -> Any:
    """A tree of many chains of a case of CASES."""
    return sampled(package, reader(), **{**SETTINGS, **CASES[case], "num_chains": count, **changes})
