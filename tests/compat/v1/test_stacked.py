"""Stacked chains: their distribution, what they take, and what sends a run to devinterp's loop."""

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from sltfast.compat.devinterp_v1.slt.llc import LLCEstimator
from sltfast.compat.devinterp_v1.slt.norms import WeightNorm
from sltfast.compat.devinterp_v1.slt.sampler import estimate_learning_coeff_with_summary, sample
from sltfast.compat.devinterp_v1.utils import evaluate_ce, evaluate_mse
from tests.compat.v1 import recorded

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # devinterp's contract is to warn of every short run
STEEP = 2.0


class Bowl(nn.Module):
    """Weights whose loss is (h/2)·|w|², whatever the data."""

    def __init__(self, dim: int, start: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        return STEEP / 2 * self.w.square().sum() + 0 * x.sum()


def bowl_loss(model: nn.Module, batch: Any) -> Tensor:
    return model(batch[0])


def points(rows: int = 8, batch: int = 4) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(rows, 1)), batch_size=batch, shuffle=True)


@pytest.mark.parametrize("exact", [True, False])
def test_draws_are_the_last_of_their_block_and_losses_those_before_the_step(exact: bool) -> None:
    """Without noise w_t = w*·(1 − ε·nβ·h/2)^t; 1e-5: rounding of some ten float32 steps."""
    estimator = LLCEstimator(2, 3, 0.0, nbeta=4.0)
    settings = {"lr": 0.05, "nbeta": 4.0, "noise_level": 0.0}
    sample(
        Bowl(3, 1.0),
        points(),
        [estimator],
        bowl_loss,
        optimizer_kwargs=settings,
        num_draws=3,
        num_chains=2,
        num_burnin_steps=2,
        num_steps_bw_draws=2,
        init_loss=0.0,
        grad_accum_steps=2,
        verbose=False,
        exact=exact,
    )
    steps = np.array([3, 5, 7])  # of w: burn-in and whole blocks, less the step that comes after the loss
    expected = 3 * STEEP / 2 * (1 - 0.05 / 2 * 4 * STEEP) ** (2 * steps)
    np.testing.assert_allclose(estimator.losses.numpy(), np.stack([expected] * 2), rtol=1e-5)


def test_stacked_chains_have_the_law_of_a_bowl(caplog: pytest.LogCaptureFixture) -> None:
    """nβ·E[L] = (d/2)·nβ·h / (a·(1 − ε·a/4)), a = nβ·h + γ, exactly for the discrete chain.

    Chains are independent: 4 standard errors of their mean, which one seed in 16,000 exceeds.
    """
    dim, n_beta, gamma, lr, chains = 10, 3.0, 2.0, 0.05, 64
    with caplog.at_level(logging.INFO, "sltfast.compat.devinterp_v1"):
        found = estimate_learning_coeff_with_summary(
            Bowl(dim),
            points(),
            evaluate=bowl_loss,
            optimizer_kwargs={"lr": lr, "nbeta": n_beta, "localization": gamma},
            num_draws=200,
            num_chains=chains,
            num_burnin_steps=60,
            init_loss=0.0,
            seed=0,
            verbose=False,
        )
    assert "64 chains are stacked" in caplog.text
    values = np.array([found[f"llc-chain/{chain}"] for chain in range(chains)])
    a = n_beta * STEEP + gamma
    expected = dim / 2 * n_beta * STEEP / (a * (1 - lr * a / 4))
    assert abs(values.mean() - expected) < 4 * values.std(ddof=1) / math.sqrt(chains)
    assert found["llc/std"] == pytest.approx(values.std(ddof=1), rel=1e-5)


