"""Metropolis' acceptance of SGLD's steps, against numerical integration and exact simulation on quadratics."""

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows

from sltfast.diagnostics import mala_acceptance
from sltfast.errors import AllChainsDied, ChainDiverged

CALL = {"loss_fn": quadratic_loss, "batch_size": 8, "progress": False}


def quadratic(h):
    return Quadratic(torch.tensor(h, dtype=torch.float64), dtype=torch.float64)


def integrated(a, n_beta_h, lr):
    """E α of a stationary chain w' = (1 − εa/2)·w + √ε·ξ in one dimension, on a grid.

    (w, w') has variance s² = 1/(a(1 − εa/4)) in both and correlation r = 1 − εa/2; log α is that of its definition.
    """
    s, r = (1 / (a * (1 - lr * a / 4))) ** 0.5, 1 - lr * a / 2
    grid = np.linspace(-8, 8, 1601)
    w, noise = s * grid[:, None], grid[None]
    after = r * w + lr**0.5 * noise
    weight = np.exp(-(grid[:, None] ** 2) / 2 - noise**2 / 2)
    proposal = lambda x, y: -((y - x + lr / 2 * a * x) ** 2) / (2 * lr)  # noqa: E731
    log_alpha = -a / 2 * (after**2 - w**2) - (proposal(w, after) - proposal(after, w))
    return float((weight * np.exp(np.minimum(log_alpha, 0))).sum() / weight.sum())


@pytest.mark.parametrize(("lr", "localization"), [(0.15, 5.0), (0.2, 0.0)])
def test_one_dimension_is_the_integral(lr, localization):
    found = mala_acceptance(
        quadratic([1.0]), ONES, lr=lr, n_beta=10.0, localization=localization, num_chains=2, num_draws=500,
        num_burnin_steps=50, **CALL,
    )  # fmt: skip
    exact = integrated(10.0 + localization, 10.0, lr)
    assert exact < 0.95
    assert abs(float(found["acceptance"]) - exact) < 4 * float(found["acceptance_se"])
    # the error is worth something: far below what separates the step sizes
    assert float(found["acceptance_se"]) < 0.02


def test_many_dimensions_are_the_exact_simulation():
    h, lr, n_beta, gamma, decay = np.linspace(0.0, 2.0, 40), 0.04, 10.0, 5.0, 2.0
    a = n_beta * h + gamma + decay
    generator = np.random.default_rng(0)
    w = generator.standard_normal((40_000, 40)) / np.sqrt(a * (1 - lr * a / 4))
    after = (1 - lr * a / 2) * w + lr**0.5 * generator.standard_normal(w.shape)
    log_alpha = (
        -(a / 2 * (after**2 - w**2)).sum(1)
        + (((after - w + lr / 2 * a * w) ** 2 - (w - after + lr / 2 * a * after) ** 2) / (2 * lr)).sum(1)
    )  # fmt: skip
    alpha = np.exp(np.minimum(log_alpha, 0))
    exact, error = alpha.mean(), alpha.std() / 40_000**0.5
    found = mala_acceptance(
        quadratic(h.tolist()), ONES, lr=lr, n_beta=n_beta, localization=gamma, llc_weight_decay=decay, num_chains=3,
        num_draws=300, num_burnin_steps=60, **CALL,
    )  # fmt: skip
    assert abs(float(found["acceptance"]) - exact) < 4 * np.hypot(float(found["acceptance_se"]), error)
    assert 0.3 < exact < 0.9
    np.testing.assert_allclose(found["acceptance_per_chain"].values.mean(), float(found["acceptance"]), rtol=1e-12)


def test_it_tends_to_one_with_the_step():
    settings = {"n_beta": 10.0, "localization": 5.0, "num_chains": 1, "num_draws": 100, "num_burnin_steps": 30}
    rejected = [
        1 - float(mala_acceptance(Mlp(), regression_data(), loss_fn=regression_loss, lr=lr, batch_size=40,
                                  progress=False, **settings)["acceptance"])
        for lr in (3e-2, 3e-3, 3e-4)
    ]  # fmt: skip
    # 1 − α ~ ε^{3/2}: a tenth of the step rejects a thirtieth as often; a third of that to be told by 100 draws
    assert rejected[1] < rejected[0] / 10
    assert rejected[2] < rejected[1] / 10


def by_hand(w, after, anchor, batch, settings):
    """Log α from its definition, by the model's own losses and gradients."""
    model = Mlp().double()

    def at(point):
        torch.nn.utils.vector_to_parameters(point, model.parameters())
        loss = regression_loss(model, batch).mean()
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
        prior = settings["localization"]
        energy = settings["n_beta"] * loss.detach() + prior / 2 * ((point - anchor) ** 2).sum()
        return energy, settings["n_beta"] * gradient + prior * (point - anchor)

    (before, force), (now, reverse), lr = at(w), at(after), settings["lr"]
    there = -((after - w + lr / 2 * force) ** 2).sum() / (2 * lr)
    back = -((w - after + lr / 2 * reverse) ** 2).sum() / (2 * lr)
    return float(-(now - before) - (there - back))


