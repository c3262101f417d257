"""A linear network that learns a hierarchy: how its items influence each other, against the exact course of its modes.

Full batches, weights of float64, all chains in one stack. At γ = 10⁶ the chains spread by 10⁻³ around w_τ, where losses
are linear in the weights: −Cov[ℓ_i, ℓ_j] = −∇ℓ_jᵀ(nβH + γ)⁻¹∇ℓ_i up to corrections of 10⁻³. At ε = 2/γ every step of an
isotropic chain forgets the one before, and its variance is 1/(γ(1 − εγ/4)) = 2/γ.
"""

import numpy as np
import pytest
import torch
from torch import nn

import sltfast
from sltfast.data import as_source
from sltfast.hessian import hessian_of
from sltfast.theory import Hierarchy

START, HIDDEN, RATE = 1e-3, 8, 0.01
GAMMA = 1e6
DOG, SPARROW = 0, 2
OFF = ~np.eye(8, dtype=bool)


def network(first, second):
    units, items = first.shape
    layers = nn.Linear(items, units, bias=False), nn.Linear(units, len(second), bias=False)
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for layer, weight in zip(layers, (first, second), strict=True):
            layer.weight.copy_(torch.as_tensor(weight))
    return model


def items_of(tree):
    return torch.eye(8).double(), torch.from_numpy(tree.features.T.copy())


def squared_error(model, batch):
    x, y = batch
    return 0.5 * (model(x) - y).square().sum(1)


def descended(tree, hidden, rate, steps, *, without=None):
    """W₁, W₂ after each number of steps of full-batch gradient descent on the mean loss, from small weights."""
    first, second = tree.weights(0.0, START, hidden)
    counted = np.ones(8) / 8
    if without is not None:
        counted[without] = 0
    found = []
    for step in range(max(steps) + 1):
        if step in steps:
            found.append((first, second))
        residual = (second @ first - tree.features) * counted
        first, second = first - rate * second.T @ residual, second - rate * residual @ first.T
    return found


@pytest.fixture(scope="module")
def course():
    """Influence at 11 times, equally far apart, from before the first mode to the end of the third."""
    tree = Hierarchy()
    steps = np.linspace(tree.time_of(0, 0.01, START), tree.time_of(2, 0.9, START), 11) / RATE
    steps = steps.round().astype(int).tolist()
    models = dict(zip(steps, (network(*w) for w in descended(tree, HIDDEN, RATE, steps)), strict=True))
    data = items_of(tree)
    sampled = sltfast.influence_over_checkpoints(
        models,
        data,
        {"items": (data, 1)},
        loss_fn=squared_error,
        lr=2 / GAMMA,
        n_beta=1000.0,
        localization=GAMMA,
        batch_size=8,
        num_chains=32,
        num_draws=200,
        num_burnin_steps=5,
        progress=False,
    )
    return tree, models, np.array(steps) * RATE, sampled


def exact(tree, times):
    """Of dog on sparrow, −⟨∇ℓ_i, ∇ℓ_j⟩, in closed form."""
    return -tree.gradient_products(times, START, HIDDEN)[:, DOG, SPARROW]


def window(tree, mode):
    """While a mode is learned: from 10 to 90 % of its strength."""
    return tree.time_of(mode, 0.1, START), tree.time_of(mode, 0.9, START)


def test_influence_changes_sign_as_animals_part_from_plants(course):
    tree, _, times, sampled = course
    fine = np.linspace(times[0], times[-1], 20001)
    flips = np.flatnonzero(np.diff(np.sign(exact(tree, fine))))
    assert len(flips) == 1
    flip = fine[flips[0]]
    # residuals of dog and sparrow are opposed once what all items share is learned, and what animals share begins to be
    learned = tree.strengths(flip, START) / tree.s
    assert learned[0] > 0.5
    assert 0.01 < learned[1] < 0.5
    assert learned[2] < 0.1
    influence = sampled["influences"].sel(query=SPARROW, item=DOG).values
    z = influence / sampled["influences_se"].sel(query=SPARROW, item=DOG).values
    # k = 4 standard errors, for the 11 times
    assert z[times < flip].min() < -4
    assert z[times > flip].max() > 4
    assert (np.sign(z) == np.sign(exact(tree, times)))[np.abs(z) > 4].all()