def test_stacked_and_step_by_step_agree_in_distribution() -> None:
    """A classifier over shuffled mini-batches with a short last one: means and spreads over chains.

    4 standard errors of a difference of means (Welch) of independent chains; the variances' ratio of 24 and 24 chains
    lies in F's two-sided 99.99 % interval, (0.19, 5.3).
    """
    model, loader = recorded.problem()
    found = []
    for exact in (False, True):
        results = estimate_learning_coeff_with_summary(
            model,
            loader,
            evaluate=evaluate_ce,
            optimizer_kwargs={"lr": 1e-2, "localization": 10.0, "nbeta": 30.0},
            num_draws=40,
            num_chains=24,
            num_burnin_steps=40,
            init_loss=0.7,
            seed=0,
            verbose=False,
            exact=exact,
        )
        found.append(np.array([results[f"llc-chain/{chain}"] for chain in range(24)]))
    fast, slow = found
    error = math.sqrt(fast.var(ddof=1) / 24 + slow.var(ddof=1) / 24)
    assert abs(fast.mean() - slow.mean()) < 4 * error
    assert 0.19 < fast.var(ddof=1) / slow.var(ddof=1) < 5.3


def test_a_chain_is_its_seed() -> None:
    """Chain of seed s is the same among other chains; 1e-5: vectorised sums of other lengths round otherwise."""
    model, loader = recorded.problem()

    def traces(seeds: list[int]) -> np.ndarray:
        found = estimate_learning_coeff_with_summary(
            model,
            loader,
            evaluate=evaluate_ce,
            num_draws=5,
            num_chains=len(seeds),
            init_loss=0.7,
            seed=seeds,
            verbose=False,
        )
        trace: np.ndarray = found["loss/trace"]
        return trace

    together, alone = traces([4, 9, 2]), traces([9])
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-5)
    assert not np.allclose(together[0], together[1])


def test_masks_hold_weights_where_they_are() -> None:
    """Without moving weights every loss is the loss at w*."""
    estimator = LLCEstimator(3, 4, 0.0, nbeta=2.0)
    mask = torch.zeros(3, dtype=torch.bool)
    mask[1] = True
    sample(
        Bowl(3, 1.0),
        points(),
        [estimator],
        lambda model, batch: STEEP * model.w[[0, 2]].square().sum() + 0 * model(batch[0]),
        optimizer_kwargs={"nbeta": 2.0},
        optimize_over_per_model_param={"w": mask},
        num_draws=4,
        num_chains=3,
        init_loss=0.0,
        seed=0,
        verbose=False,
    )
    assert torch.equal(estimator.losses, torch.full((3, 4), 2 * STEEP))


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x)
        return output


def item_mse(model: nn.Module, batch: Any) -> Tensor:
    return torch.tensor(evaluate_mse(model, batch)[0].item()) * model(batch[0]).mean()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": Dropping()}, "the loss is random"),
        ({"model": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))}, "another than in eval mode"),
        ({"callbacks": [WeightNorm(2, 2)]}, "WeightNorm may look at single steps"),
        ({"optimizer_kwargs": {"nbeta": 2.0, "save_noise": True}}, r"the optimiser has \['save_noise'\]"),
        ({"loader": "ordered"}, "its own order"),
        ({"evaluate": item_mse}, "cannot be vectorised"),
        ({"exact": True}, "asked for"),
    ],
)
def test_what_sends_a_run_to_the_loop(changes: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    model, loader = recorded.problem()
    given = {"model": model, "loader": loader, "evaluate": evaluate_ce, "optimizer_kwargs": {"nbeta": 2.0}, **changes}
    if given["evaluate"] is item_mse:
        x = loader.dataset[:][0]
        given["loader"] = DataLoader(TensorDataset(x, x[:, :2]), batch_size=8)
    if given["loader"] == "ordered":
        sampler = RandomSampler(loader.dataset, replacement=True)
        given["loader"] = DataLoader(loader.dataset, batch_size=8, sampler=sampler)
    with caplog.at_level(logging.INFO, "sltfast.compat.devinterp_v1"):
        found = estimate_learning_coeff_with_summary(
            **given, num_draws=2, num_chains=2, seed=0, init_loss=0.7, verbose=False
        )
    import re

    assert re.search(f"one after another, step by step.*{reason}", caplog.text)
    assert np.isfinite(found["loss/trace"]).all()