@pytest.mark.parametrize("batch_size", [40, 8])
def test_a_step_is_judged_on_its_own_batch(batch_size):
    """The steps are those of ``sltfast.sample``, whose weights are on record; full batch and mini-batches alike."""
    import sltfast

    data = tuple(part.double() for part in regression_data())
    settings = {"lr": 0.01, "n_beta": 10.0, "localization": 5.0, "batch_size": batch_size, "num_chains": 1}
    found = mala_acceptance(
        Mlp().double(), data, loss_fn=regression_loss, num_draws=6, num_burnin_steps=0, progress=False, **settings
    )
    tree = sltfast.sample(
        Mlp().double(), data, loss_fn=regression_loss, num_draws=6, progress=False, record_weights="*", **settings
    )
    from sltfast.batches import BatchStream
    from sltfast.data import as_source

    anchor = torch.nn.utils.parameters_to_vector(Mlp().double().parameters()).detach()
    moved = torch.from_numpy(tree["displacement"].values[0]).double()
    points = [anchor, *(anchor + row for row in moved)]
    stream = BatchStream(as_source(data), batch_size, 100)
    for step in range(6):
        batch = stream.batch(step, torch.device("cpu"))
        expected = by_hand(points[step], points[step + 1], anchor, batch, settings)
        assert float(found["log_acceptance"][0, step]) == pytest.approx(expected, abs=1e-4)


def test_only_what_moves_counts():
    mask = torch.zeros(6, dtype=torch.bool)
    mask[[0, 3]] = True
    settings = {"lr": 0.1, "n_beta": 10.0, "localization": 5.0, "num_chains": 1, "num_draws": 250}
    model = quadratic([1.0, 3.0, 3.0, 1.0, 3.0, 3.0])
    part = mala_acceptance(model, ONES, param_masks={"w": mask}, **settings, **CALL)
    same = mala_acceptance(quadratic([1.0, 1.0]), ONES, **settings, **CALL)
    error = np.hypot(float(part["acceptance_se"]), float(same["acceptance_se"]))
    assert abs(float(part["acceptance"]) - float(same["acceptance"])) < 4 * error
    whole = mala_acceptance(model, ONES, **settings, **CALL)
    assert float(whole["acceptance"]) < float(part["acceptance"]) - 8 * error


def test_language_models_and_parts_of_them():
    found = mala_acceptance(
        tiny_neox(), token_rows(), param_masks="l0h1", lr=1e-4, n_beta=10.0, localization=100.0, num_chains=1,
        num_draws=5, num_burnin_steps=5, batch_size=8, progress=False,
    )  # fmt: skip
    assert 0.9 < float(found["acceptance"]) <= 1.0
    assert "small enough" in found.attrs["advice"]


def test_chains_that_die_are_told():
    with pytest.raises(AllChainsDied, match="lower lr"):
        mala_acceptance(quadratic([1.0]), ONES, lr=3.0, n_beta=1e3, num_draws=400, num_chains=1, **CALL)


def test_a_dead_chain_is_in_no_mean():
    def walled(model, batch):
        """No loss far out in the tails of the stationary law: some chains get there."""
        beyond = model.w.detach().abs().max() > 3 * 15**-0.5
        return quadratic_loss(model, batch) + torch.where(beyond, torch.nan, 0.0)

    settings = {"lr": 0.1, "n_beta": 10.0, "localization": 5.0, "num_chains": 4, "num_draws": 60, "num_burnin_steps": 0}
    with pytest.warns(ChainDiverged, match=r"of 4 chains met NaN or infinity and are in no mean"):
        found = mala_acceptance(quadratic([1.0]), ONES, **settings, **{**CALL, "loss_fn": walled})
    alive = found["alive"].values
    assert 0 < alive.sum() < 4
    assert np.isnan(found["acceptance_per_chain"].values[~alive]).all()
    alpha = np.exp(np.minimum(found["log_acceptance"].values[alive], 0))
    assert float(found["acceptance"]) == pytest.approx(alpha.mean(), rel=1e-12)


def test_the_model_is_left_alone_and_bad_settings_are_refused():
    model = Mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"lr": 1e-2, "n_beta": 10.0, "num_draws": 3, "num_burnin_steps": 0, "progress": False}
    mala_acceptance(model, regression_data(), loss_fn=regression_loss, **settings)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ValueError, match="lr must be > 0"):
        mala_acceptance(model, regression_data(), loss_fn=regression_loss, **{**settings, "lr": 0.0})
    with pytest.raises(ValueError, match="num_draws must be a whole number"):
        mala_acceptance(model, regression_data(), loss_fn=regression_loss, **{**settings, "num_draws": 0})
