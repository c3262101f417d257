"""A chain that meets NaN or infinity is stopped, named, and left out of every mean."""

import numpy as np
import pytest
import torch
from models import ONES, Quadratic, quadratic_loss

import sltfast
from sltfast import ops

STEPS = 30
SETTINGS = {
    "lr": 1e-2,
    "n_beta": 10.0,
    "num_chains": 4,
    "num_draws": STEPS,
    "batch_size": 8,
    "localization": 1.0,
    "progress": False,
}


def cliff(limit):
    """NaN where the first coordinate exceeds ``limit``: some chains fall, by their own noise."""

    def loss(model, batch):
        value = quadratic_loss(model, batch)
        return torch.where(model.w[0] > limit, torch.nan, value)

    return loss


def falling_chains(limit):
    """Where the first coordinate of each chain first exceeds the limit, from an undisturbed run."""

    def position(model, batch):
        return model.w[0].expand(len(batch)) + 0 * model().expand(len(batch))

    def walked(model, batch):
        # the gradient is the quadratic's, the recorded value the coordinate
        value = quadratic_loss(model, batch)
        return value - value.detach() + position(model, batch).detach()

    trace = sltfast.sample(Quadratic(torch.ones(3)), ONES, loss_fn=walked, **SETTINGS)["loss"].values
    return [int(np.argmax(row > limit)) if (row > limit).any() else -1 for row in trace]


@pytest.mark.parametrize("path", [None, "run"], ids=["memory", "disk"])
def test_dead_chains_are_named_and_excluded(tmp_path, path):
    limit = 0.45
    expected = falling_chains(limit)
    assert any(step > 0 for step in expected)
    assert -1 in expected
    arguments = {**SETTINGS, "loss_fn": cliff(limit), "output_path": path and tmp_path / path}
    with pytest.warns(sltfast.ChainDiverged, match=r"chain \d diverged at step \d+ \(its loss was nan\).*lower lr"):
        tree = sltfast.sample(Quadratic(torch.ones(3)), ONES, **arguments)
    assert tree["death_step"].values.tolist() == expected
    assert tree["alive"].values.tolist() == [step < 0 for step in expected]
    for chain, step in enumerate(expected):
        recorded = np.isfinite(tree["loss"].values[chain])
        assert recorded[: step if step >= 0 else STEPS].all()
        assert not recorded[step:].any() or step < 0
    result = sltfast.compute_llc(tree)
    living = [chain for chain, step in enumerate(expected) if step < 0]
    per_chain = result["llc_per_chain"].values
    assert np.isnan(np.delete(per_chain, living)).all()
    assert float(result["llc_mean"]) == pytest.approx(per_chain[living].mean())
    assert result.attrs["verdict"] == "diverged"
    assert "lower lr" in result.attrs["advice"]
    assert tree["sample_stats/diverging"].values.any(axis=1).tolist() == [step >= 0 for step in expected]


def test_all_chains_dead_is_an_error_that_keeps_what_was_recorded():
    with pytest.warns(sltfast.ChainDiverged), pytest.raises(sltfast.AllChainsDied, match="every chain") as caught:
        sltfast.llc(Quadratic(torch.ones(3)), ONES, loss_fn=quadratic_loss, **{**SETTINGS, "lr": 1e12})
    assert not caught.value.samples["alive"].any()
    assert np.isfinite(caught.value.samples["loss"][:, 0]).all()


class Steep(torch.nn.Module):
    """One direction in which every chain diverges, one in which none does."""

    def __init__(self):
        super().__init__()
        self.steep, self.flat = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))

    def forward(self):
        return 1e12 * self.steep.square().sum() + self.flat.square().sum()


def test_a_restriction_whose_chains_all_die_takes_no_other_with_it():
    names, arguments = {"steep": "steep", "flat": "flat"}, {**SETTINGS, "loss_fn": quadratic_loss}
    with pytest.warns(sltfast.ChainDiverged, match="of steep"):
        trees = sltfast.sample_restrictions(Steep(), ONES, None, names, **arguments)
    assert not trees["steep"]["alive"].any()
    assert trees["flat"]["alive"].all()
    with pytest.warns(sltfast.ChainDiverged), pytest.raises(sltfast.AllChainsDied, match="every chain") as caught:
        sltfast.sample_restrictions(Steep(), ONES, None, {"steep": "steep", "both": None}, **arguments)
    assert list(caught.value.samples) == ["steep", "both"]


def test_an_infinite_gradient_kills_too():
    class Root(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(2))

    def loss(model, batch):
        # behind the edge at 0.9 the loss is 0 and its gradient ∞·0
        return torch.sqrt(torch.relu(model.w[0] - 0.9) + 0 * model.w[1]).expand(len(batch))

    with pytest.warns(sltfast.ChainDiverged, match="gradient or update was not finite"):
        tree = sltfast.sample(Root(), ONES, loss_fn=loss, **{**SETTINGS, "n_beta": 0.1, "num_chains": 8})
    assert (tree["death_step"].values > 0).any()


def test_the_op_freezes_a_dead_chain():
    w = torch.zeros(2, 16)
    alive, death = torch.ones(2, dtype=torch.bool), torch.full((2,), -1)
    hyper = torch.tensor([[1e-2, 1.0, 0.0, 0.0, 1.0, float("inf")]] * 2, dtype=torch.float64)
    ops.langevin_step_(
        w,
        [torch.zeros(2, 16)],
        [torch.zeros(16)],
        torch.tensor([[0, 16, 0, 16, 0]]),
        hyper,
        torch.tensor(5),
        torch.arange(2),
        seed=0,
        loss=torch.tensor([1.0, float("nan")], dtype=torch.float64),
        alive=alive,
        death_step=death,
    )
    assert alive.tolist() == [True, False]
    assert death.tolist() == [-1, 5]
    assert (w[0] != 0).all()
    assert (w[1] == 0).all()
