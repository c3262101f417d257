"""devinterp 1.3.2's loop: its numbers, its order of operations, and what callbacks are shown."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sltfast.compat.devinterp_v1.optim import SGLD
from sltfast.compat.devinterp_v1.slt.callback import NotOverridden, SamplerCallback, validate_callbacks
from sltfast.compat.devinterp_v1.slt.llc import LLCEstimator, OnlineLLCEstimator
from sltfast.compat.devinterp_v1.slt.loss import OnlineLossStatistics
from sltfast.compat.devinterp_v1.slt.sampler import (
    estimate_learning_coeff,
    estimate_learning_coeff_with_summary,
    sample,
)
from sltfast.compat.devinterp_v1.test_utils import DummyNaNModel
from sltfast.compat.devinterp_v1.utils import evaluate_ce, evaluate_mse
from tests.compat.v1 import recorded

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # devinterp's contract is to warn of every short run
RECORDED = json.loads(recorded.FILE.read_text())


@pytest.mark.parametrize("case", recorded.CASES)
def test_its_numbers(case: str) -> None:
    """On another processor sums of a dozen terms may be rounded otherwise: 13 steps of a few roundings of 6e-8 each,
    on losses near 0.7 that nβ = 3 multiplies.
    """
    found = recorded.numbers("sltfast.compat.devinterp_v1", case, exact=True)
    assert found.keys() == RECORDED[case].keys()
    for name, values in RECORDED[case].items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_bit_for_bit_a_loop_of_plain_torch() -> None:
    """The same operations in the same order, written out, from the same seed."""
    model, loader = recorded.problem()
    estimator = LLCEstimator(1, 4, 0.5, nbeta=3.0)
    settings = {"lr": 1e-2, "localization": 10.0, "nbeta": 3.0}
    sample(
        model, loader, [estimator], evaluate_ce, SGLD, settings, 4, 1, 2, 2, 0.5, seed=[9], verbose=False, exact=True
    )
    torch.manual_seed(9)
    w = [p.detach().clone().requires_grad_() for p in model.parameters()]
    anchor, names = [p.detach().clone() for p in w], [name for name, _ in model.named_parameters()]
    batches, losses = [*loader, *loader], []
    torch.manual_seed(9)
    order = iter(loader)
    for step in range(10):
        try:
            x, y = next(order)
        except StopIteration:
            order = iter(loader)
            x, y = next(order)
        output = torch.func.functional_call(model, dict(zip(names, w, strict=True)), (x,))
        loss = torch.nn.functional.cross_entropy(output, y)
        gradients = torch.autograd.grad(loss, w)
        with torch.no_grad():
            for p, p0, g in zip(w, anchor, gradients, strict=True):
                drift = (g * 3.0).add_(p - p0, alpha=10.0)
                noise = torch.normal(mean=0.0, std=1.0, size=p.shape)
                p.add_(drift, alpha=-0.5 * 1e-2).add_(noise, alpha=1e-2**0.5)
        if step >= 2 and (step - 1) % 2 == 0:
            losses.append(loss.detach())
    assert len(batches) == 14
    assert torch.equal(estimator.losses[0], torch.stack(losses))


def test_model_and_randomness_are_the_callers() -> None:
    model, loader = recorded.problem()
    model.eval()
    before, state = [p.detach().clone() for p in model.parameters()], torch.get_rng_state()
    for exact in (True, False):
        estimate_learning_coeff(
            model, loader, evaluate=evaluate_ce, num_draws=2, num_chains=2, seed=1, verbose=False, exact=exact
        )
    assert not model.training
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_seed_the_global_generator_moves_on() -> None:
    model, loader = recorded.problem()
    for exact in (True, False):

        def run(exact: bool = exact) -> float:
            return estimate_learning_coeff(
                model, loader, evaluate=evaluate_ce, num_draws=2, num_chains=2, verbose=False, exact=exact
            )

        torch.manual_seed(3)
        first, second = run(), run()
        torch.manual_seed(3)
        assert run() == first != second


class Watching(SamplerCallback):
    """Keeps the names it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []
        self.names: set[str] = set()

    def __call__(self, chain: int, draw: int, **kwargs: Any) -> None:
        self.seen.append((chain, draw))
        self.names |= kwargs.keys()


