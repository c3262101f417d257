"""λ̂ token by token: its mean is the observable's λ̂; against plain numpy; from traces and from moments alike."""

import numpy as np
import pytest
import torch
from models import tiny_neox, token_rows
from torch import nn

import sltfast
from sltfast.theory import quadratic_llc_sgld

SHORT = {
    "lr": 1e-3,
    "n_beta": 10.0,
    "localization": 50.0,
    "num_chains": 3,
    "num_draws": 20,
    "num_burnin_steps": 4,
    "num_init_loss_batches": 0,
    "save_token_losses": False,
    "progress": False,
}
LEVEL = 0.125  # of the loss at w*, in curvatures: it says which token is which


class Rows(nn.Module):
    """ℓ_it(w) = h_it·(½ w_t² + a level): every position has a coordinate of its own, every row its curvatures."""

    def __init__(self, positions):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(positions, dtype=torch.float64))

    def forward(self, h):
        return h * (0.5 * self.w**2 + LEVEL)


def per_position(model, batch):
    return model(batch)


def weighted(model, batch):
    """Curvatures of −1 stand for padding."""
    return model(batch.clamp(min=0)), (batch >= 0).double()


def curved(observed, loss_fn=per_position, positions=4, **changes):
    train = torch.ones(4, positions, dtype=torch.float64)
    given = {**SHORT, "loss_fn": loss_fn, "batch_size": len(observed), **changes}
    return sltfast.sample(Rows(positions), train[:1].expand(len(observed), -1), {"seen": (observed, 1)}, **given)


def test_each_token_follows_its_own_law():
    # L = ¼ Σ_t ½ w_t²; a token's excess loss is ½ h_it Var w_t, h_it times that of curvature 1 at n_beta/4
    observed = torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 0.5, 0.1, 1.0]], dtype=torch.float64)
    n_beta, gamma, lr = 40.0, 10.0, 1e-2
    samples = curved(
        observed, n_beta=n_beta, localization=gamma, lr=lr, num_chains=16, num_draws=2000, num_burnin_steps=100
    )  # 2/(ε a) = 10 steps
    result = sltfast.compute_token_llc(samples, "seen")
    expected = result["init_loss"] / LEVEL * 4 * quadratic_llc_sgld([1.0], n_beta / 4, gamma, lr)
    assert sorted(result["init_loss"].values.ravel()) == sorted(LEVEL * observed.numpy().ravel())
    flat = expected.values == 0
    pulls = (result["llc"] - expected).values[~flat] / result["llc_se"].values[~flat]
    # 7 tokens on 4 coordinates; t with 15 degrees of freedom passes 5 once in 6000
    assert np.abs(pulls).max() < 5
    assert (result["llc"].values[flat] == 0).all()
    assert (result["llc_se"].values[~flat] < 0.1 * expected.values[~flat]).all()


def test_against_numpy():
    observed = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    samples = curved(observed)
    result = sltfast.compute_token_llc(samples, "seen", num_blocks=5)
    y = samples["loss_seen"].values.astype(np.float64) - samples["init_loss_seen"].values
    np.testing.assert_allclose(result["llc"], 10.0 * y.mean(axis=(0, 1)), rtol=1e-12)
    chains = y.mean(axis=1)
    blocks = y.reshape(3, 5, 4, 5, 4).mean(axis=2).reshape(15, 5, 4)
    for name, part in (("llc", lambda x: x), ("llc_per_item", lambda x: x.mean(-1))):
        by_chain = part(chains).std(axis=0, ddof=1) / np.sqrt(3)
        by_block = part(blocks).std(axis=0, ddof=1) / np.sqrt(15)
        np.testing.assert_allclose(result[f"{name}_se"], 10.0 * np.maximum(by_chain, by_block), rtol=1e-9)
    assert result.attrs["num_draws"] == 60


