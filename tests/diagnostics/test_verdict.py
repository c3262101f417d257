"""Error bars and verdicts on traces whose truth is known."""

import math

import numpy as np
import pytest
from autoregressive import ar1

from sltfast.diagnostics import Reading, mean_estimate, suggested_steps, verdict


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_monte_carlo_error_counts_autocorrelation(rho):
    estimate = mean_estimate(ar1(rho))
    exact = math.sqrt((1 + rho) / (1 - rho) / 16000)
    # ESS is itself estimated from about 16000(1 − ρ)/(1 + ρ) effective draws: within 15 % here
    assert estimate.mcse == pytest.approx(exact, rel=0.15)
    assert estimate.ess == pytest.approx(16000 * (1 - rho) / (1 + rho), rel=0.3)
    assert estimate.rhat < 1.02
    assert estimate.se == max(estimate.mcse, estimate.between)


def test_chains_apart_show_in_rhat_and_error():
    apart = ar1(0.0, draws=400) + 3.0 * np.arange(4)[:, None]
    estimate = mean_estimate(apart)
    assert estimate.rhat > 1.5
    assert estimate.se >= estimate.between == pytest.approx(np.std(3.0 * np.arange(4), ddof=1) / 2, rel=0.05)


def test_one_chain_and_few_draws():
    single = mean_estimate(ar1(0.0, chains=1))
    assert math.isnan(single.between)
    assert math.isnan(single.rhat)
    assert single.se == single.mcse > 0
    few = mean_estimate(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert few.mean == 2.5
    assert math.isnan(few.se)
    assert math.isnan(few.ess)


def test_copies_of_one_chain_have_no_rhat():
    assert math.isnan(mean_estimate(np.tile(ar1(0.5, chains=1, draws=100), (3, 1))).rhat)


def test_a_constant_trace_has_no_error():
    estimate = mean_estimate(np.ones((2, 50)))
    assert (estimate.mean, estimate.mcse) == (1.0, 0.0)


@pytest.mark.parametrize("trace", [np.ones(5), np.ones((2, 0)), np.array([[1.0, math.nan]])])
def test_bad_traces_are_refused(trace):
    with pytest.raises(ValueError, match="a trace must"):
        mean_estimate(trace)


@pytest.mark.parametrize(
    ("trace", "word", "says"),
    [
        (2 + ar1(0.2, draws=800), "converged", "no change"),
        (2 + ar1(0.99, draws=300, seed=1)[:2] * 0.01, "converged|drifting", "raise num_draws|disagree|rises|falls"),
        (2 + ar1(0.0, draws=300) * 0.1 + np.linspace(0, 2, 300), "drifting", "rises.*num_burnin_steps"),
        (2 + ar1(0.0, draws=300) * 0.1 - np.linspace(0, 2, 300), "drifting", "falls"),
        (9 + ar1(0.0, draws=300) + 3.0 * np.arange(4)[:, None], "drifting", "disagree"),
        (-2 + ar1(0.0, draws=300), "drifting", "no minimum"),
        (2 + ar1(0.0, draws=8), "drifting", "too few"),
        (np.exp(np.linspace(0, 20, 300)) + ar1(0.0, draws=300), "diverged", "runs away: .*lower lr"),
        (-np.exp(np.linspace(0, 20, 300)) + ar1(0.0, draws=300), "diverged", "no minimum"),
        (np.linspace(0, 9, 300) + ar1(0.0, draws=300) * 0.1, "drifting", "rises"),
    ],
)
def test_verdicts_name_the_knob(trace, word, says):
    import re

    judged = verdict(trace, dead=0, reading=Reading())
    assert re.fullmatch(word, judged.word), judged
    assert re.search(says, judged.advice), judged


def test_a_dead_chain_is_divergence():
    assert verdict(ar1(0.0, draws=50), dead=1, reading=Reading()).word == "diverged"


def test_few_effective_draws_are_met_with_more_steps_between_them():
    slow = 2 + 0.01 * ar1(0.9, draws=200)
    assert mean_estimate(slow).ess < 100
    advice = verdict(slow, dead=0, reading=Reading()).advice
    steps = int(suggested_steps(mean_estimate(slow).tau))
    assert f"num_steps_bw_draws to {steps}," in advice
    assert "num_draws" in advice
    # the run's draws are that far apart already; and an observable's trace counts draws
    assert "num_steps_bw_draws" not in verdict(slow, dead=0, reading=Reading(between=steps)).advice
    apart = Reading(spacing=5, between=5, sampled=False)
    of_draws = int(suggested_steps(mean_estimate(slow).tau, 5))
    assert f"num_steps_bw_draws to {of_draws}," in verdict(slow, dead=0, reading=apart).advice


def test_an_observable_may_gain_where_the_sampled_loss_may_not():
    below = -2 + ar1(0.0, draws=300)
    assert verdict(below, dead=0, reading=Reading()).word == "drifting"
    assert verdict(below, dead=0, reading=Reading(sampled=False)).word == "converged"
    assert "8 draws are too few" in verdict(below[:, :8], dead=0, reading=Reading(sampled=False)).advice
