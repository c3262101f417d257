"""χ against closed forms, and against itself: items of one set of chains, data sets of another."""

import random

import numpy as np
import pytest
import torch
import xarray as xr
from copied_text import text, token_loss, trained
from scipy.stats import norm
from scipy.stats import t as student

import sltfast
from sltfast.theory import LinearRegression, regression_susceptibility

N_BETA, GAMMA, LR = 40.0, 6.0, 0.02
PARTS = {"full": None, "first": [True, True, False, False], "last": [False, False, True, True], "one": [1, 0, 0, 0]}


def squared_error(model, batch):
    features, targets = batch
    return 0.5 * (model(features).squeeze(-1) - targets).square()


@pytest.fixture(scope="module")
def regression():
    """The fit, features by observable, and χ of 4 restrictions from full-batch chains in float64."""
    rng = np.random.default_rng(3)
    n, d = 24, 4
    x = rng.standard_normal((n, d)) * np.linspace(0.6, 1.4, d)
    fit = LinearRegression(x, x @ rng.standard_normal(d) + 0.5 * rng.standard_normal(n))
    model = torch.nn.Linear(d, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(fit.optimum)[None])
    away, targets = rng.standard_normal((n, d)), rng.standard_normal(n)
    data, probes = (torch.tensor(x), torch.tensor(fit.y)), (torch.tensor(away), torch.tensor(targets))
    masks = {
        name: None if moves is None else {"weight": torch.tensor([moves], dtype=torch.bool)}
        for name, moves in PARTS.items()
    }
    found = sltfast.susceptibilities(
        model, data, {"rows": (data, 1), "probes": (probes, 1)}, masks, sampling_task="rows",
        include_sampling_task=True, loss_fn=squared_error, lr=LR, n_beta=N_BETA, localization=GAMMA, batch_size=n,
        num_chains=24, num_draws=120, num_burnin_steps=60, num_steps_bw_draws=6, progress=False,
    )  # fmt: skip
    order = random.Random(1337).sample(range(n), n)  # an observable's rows are drawn in this order
    return fit, {"rows": x[order], "probes": away[order]}, found


def deviations(found, expected, value, error):
    """(χ̂ − χ)/SE and χ/SE of every row of every restriction."""
    node = found["susceptibilities"].to_dataset()
    names = node.attrs["dataset_id_to_name"]
    estimates, errors, truths = [], [], []
    for wr in PARTS:
        for number, name in enumerate(names):
            here = node.sel(wr=wr).isel(sus_flat=node["dataset_id"].values == number)
            estimates.append(here[value].values)
            errors.append(here[error].values)
            truths.append(expected(wr, name))
    estimates, errors, truths = (np.concatenate(parts) for parts in (estimates, errors, truths))
    return (estimates - truths) / errors, truths / errors


@pytest.mark.parametrize(
    ("estimator", "value", "error"),
    [("two_chain", "sus", "se"), ("single_chain", "sus_single_chain", "se_single_chain")],
)
def test_linear_regression(regression, estimator, value, error):
    fit, features, found = regression

    def expected(wr, name, which=estimator, lr=LR):
        return regression_susceptibility(fit, features[name], N_BETA, GAMMA, lr, PARTS[wr], which)

    off, size = deviations(found, expected, value, error)
    # 192 comparisons: by chance one in 10 000 such tests has a deviation of this many standard errors
    limit = norm.isf(1e-4 / 2 / len(off))
    assert np.abs(off).max() < limit
    assert (np.abs(size) > limit).sum() > 50  # most χ are seen, and the other estimator's and the continuum's are not:
    for wrong in ({"which": "single_chain" if estimator == "two_chain" else "two_chain"}, {"lr": 0.0}):
        other, _ = deviations(found, lambda wr, name, w=wrong: expected(wr, name, **w), value, error)
        assert np.abs(other).max() > 2 * limit


def test_a_data_sets_susceptibility_in_linear_regression(regression):
    fit, features, found = regression
    datasets = found["datasets"].to_dataset()
    for value, error, estimator in [
        ("sus", "se", "two_chain"),
        ("sus_single_chain", "se_single_chain", "single_chain"),
    ]:
        for wr, moves in PARTS.items():
            here = datasets.sel(wr=wr, dataset="probes")
            expected = regression_susceptibility(fit, features["probes"], N_BETA, GAMMA, LR, moves, estimator).mean()
            # 8 comparisons, as above
            assert abs(float(here[value]) - expected) < norm.isf(1e-4 / 16) * float(here[error])
            assert abs(float(datasets[value].sel(wr=wr, dataset="rows"))) < 1e-15
    assert found.attrs["density_deviation"] < 1e-6  # streamed in float64 throughout


