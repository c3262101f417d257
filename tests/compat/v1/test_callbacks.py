"""Callbacks against what they say they compute."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sltfast.compat.devinterp.utils import NoBatchSize
from sltfast.compat.devinterp_v1.mechinterp.activations import ActivationProbe
from sltfast.compat.devinterp_v1.slt.cov import (
    AccumulatorClosed,
    BetweenLayerCovarianceAccumulator,
    CovarianceAccumulator,
    WithinHeadCovarianceAccumulator,
)
from sltfast.compat.devinterp_v1.slt.llc import OnlineLLCEstimator
from sltfast.compat.devinterp_v1.slt.loss import OnlineLossStatistics
from sltfast.compat.devinterp_v1.slt.mala import mala_acceptance_probability
from sltfast.compat.devinterp_v1.slt.norms import WeightNorm
from sltfast.compat.devinterp_v1.slt.trace import OnlineTraceStatistics
from sltfast.compat.devinterp_v1.slt.wbic import OnlineWBICEstimator
from sltfast.compat.devinterp_v1.utils import (
    cycle,
    default_nbeta,
    plot_trace,
    prepare_input,
    split_results,
)

pytestmark = pytest.mark.filterwarnings("ignore::sltfast.compat.defects.CompatWarning")
ROUNDING = 1e-5  # relative: sums of tens of float32 terms


def drawn(count: int = 30) -> list[nn.Module]:
    torch.manual_seed(0)
    models = []
    for _ in range(count):
        model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 4, bias=False))
        for p in model.parameters():
            p.data.normal_()
        models.append(model)
    return models


def test_covariance_and_its_eigenvectors() -> None:
    models = drawn()
    accumulator = CovarianceAccumulator(6, [lambda model: model[0].weight])
    for model in models:
        accumulator(model=model, chain=0)
    accumulator.finalize()
    found = accumulator.get_results()
    expected = np.cov(np.stack([m[0].weight.detach().numpy().ravel() for m in models]).T, ddof=0)
    np.testing.assert_allclose(found["matrix"], expected, atol=ROUNDING * 5)  # moments of size 1, thirty of them
    assert found["evals"].shape == (3,)
    assert found["evecs"].shape == (3, 6)
    for value, vector in zip(found["evals"], found["evecs"], strict=True):
        np.testing.assert_allclose(found["matrix"] @ vector, value * vector, atol=ROUNDING * 5)
    with pytest.raises(AccumulatorClosed, match="finalizing"):
        accumulator.accumulate(models[0])
    accumulator.reset()
    assert accumulator.num_draws == 0
    assert not accumulator.first_moment.any()


def test_covariances_of_heads_and_of_pairs() -> None:
    models = drawn()
    heads = WithinHeadCovarianceAccumulator(2, 3, [lambda model: list(model[0].weight)], num_evals=2)
    pairs = BetweenLayerCovarianceAccumulator(
        models[0], {"ab": ("a", "b")}, a=lambda m: m[0].weight, b=lambda m: m[1].weight
    )
    for model in models:
        heads(model=model, draw=0)
        pairs(model=model, draw=0)
    heads.finalize()
    pairs.finalize()
    first = np.stack([m[0].weight.detach().numpy() for m in models])
    other = np.stack([m[1].weight.detach().numpy().ravel() for m in models])
    of_heads = heads.get_results()
    for head in range(2):
        np.testing.assert_allclose(of_heads["matrix"][0, head], np.cov(first[:, head].T, ddof=0), atol=5 * ROUNDING)
    assert of_heads["evecs"].shape == (2, 1, 2, 3)
    flat = first.reshape(30, -1)
    expected = (flat - flat.mean(0)).T @ (other - other.mean(0)) / 30
    of_pair = pairs.get_results()["ab"]
    np.testing.assert_allclose(of_pair["matrix"], expected, atol=5 * ROUNDING)
    np.testing.assert_allclose(of_pair["evals"], np.linalg.svd(expected)[1][:3], atol=5 * ROUNDING)
    assert (pairs.num_weights, heads.num_weights) == (14, 6)


def test_statistics_of_losses_and_traces() -> None:
    losses = torch.tensor([[1.0, 0.5, 3.0], [2.0, 2.5, 0.0]])
    base = OnlineLLCEstimator(2, 3, 1.5, nbeta=2.0)
    statistics, wbic = OnlineLossStatistics(base), OnlineWBICEstimator(2, 3, 10)
    running = OnlineTraceStatistics(base, "losses")
    for chain in range(2):
        for draw in range(3):
            for callback in (base, statistics, wbic, running):
                callback(chain=chain, draw=draw, loss=losses[chain, draw])
    for one in (base, statistics, wbic):
        one.finalize()
    found = statistics.get_results()
    noise = math.sqrt(0.5)  # of 1 and 2, ddof 1
    np.testing.assert_allclose(found["loss/z_scores"], (losses.numpy() - 1.5) / noise, rtol=ROUNDING)
    np.testing.assert_allclose(found["loss/percent_neg_steps"], [[1, 1, 2 / 3], [0, 0, 1 / 3]], rtol=ROUNDING)
    # means so far less 1.5: −0.5, −0.75, 0 and 0.5, 0.75, 0
    np.testing.assert_allclose(found["loss/percent_mean_neg_steps"], [[1, 1, 2 / 3], [0, 0, 0]], rtol=ROUNDING)
    np.testing.assert_allclose(
        found["loss/percent_thresholded_neg_steps"], [[0, 1 / 2, 1 / 3], [0, 0, 1 / 3]], rtol=ROUNDING
    )
    np.testing.assert_allclose(wbic.get_results()["wbic/trace"][0], [10, 7.5, 15], rtol=ROUNDING)
    np.testing.assert_allclose(base.get_results()["llc/means"], 2 * (losses.mean(0).numpy() - 1.5), rtol=ROUNDING)
    traced = running.get_results()
    np.testing.assert_allclose(traced["losses/draw/std"], losses.std(0).numpy(), rtol=ROUNDING)
    np.testing.assert_allclose(traced["losses/chain/mean"][:, 2], losses.mean(1).numpy(), rtol=ROUNDING)
    assert np.isnan(traced["losses/chain/std"][:, 0]).all()
    assert running.sample_at_draw()["losses/draw/mean"] == pytest.approx(1.5)
    with pytest.raises(ValueError, match="must have attribute llamas"):
        OnlineTraceStatistics(base, "llamas")


@pytest.mark.parametrize("p", [1, 2, 3, float("inf")])
def test_norms_are_those_of_all_coordinates(p: float) -> None:
    (model,) = drawn(1)
    norm = WeightNorm(1, 1, p_norm=p)
    norm(chain=0, draw=0, model=model)
    whole = torch.cat([w.detach().flatten() for w in model.parameters()])
    assert float(norm.weight_norms) == pytest.approx(float(torch.linalg.vector_norm(whole, p)), rel=ROUNDING)


def test_acceptance_obeys_detailed_balance() -> None:
    """π(w)·q(w′|w)·A(w → w′) is the same with w and w′ exchanged, for U = |w|²/2 and its own proposals."""
    w, moved, lr = torch.tensor([0.3, -1.0]), torch.tensor([0.9, 0.2]), 0.7

    def potential(x: torch.Tensor) -> torch.Tensor:
        return x.square().sum() / 2

    def flow(a: torch.Tensor, b: torch.Tensor) -> float:
        accepted = mala_acceptance_probability(a, a, potential(a), b, b, potential(b), lr)
        proposed = torch.exp(-((b - a + lr / 2 * a) ** 2).sum() / (2 * lr))
        return float(torch.exp(-potential(a)) * proposed * accepted)

    assert flow(w, moved) == pytest.approx(flow(moved, w), rel=ROUNDING)
    assert math.isnan(mala_acceptance_probability(w, w, potential(w), w, w, torch.tensor(torch.nan), lr))


def test_activations() -> None:
    (model,) = drawn(1)
    x = torch.ones(5, 3)
    probe, one = ActivationProbe(model, "0"), ActivationProbe(model, "1.2")
    with probe.watch(), one.watch():
        output = model(x)
    assert torch.equal(probe.activation, model[0](x))
    assert torch.equal(one.activation, output[:, 2])
    model(2 * x)
    assert torch.equal(probe.activation, model[0](x))
    with pytest.raises(ValueError, match="neither an attribute"):
        ActivationProbe(model, "nowhere")


def test_small_things(tmp_path: Path) -> None:
    assert default_nbeta(32) == pytest.approx(32 / math.log(32))
    assert default_nbeta(16, grad_accum_steps=2) == default_nbeta(32)
    with pytest.warns(UserWarning, match="default value of 1"):
        assert default_nbeta(1) == 1
    with pytest.raises(NoBatchSize, match=r"got \[1\]"):
        default_nbeta([1])  # type: ignore[arg-type]
    assert list(cycle([1, 2, 3], limit=5)) == [1, 2, 3, 1, 2]
    assert list(cycle([])) == []
    loss = torch.tensor(1.0)
    assert split_results(loss) == (loss, None)
    assert split_results((loss, 3)) == (loss, (3,))
    assert split_results({"loss": loss, "a": 2}) == (loss, {"a": 2})
    with pytest.raises(ValueError, match="it must return a loss"):
        split_results("loss")
    moved = prepare_input({"a": [loss, "text"]}, "cpu")
    assert moved == {"a": [loss, "text"]}


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_a_trace_is_plotted() -> None:
    plt = pytest.MonkeyPatch()
    import matplotlib.pyplot as pyplot

    shown: list[int] = []
    plt.setattr(pyplot, "show", lambda: shown.append(len(pyplot.gca().lines)))
    plot_trace(np.ones((2, 4)), "loss", true_lc=1.0)
    plt.undo()
    pyplot.close("all")
    assert shown == [4]  # the true value, two chains, their mean