@pytest.mark.parametrize("record", ["traces", "moments"])
def test_the_mean_over_tokens_is_the_observable_s_own(record):
    rows = token_rows()
    kept = {**SHORT, "batch_size": 4, "record": record, "sampling_task": "text", "num_blocks": 4}
    samples = sltfast.sample(tiny_neox(), rows, {"text": (rows, 2)}, **kept)
    result = sltfast.compute_token_llc(samples, "text", num_blocks=4)
    excess = samples["mean_loss_text"] - samples["init_mean_loss_text"]
    np.testing.assert_allclose(result["llc_mean"], 10.0 * excess.mean(), rtol=1e-9)
    # losses of tokens are recorded in float32: 2⁻²⁴ of some 3.5 nats, 64 tokens, times nβ
    np.testing.assert_allclose(result["llc"].mean(), result["llc_mean"], atol=10.0 * 3.5 * 2**-24)
    np.testing.assert_allclose(result["llc_per_item"], result["llc"].mean("token_pos"), rtol=1e-9, atol=1e-12)
    assert result["input_ids"].shape == (8, 9)
    assert result["llc"].shape == (8, 8)


def test_traces_and_moments_say_the_same():
    observed = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kept = {"sampling_task": "seen", "num_blocks": 5}
    one, other = (curved(observed, record=record, **kept) for record in ("traces", "moments"))
    first, second = (sltfast.compute_token_llc(samples, "seen", num_blocks=5) for samples in (one, other))
    for name in ("llc", "llc_se", "llc_per_item", "llc_per_item_se", "llc_mean", "llc_mean_se"):
        # traces are float32
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5, err_msg=name)


def test_padding_has_no_coefficient():
    observed = torch.tensor([[1.0, 2.0, -1.0, -1.0], [1.0, 1.0, 3.0, -1.0]], dtype=torch.float64)
    result = sltfast.compute_token_llc(curved(observed, weighted), "seen")
    assert np.isnan(result["llc"].values).sum() == 3
    assert (np.isnan(result["llc"]) == np.isnan(result["llc_se"])).all()
    np.testing.assert_allclose(result["llc_mean"], result["llc"].mean(), rtol=1e-5)  # every token that counts, alike
    np.testing.assert_allclose(result["llc_per_item"], result["llc"].mean("token_pos"), rtol=1e-9)


@pytest.mark.filterwarnings("ignore::sltfast.ChainDiverged")
def test_dead_chains_are_left_out():
    samples = curved(torch.ones(4, 4, dtype=torch.float64)).dataset.copy(deep=True)
    samples["alive"].values[1] = False
    samples["mean_loss_seen"].values[1, 5:] = np.nan
    samples["loss_seen"].values[1, 5:] = np.nan
    with pytest.warns(sltfast.ChainDiverged, match=r"chains \[1\] of 3 died and are left out"):
        result = sltfast.compute_token_llc(samples, "seen")
    kept = sltfast.compute_token_llc(samples.isel(chain=[0, 2]), "seen")
    np.testing.assert_array_equal(result["llc"], kept["llc"])
    np.testing.assert_array_equal(result["llc_se"], kept["llc_se"])


def test_samples_of_a_sweep_are_refused():
    samples = curved(torch.ones(4, 4, dtype=torch.float64)).dataset
    config = samples.attrs["metadata"]["config"]
    samples.attrs["metadata"] = {"config": {**config, "sampler": {**config["sampler"], "cells": [{"n_beta": 1.0}] * 2}}}
    with pytest.raises(ValueError, match="hold the 2 cells of a sweep"):
        sltfast.compute_token_llc(samples, "seen")


def test_bad_input():
    samples = curved(torch.ones(4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="neither losses nor moments of the observable 'other'"):
        sltfast.compute_token_llc(samples, "other")
    with pytest.raises(ValueError, match="num_blocks must be a whole number >= 1, got 0"):
        sltfast.compute_token_llc(samples, "seen", num_blocks=0)
    with pytest.raises(TypeError, match="samples must be a tree"):
        sltfast.compute_token_llc(3, "seen")
    with pytest.raises(ValueError, match="hold no init_loss_seen, the loss at w"):
        sltfast.compute_token_llc(samples.dataset.drop_vars("init_loss_seen"), "seen")
