"""Damped influence is −g_jᵀ(nβH + γ)⁻¹g_i by either solver, says how H was damped, and refuses what has no inverse."""

import copy

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows
from torch import nn

import sltfast
from sltfast.data import as_source
from sltfast.estimators.influence.spectrum import smallest_eigenvalue
from sltfast.hessian import hessian_of
from sltfast.theory import LinearRegression

ROWS = 12


class Linear(nn.Module):
    """ℓ_i = ½(x_i·w − y_i)² at its optimum."""

    def __init__(self, law: LinearRegression) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.from_numpy(law.optimum.copy()))


def half_square(model, batch):
    x, y = batch
    return 0.5 * (x @ model.w - y) ** 2


def regression(seed=0, features=4):
    generator = np.random.default_rng(seed)
    law = LinearRegression(generator.normal(size=(ROWS, features)), generator.normal(size=ROWS))
    return law, Linear(law), (torch.from_numpy(law.x), torch.from_numpy(law.y))


def quiet(*given, **keywords):
    return sltfast.damped_influence(*given, **keywords, progress=False)


@pytest.mark.parametrize("solver", ["dense", "conjugate_gradients"])
@pytest.mark.parametrize("products", ["double_backward", "finite_differences"])
def test_linear_regression_has_its_closed_form(solver, products):
    law, model, data = regression()
    result = quiet(
        model, data, loss_fn=half_square, n_beta=7.0, localization=0.5, batch_size=5, solver=solver, products=products
    )
    inverse = np.linalg.inv(7.0 * law.hessian + 0.5 * np.eye(4))
    expected = -np.outer(law.residuals, law.residuals) * (law.x @ inverse @ law.x.T)
    # the tolerance of conjugate gradients (1e-8), and the error of differences (ε^⅔ = 4e-11), of numbers of order 1
    np.testing.assert_allclose(result["influences"].values, expected, rtol=0, atol=1e-7)
    assert result["influences"].dims == ("query", "item")
    assert float(result["residual"].max()) < 1e-8
    assert result.attrs["solver"] == solver
    assert result.attrs["products"] == products
    assert not result.attrs["hessian_indefinite"]
    assert result.attrs["hessian_smallest_eigenvalue"] == pytest.approx(np.linalg.eigvalsh(law.hessian)[0], rel=1e-6)
    assert 0 < result.attrs["steps"] <= 4 if solver == "conjugate_gradients" else result.attrs["steps"] == 0


def test_queries_are_another_data_set():
    law, model, data = regression()
    others = torch.randn(3, 4, generator=torch.Generator().manual_seed(5)).double(), torch.ones(3).double()
    result = quiet(model, data, others, loss_fn=half_square, n_beta=7.0, localization=0.5)
    inverse = np.linalg.inv(7.0 * law.hessian + 0.5 * np.eye(4))
    apart = others[0].numpy() @ law.optimum - 1.0
    expected = -(apart[:, None] * others[0].numpy()) @ inverse @ (law.residuals[:, None] * law.x).T
    np.testing.assert_allclose(result["influences"].values, expected, rtol=0, atol=1e-12)


def mlp_by_hand(model, data, n_beta, localization, kept):
    """The formula from whole matrices, on the coordinates ``kept``."""
    parameters = list(model.parameters())

    def flat(loss, create_graph=False):
        found = torch.autograd.grad(loss, parameters, create_graph=create_graph, retain_graph=True)
        return torch.cat([part.flatten() for part in found])

    losses = regression_loss(model, data)
    gradients = torch.stack([flat(loss) for loss in losses])
    mean = flat(losses.mean(), create_graph=True)
    hessian = torch.stack([flat(entry) for entry in mean])
    damped = n_beta * hessian[kept][:, kept] + localization * torch.eye(int(kept.sum()))
    return -gradients[:, kept] @ torch.linalg.inv(damped) @ gradients[:, kept].mT, hessian[kept][:, kept]


