"""What cannot be measured is refused with the mend."""

import pytest
import torch
from architectures import seeded
from models import Mlp, regression_data, regression_loss, tiny_neox
from torch import nn

import sltfast
from sltfast import per_sample

DATA = regression_data(6)


def test_it_is_a_public_name():
    assert sltfast.per_sample is per_sample
    assert set(per_sample.__all__) == {
        "NoiseScale", "gradient_norms", "inner_products", "noise_scale", "weighted_sum"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("text", r"the batch \(str\) must be a tensor"),
        (torch.tensor(1.0), "first dimension counts items"),
        ((torch.ones(3, 3), torch.ones(4)), r"must count the same items, at least 1; they have \[3, 4\]"),
        ((torch.ones(0, 3), torch.ones(0)), r"at least 1; they have \[0\]"),
    ],
)
def test_batches_that_are_none(batch, message):
    with pytest.raises(ValueError, match=message):
        per_sample.gradient_norms(Mlp(), batch, regression_loss)


def test_tokens_that_the_model_cannot_read():
    with pytest.raises(ValueError, match=r"input_ids span 99..99"):
        per_sample.gradient_norms(tiny_neox(), torch.full((2, 4), 99))


def test_a_model_that_needs_a_loss():
    with pytest.raises(TypeError, match="give loss_fn"):
        per_sample.gradient_norms(Mlp(), DATA)


def test_losses_that_are_not_one_an_item():
    with pytest.raises(ValueError, match="must return one loss per item"):
        per_sample.gradient_norms(Mlp(), DATA, lambda m, b: regression_loss(m, b).mean())


def test_losses_without_a_gradient():
    for call in (per_sample.gradient_norms, per_sample.weighted_sum):
        with pytest.raises(ValueError, match=r"no gradient of loss_fn .* reaches the selected weights"):
            call(Mlp(), DATA, loss_fn=lambda m, b: regression_loss(m, b).detach())


def test_losses_that_are_not_finite():
    with pytest.raises(ValueError, match=r"not finite on items \[0, 1, 2, 3\]"):
        per_sample.gradient_norms(Mlp(), DATA, lambda m, b: regression_loss(m, b) / 0)


def test_negative_weights():
    with pytest.raises(ValueError, match="negative or infinite weights"):
        per_sample.gradient_norms(Mlp(), DATA, lambda m, b: (regression_loss(m, b), -torch.ones(len(b[0]))))


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        ({}, "direction must map parameter names to tensors"),
        ({"frist.weight": torch.ones(5, 3)}, r"'frist.weight', but the model has no such .* 'first.weight'"),
        ({"first.weight": torch.ones(3, 5)}, r"must have the parameter's shape \(5, 3\), got \(3, 5\)"),
        ({"first.weight": 1.0}, r"must have the parameter's shape \(5, 3\), got float"),
    ],
)
def test_directions_that_are_none(direction, message):
    with pytest.raises(ValueError, match=message):
        per_sample.inner_products(Mlp(), DATA, direction, regression_loss)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be a whole number >= 1, got 0"),
        ({"num_items": 1}, r"num_items must be a whole number >= 2, got 1"),
        ({"lr": 0.0}, r"lr must be finite and > 0, got 0.0"),
        ({"n_beta": -1.0}, r"n_beta must be finite and >= 0, got -1.0"),
        ({"noise_level": float("inf")}, r"noise_level must be finite and >= 0, got inf"),
    ],
)
def test_settings_of_the_noise_scale(settings, message):
    with pytest.raises(ValueError, match=message):
        per_sample.noise_scale(Mlp(), DATA, regression_loss, **settings)


def test_one_item_has_no_variance():
    with pytest.raises(ValueError, match="at least 2 items"):
        per_sample.noise_scale(Mlp(), regression_data(1), regression_loss)


def test_low_precision_is_as_good_as_autograds():
    """bfloat16 weights: against float64 of the same weights, twice the error of autograd on batches of one."""
    import one_by_one

    model = seeded(Mlp).bfloat16()
    batch = tuple(x.bfloat16() for x in regression_data(12))
    wide = seeded(Mlp).bfloat16().double()
    true = one_by_one.norms(one_by_one.gradients(wide, tuple(x.double() for x in batch), regression_loss))
    eager = one_by_one.norms(one_by_one.gradients(model, batch, regression_loss))
    got = per_sample.gradient_norms(model, batch, regression_loss)
    assert got.dtype == torch.float32
    assert one_by_one.relative(got, true) <= 2 * one_by_one.relative(eager, true)


def test_batches_keep_their_structure():
    """Nested batches reach the loss as they are, for the batch and for the one item that is checked."""
    model = nn.Linear(3, 1).requires_grad_(False)
    flat = per_sample.gradient_norms(model, DATA, lambda m, b: (m(b[0])[:, 0] - b[1]).square())
    nested = per_sample.gradient_norms(
        model, {"x": [DATA[0], DATA[1]]}, lambda m, b: (m(b["x"][0])[:, 0] - b["x"][1]).square()
    )
    assert torch.equal(flat, nested)
