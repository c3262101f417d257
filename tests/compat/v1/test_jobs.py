"""What the notebooks of devinterp 1.x do, small: each job runs and finds what it is to find."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sltfast.compat.devinterp_v1.backends.default.slt import sampler as default_backend
from sltfast.compat.devinterp_v1.backends.tpu.slt import sampler as tpu_backend
from sltfast.compat.devinterp_v1.mechinterp.hooks import hook
from sltfast.compat.devinterp_v1.optim import SGLD, SGNHT
from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback
from sltfast.compat.devinterp_v1.slt.cov import CovarianceAccumulator
from sltfast.compat.devinterp_v1.slt.gradient import GradientDistribution
from sltfast.compat.devinterp_v1.slt.llc import OnlineLLCEstimator
from sltfast.compat.devinterp_v1.slt.loss import OnlineLossStatistics
from sltfast.compat.devinterp_v1.slt.mala import MalaAcceptanceRate
from sltfast.compat.devinterp_v1.slt.norms import GradientNorm, NoiseNorm, WeightNorm
from sltfast.compat.devinterp_v1.slt.sampler import (
    estimate_learning_coeff,
    estimate_learning_coeff_with_summary,
    sample,
)
from sltfast.compat.devinterp_v1.slt.wbic import OnlineWBICEstimator
from sltfast.compat.devinterp_v1.test_utils import LinePlusDot, Polynomial, ReducedRankRegressor
from sltfast.compat.devinterp_v1.utils import default_nbeta, evaluate_ce, evaluate_mse, make_evaluate
from sltfast.compat.devinterp_v1.vis_utils import EpsilonBetaAnalyzer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # devinterp's contract is to warn of every short run


def noise_around_zero(rows: int = 200, batch: int = 100) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 1, generator=generator)
    return DataLoader(TensorDataset(x, 0.1 * torch.randn(rows, 1, generator=generator)), batch_size=batch, shuffle=True)


class Trajectory(SamplerCallback):
    """Where the chains went."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[Tensor] = []

    def __call__(self, model: Any, **kwargs: Any) -> None:
        self.points.append(model.weights.detach().clone())


@pytest.mark.parametrize("method", [SGLD, SGNHT])
def test_normal_crossing(method: Any) -> None:
    """Trajectories stay in their box, and leave the crossing where they began."""
    trajectory, box = Trajectory(), 0.5
    settings = {"lr": 5e-3, "bounding_box_size": box, "nbeta": default_nbeta(100)}
    sample(
        Polynomial([1, 2]),
        noise_around_zero(),
        [trajectory],
        evaluate_mse,
        method,
        settings,
        num_draws=50,
        num_chains=2,
        seed=0,
        verbose=False,
    )
    points = torch.stack(trajectory.points)
    assert points.shape == (100, 2)
    assert points.abs().max() <= box
    assert points.std(0).min() > 0.05  # of a uniform law on the box it would be 0.29


def test_toy_model_of_superposition_and_weight_covariances() -> None:
    class Superposition(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(2, 5) / 2), nn.Parameter(torch.zeros(5))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ self.w.T @ self.w + self.b)

    torch.manual_seed(0)
    x = torch.rand(64, 5)
    model, loader = Superposition(), DataLoader(TensorDataset(x, x), batch_size=32, shuffle=True)
    spread = CovarianceAccumulator(10, [lambda model: model.w])
    found = estimate_learning_coeff_with_summary(
        model,
        loader,
        [spread],
        evaluate_mse,
        optimizer_kwargs={"lr": 1e-3, "localization": 1.0, "nbeta": default_nbeta(loader)},
        num_draws=10,
        num_chains=2,
        seed=0,
        verbose=False,
    )
    assert spread.num_draws == 20
    assert np.isfinite(found["llc/mean"])
    assert found["evals"].min() > 0


