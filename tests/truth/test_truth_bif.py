"""BIF and loss kernel against closed forms: Gaussian chains, disjoint networks, a cubic; and the errors' coverage."""

import numpy as np
import pytest
import torch
import xarray as xr
from arviz_stats.base import array_stats
from devinterp.slt.bif import compute_bif as theirs
from torch import nn

import sltfast
from sltfast.theory import LinearRegression


class Linear(nn.Module):
    def __init__(self, w_star):
        super().__init__()
        self.w = nn.Parameter(torch.as_tensor(w_star, dtype=torch.float64))

    def forward(self, x):
        return x @ self.w


def squares(model, batch):
    x, y = batch
    return 0.5 * (model(x) - y) ** 2


@pytest.fixture(scope="module")
def regression():
    """Samples of full-batch SGLD on least squares, and Cov[ℓ_i, ℓ_j] of its rows by the stationary law.

    δ is Gaussian with S = [a(1 − ε a/4)]⁻¹, a = nβ H + γ, so Cov[ℓ_i, ℓ_j] = e_i e_j x_i'S x_j + ½ (x_i'S x_j)².
    """
    settings = {"lr": 4e-3, "n_beta": 60.0, "localization": 20.0}
    generator = np.random.default_rng(3)
    x = generator.normal(size=(14, 3)) * [1.0, 0.6, 0.3]
    y = x @ [1.0, -2.0, 0.5] + 0.5 * generator.normal(size=14)
    truth = LinearRegression(x, y)
    a = settings["n_beta"] * truth.hessian + settings["localization"] * np.eye(3)
    s = np.linalg.inv(a @ (np.eye(3) - settings["lr"] * a / 4))
    inner = x @ s @ x.T
    covariance = np.outer(truth.residuals, truth.residuals) * inner + inner**2 / 2
    data = (torch.from_numpy(x), torch.from_numpy(y))
    samples = sltfast.sample(
        Linear(truth.optimum),
        data,
        {"rows": (data, 1)},
        loss_fn=squares,
        batch_size=14,
        num_chains=16,
        num_draws=200,
        num_burnin_steps=120,  # the slowest direction forgets in 2/(ε γ) = 25 steps
        num_steps_bw_draws=5,
        progress=False,
        num_init_loss_batches=0,
        **settings,
    )
    at = samples["rows_rows"].values
    return samples, covariance[np.ix_(at, at)]


def held(result, name, expected, *, most):
    """Every entry within 5 standard errors, a typical one within what normal errors are, and all known to `most`.

    105 entries beyond 5: below 1e-4 even with t-tails of 15 degrees of freedom (p = 1.6e-4 each, strongly dependent).
    """
    error = result[f"{name}_se"].values
    z = (result[name].values - expected) / error
    assert np.abs(z).max() < 5
    assert 0.2 < np.sqrt((z**2).mean()) < 1.6
    assert np.median(error) < most * np.abs(expected).max()


def test_linear_regression_influence(regression):
    samples, covariance = regression
    held(sltfast.compute_bif(samples, correlation_method="sequence"), "influences", -covariance, most=0.02)


def test_linear_regression_loss_kernel(regression):
    samples, covariance = regression
    kernel = sltfast.compute_loss_kernel(samples)
    held(kernel, "kernel", covariance, most=0.02)
    scale = np.sqrt(np.diagonal(covariance))
    off = ~np.eye(len(covariance), dtype=bool)
    z = (kernel["correlation"].values - covariance / scale / scale[:, None])[off] / kernel["correlation_se"].values[off]
    assert np.abs(z).max() < 5
    assert 0.2 < np.sqrt((z**2).mean()) < 1.6
    eigenvalues = np.linalg.eigvalsh(kernel["kernel"])
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]


def test_linear_regression_between_groups(regression):
    samples, covariance = regression
    labels = np.arange(14) % 3
    member = (labels == np.arange(3)[:, None]) / np.bincount(labels)[:, None]
    held(sltfast.group_influence(samples, labels), "influences", -member @ covariance @ member.T, most=0.05)