@pytest.mark.parametrize("solver", ["dense", "conjugate_gradients"])
def test_an_indefinite_hessian_is_damped_and_said(solver):
    model, data = Mlp().double(), tuple(part.double() for part in regression_data(10))
    mask = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    kept = torch.cat([mask.flatten(), torch.ones(11, dtype=torch.bool)])
    masks = {"first.weight": mask, **dict.fromkeys(["first.bias", "second.weight", "second.bias"])}
    expected, hessian = mlp_by_hand(model, data, 4.0, 9.0, kept)
    lowest = float(torch.linalg.eigvalsh(hessian)[0])
    assert lowest < 0
    given = {"loss_fn": regression_loss, "param_masks": masks, "n_beta": 4.0, "solver": solver}
    result = quiet(model, data, localization=9.0, **given)
    np.testing.assert_allclose(result["influences"].values, expected.numpy(), rtol=0, atol=1e-7)
    assert result.attrs["hessian_indefinite"]
    assert result.attrs["hessian_smallest_eigenvalue"] == pytest.approx(lowest, rel=1e-6)
    assert "H is indefinite" in result.attrs["damping"]
    # one part in a thousand short of, and beyond, what makes nβ·H + γ positive definite
    with pytest.raises(ValueError, match=r"not positive definite.*localization > "):
        quiet(model, data, localization=-4.0 * lowest * 0.999, **given)
    quiet(model, data, localization=-4.0 * lowest * 1.001, **given)


def test_float32_language_models():
    model, ids = tiny_neox(), token_rows(6)
    given = {"n_beta": 5.0, "localization": 600.0, "solver": "conjugate_gradients", "param_masks": "*attention*"}
    single = quiet(model, ids, ids[:2], **given)
    double = quiet(copy.deepcopy(model).double(), ids, ids[:2], **given)
    assert single["influences"].shape == (2, 6)
    # residuals of 1e-4 of |∇ℓ_j|, through an inverse that is within a factor 2 of 1/γ on every direction
    largest = float(abs(double["influences"]).max())
    assert float(abs(single["influences"] - double["influences"]).max()) < 3e-4 * largest
    assert (np.diag(double["influences"].values[:, :2]) < 0).all()


def test_conjugate_gradients_that_end_early_say_so():
    _, model, data = regression()
    given = {"loss_fn": half_square, "n_beta": 100.0, "localization": 0.0, "solver": "conjugate_gradients"}
    with pytest.warns(RuntimeWarning, match="raise max_steps or localization"):
        quiet(model, data, max_steps=1, **given)


def test_lanczos_finds_the_bottom():
    curvature = torch.cat([torch.tensor([-2.0]), torch.linspace(0, 10, 59)]).double()
    model = Quadratic(curvature, dtype=torch.float64)
    with hessian_of(model, as_source(ONES), loss_fn=quadratic_loss) as hessian:
        # a gap of 2 in a spectrum of 12: exp(−4·m·√(2/12)) at m = 40 is far below rounding
        assert smallest_eigenvalue(hessian) == pytest.approx(-2, abs=1e-9)


def test_the_model_stays():
    model, data = Mlp(dropout=0.5).train(), regression_data(8)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    quiet(model, data, loss_fn=regression_loss, n_beta=1.0, localization=30.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_beta": 0.0}, "n_beta must be finite and > 0, got 0.0"),
        ({"localization": -1.0}, "localization must be finite and >= 0, got -1.0"),
        ({"tolerance": 2.0}, r"tolerance must be in \(0, 1\) or None, got 2.0"),
        ({"max_steps": 0}, "max_steps must be a whole number >= 1, got 0"),
        ({"solver": "lu"}, "solver must be one of auto, dense, conjugate_gradients, got 'lu'"),
        ({"param_masks": "third"}, "third"),
    ],
)
def test_bad_arguments(change, message):
    given = {"loss_fn": regression_loss, "n_beta": 1.0, "localization": 30.0, **change}
    with pytest.raises(ValueError, match=message):
        quiet(Mlp(), regression_data(4), **given)