SHARE = 0.25  # δh: 8 probe rows among 32
COMPONENTS = ("value", "unembed")


@pytest.fixture(scope="module")
def language_runs():
    """Runs of a small language model: 24 chains that share neither noise nor batches."""
    data, base, probe = text(256, 1), text(24, 2), text(8, 3, noise=True)
    interleaved = torch.cat([base[:12], probe[:4], base[12:], probe[4:]])
    return sltfast.sample_restrictions(
        trained(data, 400), data, {"base": (base, 6), "probe": (probe, 2), "interleaved": (interleaved, 8)},
        {"full": None, **{name: f"{name}.weight" for name in COMPONENTS}}, loss_fn=token_loss, record="moments",
        sampling_task="base", lr=3e-3, n_beta=300.0, localization=30.0, batch_size=4, num_chains=24, num_draws=40,
        num_burnin_steps=50, num_steps_bw_draws=6, match_sampling_input_ids_across_chains=False,
        save_token_losses=False, num_init_loss_batches=0, progress=False,
    )  # fmt: skip


def of_chains(runs, chains):
    """χ (component, data set) of some of the chains."""
    part = {name: xr.DataTree(tree.dataset.isel(chain=chains)) for name, tree in runs.items()}
    found = sltfast.compute_susceptibilities(part, "base", progress=False)
    return found["datasets"].to_dataset().sel(wr=list(COMPONENTS)), found["susceptibilities"].to_dataset()


def test_items_say_what_interleaved_rows_do(language_runs):
    # L(q_h) = (1 − δh) L(q) + δh L(q'), so the χ of a data set with probe rows interleaved is δh times the mean χ of
    # the probe's tokens: exactly from the same chains, and by a slope 1/δh from chains that share nothing.
    whole, tokens = of_chains(language_runs, list(range(24)))
    probe = tokens["dataset_id"].values == tokens.attrs["dataset_id_to_name"].index("probe")
    for value in ("sus", "sus_single_chain"):
        means = tokens[value].sel(wr=list(COMPONENTS)).values[probe].mean(0)
        mixed = whole[value].sel(dataset="interleaved").values
        np.testing.assert_allclose(mixed / SHARE, means, atol=1e-6 * np.abs(means).max())  # float32 losses
    # every pair of chains: tokens of one, data set of the other. They are exchangeable, so log(slope · δh) has mean 0.
    logs, offs = [], []
    for first in range(0, 24, 2):
        here, there = (of_chains(language_runs, [chain])[0] for chain in (first, first + 1))
        by_token = here["sus"].sel(dataset="probe").values
        by_dataset = there["sus"].sel(dataset="interleaved").values
        logs.append(np.log(np.linalg.norm(by_token) / np.linalg.norm(by_dataset) * SHARE))
        errors = np.hypot(here["se"].sel(dataset="probe"), there["se"].sel(dataset="interleaved") / SHARE)
        offs.append((by_token - by_dataset / SHARE) / errors.values)
    error = np.std(logs, ddof=1) / np.sqrt(len(logs))
    assert error < 0.08
    assert abs(np.mean(logs)) < student.isf(0.005, len(logs) - 1) * error  # passed by one in 100
    # and each of the 24 differences is what its standard errors say; from 8 blocks of a chain they are Student's
    assert np.abs(offs).max() < student.isf(1e-3 / 2 / np.size(offs), 7)


def test_both_halves_of_the_chains_agree_within_their_errors(language_runs):
    halves = [of_chains(language_runs, list(range(start, 24, 2))) for start in (0, 1)]
    for value, error in (("sus", "se"), ("sus_single_chain", "se_single_chain")):
        (one, s), (other, t) = ((half[value].values, half[error].values) for _, half in halves)
        off = (one - other) / np.hypot(s, t)
        # by chain from 12 chains each; some 900 items of 3 runs
        assert np.abs(off).max() < student.isf(1e-3 / 2 / off.size, 22)
        # larger of two errors, so somewhat less than 1; far less would be errors that say nothing
        assert 0.5 < np.sqrt(np.mean(off**2)) < 1.1
