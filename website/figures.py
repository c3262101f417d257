"""Draw the pictures of the guide into docs/figures: python -m website.figures."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from torch import Tensor, nn

import sltfast

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
WIDTHS, RANK, ROWS = (5, 3, 5), 2, 1000


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Half the squared distance, one loss a row."""
    return (model(batch[0]) - batch[1]).square().sum(-1) / 2  # [B]


def network_and_data() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Two linear layers whose third hidden unit is dead, at a minimum: λ = 9.5 of 30 parameters."""
    torch.manual_seed(0)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(WIDTHS)]
    model = nn.Sequential(*layers)
    layers[0].weight.data[RANK] = 0
    x = torch.randn(ROWS, WIDTHS[0])
    return model, (x, model(x).detach())


def choosing_settings() -> None:
    """λ̂ over step sizes, temperatures and localisations of that network."""
    model, data = network_and_data()
    grid = sltfast.sweep(
        model,
        data,
        loss_fn=squared_error,
        lr=[1e-5, 1e-4, 3e-4, 1e-3, 1e-1],
        n_beta=[30.0, 145.0, 700.0],
        localization=[0.1, 1.0, 10.0],
        num_chains=4,
        num_burnin_steps=1500,
        num_draws=3000,
        batch_size=100,
        progress=False,
    )
    sltfast.plotting.save(sltfast.plotting.sweep_heatmap(grid), FIGURES / "choosing_settings.svg")
    print(grid.attrs["recommendation"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    choosing_settings()
