"""Weighted sums of the items' gradients; the default weights give the gradient that SGLD moves by."""

import one_by_one
import pytest
import torch
from architectures import gpt2, padded_rows, seeded
from models import Mlp, regression_data, regression_loss, token_rows

from sltfast import per_sample
from sltfast.losses import item_loss

EXACT = 1e-12  # thousands of roundings of float64


@pytest.mark.parametrize("batch", [token_rows(5), padded_rows()], ids=["whole", "padded"])
def test_a_weighted_sum_is_the_sum(batch):
    model = gpt2().double()
    rows = one_by_one.gradients(model, batch)
    weights = torch.tensor([1.5, -2.0, 0.0, 3.0, 0.25])[: len(rows)]
    for name, value in per_sample.weighted_sum(model, batch, weights).items():
        true = sum(float(w) * row[name] for w, row in zip(weights, rows, strict=True))
        torch.testing.assert_close(value, true, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("batch", [token_rows(5), padded_rows()], ids=["whole", "padded"])
def test_the_default_is_the_gradient_of_the_samplers_loss(batch):
    model = gpt2().double()
    mean = item_loss(model, None)(model, batch).mean()
    names, parameters = zip(*model.named_parameters(), strict=True)
    true = dict(zip(names, torch.autograd.grad(mean, parameters), strict=True))
    for name, value in per_sample.weighted_sum(model, batch).items():
        torch.testing.assert_close(value, true[name], rtol=EXACT, atol=EXACT)


def test_weighted_losses_share_by_their_weights():
    model, batch = seeded(Mlp).double(), tuple(x.double() for x in regression_data(6))
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 2.0, 4.5], dtype=torch.float64)

    def weighted(model, batch):
        losses = regression_loss(model, batch)
        return losses, weights if len(losses) == 6 else weights.new_ones(len(losses))

    rows = one_by_one.gradients(model, batch, regression_loss)
    for name, value in per_sample.weighted_sum(model, batch, loss_fn=weighted).items():
        true = sum(w * row[name] for w, row in zip(weights / 10, rows, strict=True))
        torch.testing.assert_close(value, true, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(
    "weights", [torch.ones(4), torch.ones(6, 1), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, torch.nan])]
)
def test_weights_that_are_not_one_number_an_item(weights):
    with pytest.raises(ValueError, match="weights must be 6 finite numbers, one an item"):
        per_sample.weighted_sum(Mlp(), regression_data(6), weights, regression_loss)
