"""``compile=True``: the chains of the vmap engine, from one compiled function."""

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss
from torch import nn

import sltfast

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 5, "num_draws": 6, "batch_size": 4,
    "num_init_loss_batches": 1, "progress": False, "device": "cpu",
}  # fmt: skip


def weighted_loss(model, batch):
    losses = regression_loss(model, batch)
    return losses[:, None], (batch[1] > 0).to(losses.dtype)[:, None]


@pytest.mark.parametrize(
    ("loss_fn", "options"),
    [
        (regression_loss, {}),
        (weighted_loss, {"gradient_accumulation_steps": 2, "match_sampling_input_ids_across_chains": False}),
    ],
    ids=["shared rows", "weights and rows of their own"],
)
def test_compiled_chains_are_those_of_vmap(loss_fn, options):
    model, data = Mlp().double(), tuple(part.double() for part in regression_data())
    arguments = {**SETTINGS, **options, "loss_fn": loss_fn}
    plain = sltfast.sample(model, data, engine="vmap", **arguments)
    compiled = sltfast.sample(model, data, compile=True, **arguments)
    # float64 sums in another order over six steps
    np.testing.assert_allclose(compiled["loss"].values, plain["loss"].values, rtol=1e-11)
    np.testing.assert_allclose(compiled["sampling_loss"].values, plain["sampling_loss"].values, rtol=1e-5)
    plan = compiled.attrs["sltfast"]["plan"]
    assert plan["engine"] == "vmap"
    assert plan["compiled_in_seconds"] > 0


class Branching(nn.Module):
    """Reads a value in its forward, which no graph holds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Mlp()

    def forward(self, x):
        return self.inner(x if float(x.sum()) > 1e9 else 2 * x)


def test_what_cannot_be_compiled_says_why_and_goes_on():
    arguments = {**SETTINGS, "loss_fn": regression_loss}
    tree = sltfast.sample(Branching(), regression_data(), compile=True, **arguments)
    plan = tree.attrs["sltfast"]["plan"]
    assert plan["engine"] == "stacked"
    assert plan["engine_reason"].startswith("vmap: ")
    assert torch.isfinite(torch.tensor(tree["loss"].values)).all()