def test_influence_peaks_while_a_mode_is_learned(course):
    tree, _, times, sampled = course
    influence = sampled["influences"].sel(query=SPARROW, item=DOG).values
    error = sampled["influences_se"].sel(query=SPARROW, item=DOG).values
    fine = np.linspace(times[0], times[-1], 20001)
    for mode, extreme in ((0, np.argmin), (1, np.argmax)):
        begin, end = window(tree, mode)
        assert begin < fine[extreme(exact(tree, fine))] < end
        assert begin < times[extreme(influence)] < end
    # nothing is left of it when mammals have parted from birds
    assert abs(influence[-1]) < 0.05 * influence.max() + 4 * error[-1]


def test_sampled_influence_is_the_damped_one_at_high_localization(course, record_property):
    tree, models, times, sampled = course
    found = []
    for number, model in enumerate(models.values()):
        damped = sltfast.damped_influence(
            model, items_of(tree), loss_fn=squared_error, n_beta=1000.0, localization=GAMMA, progress=False
        )
        influence = sampled["influences"][number].values
        found.append(float(np.corrcoef(damped["influences"].values[OFF], influence[OFF])[0, 1]))
        # the analytic one is the closed form's: gradient descent is behind gradient flow by some ε·s/P·ln(s/a₀) = 4 %
        # of the time scale of a mode, and nβ·H adds 10⁻³
        product = tree.gradient_products(times[number], START, HIDDEN) / GAMMA
        assert np.abs(damped["influences"].values + product).max() < 0.1 * np.abs(product).max()
        # twice the continuum's variance at this step; k = 5 for 36 pairs at 11 times
        apart = np.abs(influence - 2 * damped["influences"].values)
        assert (apart < 5 * sampled["influences_se"][number].values + 0.01 * np.abs(product).max()).all()
    record_property("correlation over training", [round(value, 3) for value in found])
    assert min(found) > 0.95


def test_influence_at_the_end_predicts_leaving_one_out(record_property):
    """Four hidden units hold what parts kinds, not what parts siblings, so that residuals are left at the end."""
    tree, hidden, n_beta, gamma = Hierarchy(noise=0.1), 4, 1e4, 1e3
    data = items_of(tree)
    trained = [descended(tree, hidden, 0.3, [4000], without=item)[0] for item in (None, *range(8))]
    losses = np.array([0.5 * np.square(second @ first - tree.features).sum(0) for first, second in trained])
    left_out = losses[0] - losses[1:]  # [item i, query j]: ℓ_j of all data less ℓ_j without i
    model = network(*trained[0])
    damped = sltfast.damped_influence(
        model, data, loss_fn=squared_error, n_beta=n_beta, localization=gamma, progress=False
    )
    assert abs(damped.attrs["hessian_smallest_eigenvalue"]) < 1e-10  # a minimum, flat along W₂G⁻¹, GW₁
    with hessian_of(model, as_source(data), loss_fn=squared_error) as hessian:
        steepest = float(torch.linalg.eigvalsh(hessian.dense())[-1])
    sampled = sltfast.influence_over_checkpoints(
        [model],
        data,
        {"items": (data, 1)},
        loss_fn=squared_error,
        lr=0.4 / (n_beta * steepest + gamma),  # variances at most 1/(1 − 0.1) too large
        n_beta=n_beta,
        localization=gamma,
        batch_size=8,
        num_chains=32,
        num_draws=100,
        num_burnin_steps=100,
        num_steps_bw_draws=5,
        progress=False,
    )
    influence = sampled["influences"][0].values
    found = {
        name: [round(float(np.corrcoef(a[kept], b[kept])[0, 1]), 3) for kept in (OFF | True, OFF)]
        for name, a, b in (
            ("sampled and damped", influence, damped["influences"].values),
            ("sampled and left out", influence, left_out.T),
            ("damped and left out", damped["influences"].values, left_out.T),
        )
    }
    for name, values in found.items():
        record_property(f"{name}: all pairs, pairs of different items", values)
    assert found["sampled and damped"][0] > 0.95
    assert min(found["sampled and left out"]) > 0.6
