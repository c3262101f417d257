"""λ̂ of SGHMC and SGNHT chains on quadratics, from the engine, against the closed forms of their stationary laws."""

import numpy as np
import pytest
import torch
from potentials import Means, Quadratic, per_row, potential_llc

import sltfast
from sltfast.arena import Arena
from sltfast.restriction import Restriction
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.transition import Transition
from sltfast.theory import quadratic_llc, quadratic_llc_sghmc, quadratic_llc_sgld, quadratic_llc_sgnht, sgnht_thermostat

H = (0.1, 1.0, 5.0)
COPIES = 300


@pytest.mark.parametrize("friction", [0.05, 0.4])
def test_sghmc_follows_its_exact_law(friction):
    settings = {"lr": 1e-2, "n_beta": 30.0, "localization": 10.0}
    result = potential_llc(
        Quadratic(torch.tensor(H).repeat(COPIES)),
        **settings,
        sampling_method="sghmc",
        sampling_method_kwargs={"friction": friction},
        num_chains=3,
        num_draws=800,
        num_burnin_steps=300,  # 2/A ≤ 40 steps, 2A/(ε a) ≤ 7
    )
    expected = COPIES * quadratic_llc_sghmc(H, **settings, friction=friction)
    error = float(result["llc_se"])
    assert abs(float(result["llc_mean"]) - expected) < 4 * error
    # a step this large shows in λ̂, and differently in SGLD's: neither is taken for the law
    assert abs(expected - COPIES * quadratic_llc(H, 30.0, 10.0)) > 8 * error
    assert abs(expected - COPIES * quadratic_llc_sgld(H, **settings)) > 8 * error


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_sgnht_takes_away_the_heat_of_mini_batches(spread):
    """Where SGLD reads λ̂ 13 % and more too high. `spread` is the ratio of two kinds of coordinates' gradient noise.

    Every step sees new rows (2000 batches an epoch, 1800 steps), so the closed forms for independent batches hold.
    """
    rows, batch, copies, n_beta, gamma, lr, friction = 16_000, 8, 120, 30.0, 10.0, 4e-3, 0.05
    deviation = torch.tensor([1.0, spread**0.5]).repeat(copies)
    h = torch.ones(2 * copies)
    y = deviation * torch.randn(rows, len(h), generator=torch.Generator().manual_seed(5))
    w_star = y.mean(0)
    settings = {"localization": gamma, "lr": lr}

    result = sltfast.llc(
        Means(h, w_star), y, loss_fn=per_row, n_beta=n_beta, **settings, batch_size=batch, sampling_method="sgnht",
        sampling_method_kwargs={"friction": friction}, num_chains=4, num_draws=1200, num_burnin_steps=600,
        match_sampling_input_ids_across_chains=False, progress=False,
    )  # fmt: skip
    noise = (h * y.std(0)).double().numpy() ** 2 / batch
    expected = quadratic_llc_sgnht(h, n_beta, gamma, lr, friction, noise)
    error = float(result["llc_se"])
    assert abs(float(result["llc_mean"]) - expected) < 4 * error
    # SGLD is far from the posterior; the thermostat's λ̂ is the posterior's to the unevenness of the noise
    exact = quadratic_llc(h, n_beta, gamma)
    hot = quadratic_llc_sgld(h, n_beta, gradient_noise=noise, **settings)
    assert hot - exact > 0.1 * exact
    assert abs(expected - exact) < 0.002 * exact
    assert hot - expected > 12 * error


def test_the_thermostat_comes_to_rest_where_the_theory_says_and_reset_starts_anew():
    """2400 equal coordinates with Gaussian gradient noise: ζ rests at `sgnht_thermostat`, Σ m²/n at ε/(2 − ζ)."""
    n, lr, n_beta, gamma, variance, friction = 2400, 4e-3, 30.0, 10.0, 0.1, 0.05
    config = SamplerConfig(
        lr=lr, n_beta=n_beta, localization=gamma, sampling_method="sgnht", sampling_method_kwargs={"friction": friction}
    )
    model = Quadratic(torch.ones(n))
    device = torch.device("cpu")
    arena = Arena([Restriction.of(model)], {"w": torch.float32}, 1, device)
    transition = Transition(config, arena, [3], device)
    transition.reset()
    block = arena.blocks[0]
    first = block.momentum.clone()
    assert float(block.thermostat) == friction
    assert abs(float(first.square().mean()) / (lr / 2) - 1) < 5 * (2 / n) ** 0.5  # a χ² of n degrees
    random = torch.Generator().manual_seed(0)
    frictions, heats = [], []
    for step in range(4000):
        gradient = block.w + variance**0.5 * torch.randn(n, generator=random)
        transition.step([[gradient]], torch.zeros(1, dtype=torch.float64))
        if step >= 1000:
            frictions.append(float(block.thermostat))
            heats.append(float(block.momentum.double().square().mean()))
    rest = sgnht_thermostat([1.0], n_beta, gamma, lr, friction, [variance])
    for seen, expected in ((frictions, rest), (heats, lr / (2 - rest))):
        blocks = np.mean(np.reshape(seen, (10, 300)), axis=1)  # longer than ζ's memory of 2ζ/ε ≈ 70 steps
        assert abs(blocks.mean() - expected) < 4 * blocks.std(ddof=1) / 10**0.5
    assert rest > friction + 0.08
    transition.reset()
    assert torch.equal(block.momentum, first)
    assert float(block.thermostat) == friction
    transition.chains.fill_(4)
    transition.reset()
    assert not torch.equal(block.momentum, first)
