"""χ against closed forms, and against itself: items of one set of chains, data sets of another."""

import random

import numpy as np
import pytest
import torch
from scipy.stats import norm

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
        num_chains=24, num_draws=160, num_burnin_steps=100, num_steps_bw_draws=8, progress=False,
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