def test_the_same_from_devinterp(regression, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    samples, _ = regression
    ids = np.zeros((14, 2), dtype=np.int64)
    tree = xr.DataTree(samples.dataset[["loss_rows"]].assign(input_ids_rows=(("batch_rows", "token"), ids)))
    ours, other = (
        call(tree, correlation_method="sequence", compute_covariance=True) for call in (sltfast.compute_bif, theirs)
    )
    scale = float(np.abs(ours["influences"]).max())
    # its sums are float32: 3,200 products
    np.testing.assert_allclose(other["influences"], ours["influences"], rtol=0, atol=3200 * 2.0**-24 * scale)


class TwoNetworks(nn.Module):
    """Items of the first kind see the first network, those of the second the other one."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(2, 16, dtype=torch.float64)
        self.other_hidden = nn.Linear(2, 16, dtype=torch.float64)
        self.out = nn.Linear(16, 1, dtype=torch.float64)
        self.other_out = nn.Linear(16, 1, dtype=torch.float64)

    def forward(self, x):
        first = self.out(torch.tanh(self.hidden(x[:, :2])))[:, 0]
        second = self.other_out(torch.tanh(self.other_hidden(x[:, :2])))[:, 0]
        return torch.where(x[:, 2] > 0, first, second)


def test_disjoint_networks_do_not_influence_each_other():
    # Full-batch gradients: the two halves of w are independent chains, so off-block correlations are noise of 1/√ESS.
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    x[:, 2] = torch.where(torch.arange(24) < 12, 1.0, -1.0)
    y = torch.sin(2 * x[:, 0]) + 0.3 * torch.randn(24, generator=generator, dtype=torch.float64)
    settings = {"lr": 1e-2, "n_beta": 40.0, "localization": 20.0}
    samples = sltfast.sample(
        TwoNetworks(),
        (x, y),
        {"rows": ((x, y), 1)},
        loss_fn=squares,
        batch_size=24,
        num_chains=8,
        num_draws=150,
        num_burnin_steps=60,  # 2/(ε γ) = 10 steps
        num_steps_bw_draws=6,
        progress=False,
        num_init_loss_batches=0,
        **settings,
    )
    correlation = sltfast.compute_loss_kernel(samples)["correlation"].values
    first = samples["rows_rows"].values < 12
    off, on = correlation[first][:, ~first], correlation[first][:, first]
    traces = samples["loss_rows"].values[..., 0].astype(np.float64)
    ess = np.mean([array_stats.ess(traces[..., item], chain_axis=0, draw_axis=1, method="mean") for item in range(24)])
    assert np.sqrt((off**2).mean()) <= 1.5 / np.sqrt(ess)
    assert np.abs(off).max() <= 1.3 * np.sqrt(2 * np.log(off.size)) / np.sqrt(ess)
    assert np.sqrt((on[~np.eye(12, dtype=bool)] ** 2).mean()) > 5 / np.sqrt(ess)


CURVATURE, CUBIC, QUARTIC = 1.0, 1.0, 1.0


class Cubics(nn.Module):
    """R copies of λx²/2 + αx³/6 + κx⁴/24 (κ confines), their squares, and themselves."""

    def __init__(self, copies):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(copies, dtype=torch.float64))

    def forward(self):
        x = self.x
        potential = CURVATURE * x**2 / 2 + CUBIC * x**3 / 6 + QUARTIC * x**4 / 24
        return torch.cat([x**2, x, potential.sum()[None]])


def picked(model, batch):
    return model()[batch[:, 0]]


def stationary_covariance(n_beta, lr):
    """Cov[x², x] of the SGLD chain itself: the stationary vector of its transition kernel on a grid."""
    reach = 9 / np.sqrt(n_beta * CURVATURE)
    x = np.linspace(-reach, reach, 401)
    slope = CURVATURE * x + CUBIC * x**2 / 2 + QUARTIC * x**3 / 6
    kernel = np.exp(-((x[:, None] - (x - lr / 2 * n_beta * slope)) ** 2) / (2 * lr))  # to row, from column
    kernel /= kernel.sum(0)
    density = np.ones(len(x)) / len(x)
    for _ in range(14):  # 2^14 steps
        kernel = kernel @ kernel
    density = kernel @ density
    density /= density.sum()
    return density @ x**3 - (density @ x**2) * (density @ x)


def test_the_cubic_shows_in_the_covariance_of_x_squared_and_x():
    # Cov[x², x] = −2α/(λ³t²) + o(t⁻²)
    n_beta, lr, copies = 200.0, 1e-3, 300
    law = -2 * CUBIC / (CURVATURE**3 * n_beta**2)
    exact = stationary_covariance(n_beta, lr)
    assert exact == pytest.approx(law, rel=0.15)  # ε a/4 = 5 %, and 1/t
    assert stationary_covariance(1e4, 4e-6) == pytest.approx(law * (n_beta / 1e4) ** 2, rel=0.02)
    data = torch.full((2 * copies, 1), 2 * copies)
    items = torch.arange(2 * copies)[:, None]
    samples = sltfast.sample(
        Cubics(copies),
        data,
        {"moments": (items, 1)},
        loss_fn=picked,
        lr=lr,
        n_beta=n_beta,
        batch_size=2 * copies,
        num_chains=8,
        num_draws=150,
        num_burnin_steps=60,  # 2/(ε a) = 10 steps
        num_steps_bw_draws=5,
        progress=False,
        num_init_loss_batches=0,
    )
    where = np.argsort(samples["rows_moments"].values)
    pair = {"batch_index_range_1": where[:copies], "batch_index_range_2": where[copies:]}
    result = sltfast.compute_bif(samples, correlation_method="sequence", sign=1, **pair)
    each = np.diagonal(result["influences"].values)  # of copies that share nothing
    error = each.std(ddof=1) / np.sqrt(copies)
    assert abs(each.mean() - exact) < 4 * error
    assert error < 0.07 * abs(law)  # seen by 14 errors
    z = (each - exact) / np.diagonal(result["influences_se"].values)
    assert 0.88 <= (np.abs(z) < 1.96).mean() <= 0.995  # 300 intervals of 95 %: ± 4 deviations of 1.26 %


@pytest.mark.parametrize("normalize", [False, True])
def test_intervals_cover(normalize):
    # Pairs of AR(1) series with correlation r: 4 chains of 200 draws, each of which is remembered for three.
    memory, r, pairs = 0.5, 0.4, 400
    generator = np.random.default_rng(11)
    mix = np.linalg.cholesky([[1.0, r], [r, 1.0]])
    noise = generator.normal(size=(4, 300, pairs, 2)) @ mix.T * np.sqrt(1 - memory**2)
    series = np.empty_like(noise)
    series[:, 0] = noise[:, 0] / np.sqrt(1 - memory**2)
    for t in range(1, noise.shape[1]):
        series[:, t] = memory * series[:, t - 1] + noise[:, t]
    losses = series[:, 100:].reshape(4, 200, 2 * pairs, 1)
    tree = xr.DataTree(xr.Dataset({"loss_a": (("chain", "draw", "batch_a", "token_pos"), losses)}))
    index = {"batch_index_range_1": range(0, 2 * pairs, 2), "batch_index_range_2": range(1, 2 * pairs, 2)}
    result = sltfast.compute_bif(tree, correlation_method="sequence", normalize=normalize, sign=1, **index)
    z = (result["influences"].values - r * np.eye(pairs)) / result["influences_se"].values
    own = np.abs(np.diagonal(z)) < 1.96
    # 400 independent intervals: 95 ± 1.1 %; the larger of two errors covers more (97 %), few blocks a little less
    assert 0.91 <= own.mean() <= 0.99
    assert 0.93 <= (np.abs(z[~np.eye(pairs, dtype=bool)]) < 1.96).mean() <= 0.99