def test_what_callbacks_are_shown() -> None:
    model, loader = recorded.problem()
    watching = Watching()
    results = sample(
        model,
        loader,
        {"mine": watching, "": LLCEstimator(2, 3, 0.0, nbeta=3.0)},
        evaluate_ce,
        num_draws=3,
        num_chains=2,
        seed=0,
        verbose=False,
        optimizer_kwargs={"nbeta": 3.0},
    )
    assert watching.seen == [(c, d) for c in range(2) for d in range(3)]
    assert {"model", "loss", "optimizer", "data", "results", "i", "seed", "num_draws", "device"} <= watching.names
    assert results["mine"] == {}
    assert "llc/mean" in results


def test_an_initial_loss_of_zero_is_taken() -> None:
    model, loader = recorded.problem()
    found = estimate_learning_coeff_with_summary(
        model,
        loader,
        evaluate=evaluate_ce,
        num_draws=2,
        num_chains=2,
        init_loss=0.0,
        seed=0,
        online=True,
        verbose=False,
    )
    assert found["init_loss"] == 0.0
    assert (found["llc/trace"] > 0).all()  # a cross-entropy is positive


@pytest.mark.parametrize("exact", [True, None])
def test_nan_is_told_with_chain_and_draw(exact: bool | None) -> None:
    """Weights turn infinite after a hundred forwards, or are pushed there by a step that is far too long."""
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x[:, :1]), batch_size=10)
    model, lr = (DummyNaNModel(), 1e-4) if exact else (torch.nn.Linear(2, 1), 1e9)
    with pytest.raises(RuntimeError, match=r"NaN detected in loss at chain 0, draw \d+"):
        estimate_learning_coeff(
            model,
            loader,
            evaluate=evaluate_mse,
            optimizer_kwargs={"lr": lr, "nbeta": 2.0},
            num_draws=150,
            num_chains=2,
            seed=0,
            verbose=False,
            exact=exact,
        )


def test_wrong_arguments_are_told_before_the_first_step() -> None:
    model, loader = recorded.problem()
    watching = Watching()

    def run(**keywords: Any) -> None:
        sample(model, loader, [watching], evaluate_ce, num_draws=2, num_chains=2, verbose=False, **keywords)

    with pytest.raises(ValueError, match="Length of seed list must match number of chains"):
        run(seed=[1])
    with pytest.raises(ValueError, match="temperature and nbeta"):
        run(optimizer_kwargs={"nbeta": 1.0, "temperature": 2.0})
    with pytest.raises(ValueError, match="grad_accum_steps must be a whole number >= 1, got 0"):
        run(grad_accum_steps=0, init_loss=1.0)
    with pytest.raises(ValueError, match="gpu_idxs"):
        run(gpu_idxs=[0])
    with pytest.raises(ValueError, match=r"missing \['0.bias'"):
        run(optimize_over_per_model_param={"0.weight": torch.ones(4, 3)})
    assert watching.seen == []


def test_derivative_callbacks_come_after_their_base() -> None:
    base = OnlineLLCEstimator(2, 3, 0.5, nbeta=2.0)
    derived = OnlineLossStatistics(base)
    assert validate_callbacks([base, derived])
    with pytest.raises(ValueError, match="must be called after"):
        validate_callbacks([derived, base])
    with pytest.raises(ValueError, match="was not passed"):
        validate_callbacks([derived])
    with pytest.raises(NotOverridden, match="must define __call__"):
        SamplerCallback()()
    with pytest.raises(ValueError, match="provide a value for nbeta"):
        LLCEstimator(1, 1, 0.0)