def test_digits_over_training() -> None:
    """A trained network has more λ̂ than a random one has: it has somewhere to fall from."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    loader = DataLoader(TensorDataset(x, torch.tensor(digits.target)), batch_size=256, shuffle=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    estimates = []
    for epochs in (0, 12):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(epochs):
            for batch in loader:
                optimizer.zero_grad()
                evaluate_ce(model, batch)[0].backward()
                optimizer.step()
        found = estimate_learning_coeff(
            model,
            loader,
            evaluate=evaluate_ce,
            optimizer_kwargs={"lr": 1e-3, "localization": 100.0, "nbeta": default_nbeta(loader)},
            num_draws=60,
            num_chains=4,
            num_burnin_steps=20,
            seed=0,
            verbose=False,
        )
        estimates.append(found)
    assert estimates[1] > estimates[0]
    assert estimates[1] > 0


def test_deep_linear_networks_by_many_chains() -> None:
    model = ReducedRankRegressor(4, 2, 3)
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, model(x).detach()), batch_size=64)
    found = estimate_learning_coeff_with_summary(
        model,
        loader,
        evaluate=make_evaluate(nn.functional.mse_loss),
        optimizer_kwargs={"lr": 1e-3, "localization": 1.0, "nbeta": 100.0},
        num_draws=20,
        num_chains=100,
        num_burnin_steps=60,
        init_loss=0.0,
        seed=0,
        verbose=False,
    )
    # at most half of the 14 weights; those that do not matter can only lower it
    assert 0 < found["llc/mean"] < 7


def test_diagnostics() -> None:
    model, loader, draws = LinePlusDot(2), noise_around_zero(), 6
    llc = OnlineLLCEstimator(2, draws, 0.01, nbeta=default_nbeta(loader))
    callbacks = [
        llc,
        OnlineLossStatistics(llc),
        OnlineWBICEstimator(2, draws, 200),
        MalaAcceptanceRate(2, draws, 1e-4, nbeta=default_nbeta(loader)),
        WeightNorm(2, draws),
        GradientNorm(2, draws),
        NoiseNorm(2, draws),
        GradientDistribution(2, draws),
    ]
    settings = {"lr": 1e-4, "nbeta": default_nbeta(loader)}
    found = sample(
        model, loader, callbacks, evaluate_mse, SGLD, settings, draws, 2, num_burnin_steps=5, seed=0, verbose=False
    )
    assert found["gradient/distributions"]["weights"].sum() == 2 * draws * 2
    assert (found["mala_accept/trace"][:, 1:] > 0.5).all()  # ε is tiny
    # |√ε·ξ|²/ε of two coordinates is χ² with 2 degrees, mean 2 and deviation 2: 4 standard errors of 12 of them
    squares = found["noise_norm/trace"] ** 2 / 1e-4
    assert abs(squares.mean() - 2) < 4 * 2 / math.sqrt(12)
    assert {"wbic/trace", "weight_norm/trace", "gradient_norm/trace", "loss/z_scores"} <= found.keys()


def calibrated(epsilon: float, beta: float, **given: Any) -> dict[str, Any]:
    settings = {"lr": epsilon, "nbeta": beta, "localization": 5.0}
    found = estimate_learning_coeff_with_summary(optimizer_kwargs=settings, online=True, verbose=False, **given)
    return {"llc/trace": found["llc/trace"], "localization": 5.0}


def test_grokking_and_calibration_by_a_sweep(tmp_path: Path) -> None:
    """A grid with a cell that diverges: it is left out, the others are tabled and drawn."""
    analyzer, loader = EpsilonBetaAnalyzer(), noise_around_zero(50, 25)
    with pytest.raises(ValueError, match="configure_sweep"):
        analyzer.sweep()
    with pytest.raises(ValueError, match="call sweep"):
        analyzer.plot()
    given = {"model": nn.Linear(1, 1), "loader": loader, "evaluate": evaluate_mse}
    given |= {"num_draws": 40, "num_chains": 2, "seed": 0, "init_loss": 0.01}
    analyzer.configure_sweep(calibrated, given, epsilon_range=[1e-4, 1e-3, 1e6], beta_range=[1.0, 5.0])
    with pytest.warns(UserWarning, match=r"epsilon 1e\+06, beta 5 is left out: NaN detected"):
        analyzer.sweep()
    table = analyzer.sweep_df
    assert list(table.columns) == ["llc/trace", "localization", "epsilon", "beta"]
    assert table[["epsilon", "beta"]].values.tolist() == [[1e-4, 1], [1e-4, 5], [1e-3, 1], [1e-3, 5]]
    assert all(trace.shape == (2, 40) for trace in table["llc/trace"])
    figure = analyzer.plot(true_lambda=0.5, num_last_steps_to_average=10)
    assert [trace.type for trace in figure.data] == ["scatter3d", "surface"]
    assert figure.data[0].z[0] == pytest.approx(table["llc/trace"][0][:, -10:].mean())
    analyzer.sweep(add_to_existing=True)
    assert len(analyzer.sweep_df) == 8
    sliding = analyzer.plot(slider="beta", slider_plane=True, div_out_beta=True)
    assert [step.label for step in sliding.layout.sliders[0].steps] == ["1.0", "5.0"]
    analyzer.save_fig(str(tmp_path / "sweep.html"))
    assert "scatter3d" in (tmp_path / "sweep.html").read_text()


def test_ranges_of_a_sweep() -> None:
    analyzer = EpsilonBetaAnalyzer()
    analyzer.configure_sweep(calibrated, {}, dataloader=noise_around_zero())
    config = analyzer.sweep_config
    assert config is not None
    np.testing.assert_allclose(config.epsilon_range, np.geomspace(1e-6, 1e-2, 8))
    np.testing.assert_allclose(
        [config.beta_range[0], config.beta_range[-1]], np.array([1e-2, 1e3]) * default_nbeta(100)
    )
    with pytest.raises(ValueError, match="min_beta and max_beta"):
        analyzer.configure_sweep(calibrated, {})
    with pytest.raises(ValueError, match="above 0"):
        analyzer.configure_sweep(calibrated, {}, beta_range=[0.0, 1.0])


def test_hooks() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.ModuleDict({"a": nn.Linear(4, 2)})["a"])
    x = torch.ones(2, 3)
    expected, inner = plain(x), plain[0](x)
    output, cache = hook(plain).run_with_cache(x)
    assert torch.equal(output, expected)
    assert torch.equal(cache["0"], inner)
    regressor = ReducedRankRegressor(3, 2, 1)
    hidden, whole = regressor.fc1(x), regressor(x)
    watched = hook(regressor, "fc1")
    output, cache = watched.run_with_cache(x)
    assert torch.equal(output, whole)
    assert list(cache) == ["fc1"]
    assert torch.equal(cache["fc1"], hidden)
    assert watched.state_dict().keys() == regressor.state_dict().keys()
    assert "Hooked(ReducedRankRegressor" in repr(watched)


def test_backends_have_the_same_functions() -> None:
    assert default_backend.sample is tpu_backend.sample is sample
    assert default_backend.sample_single_chain is tpu_backend.sample_single_chain
