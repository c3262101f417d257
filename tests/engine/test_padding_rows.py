"""The row of an embedding at ``padding_idx`` gets no gradient, whichever engine and whichever rows."""

import numpy as np
import pytest
import torch
from models import token_rows
from torch import Tensor, nn
from torch.nn import functional as F

import sltfast

SETTINGS = {
    "lr": 1e-2, "n_beta": 10.0, "num_chains": 3, "num_draws": 6, "batch_size": 4, "num_init_loss_batches": 0,
    "shuffle": False, "progress": False,
}  # fmt: skip


class TiedByHand(nn.Module):
    """Reads the embedding's table itself, so that vmap runs the whole of it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embed, self.hidden = nn.Embedding(32, 6, padding_idx=-32), nn.Linear(6, 6)
        with torch.no_grad():
            self.embed.weight[0] = 0.3
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tanh(self.hidden(self.embed(ids))) @ self.embed.weight.t()


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    return F.cross_entropy(model(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


@pytest.mark.parametrize("matched", [True, False])
@pytest.mark.parametrize("engine", ["stacked", "vmap"])
def test_padding_that_comes_after_the_rows_an_engine_is_tried_on(engine, matched):
    ids = token_rows().clamp(1)
    ids[6:, -3:] = 0
    settings = {**SETTINGS, "loss_fn": loss, "match_sampling_input_ids_across_chains": matched}
    model = TiedByHand()
    tree = sltfast.sample(model, ids, engine=engine, **settings)
    alone = sltfast.sample(model, ids, engine="sequential", **settings)
    np.testing.assert_allclose(tree["loss"], alone["loss"], rtol=1e-12)  # float64, six steps
