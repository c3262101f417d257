"""The fastest pass, chosen by times that are made up."""

import pytest
import torch
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.sampler import pace
from sltfast.sampler.pace import Candidate, candidates, fastest, seconds_of
from sltfast.sampler.sizing import Sizing


class Times:
    """Seconds of a chain-step, by chains of a pass (and of one chain after another)."""

    def __init__(self, stacked, sequential=1.0):
        self.stacked, self.sequential, self.asked = stacked, sequential, []

    def __call__(self, option, count):
        self.asked.append(option)
        each = self.sequential if option.engine == "sequential" else self.stacked[option.chains]
        return [3 * each * option.chains] + [each * option.chains] * (count - 1)  # the first is cold


MANY = 100_000


def chosen(stacked, *, steps=MANY, others=False, sequential=1.0):
    times = Times(stacked, sequential)
    result = fastest(candidates("stacked", max(stacked), others=others), steps, times)
    return result, times.asked


def test_candidates_are_halves():
    assert candidates("stacked", 12, others=False) == [Candidate("stacked", n) for n in (12, 6, 3, 1)]
    assert candidates("vmap", 2, others=True)[-1] == Candidate("sequential", 1)
    assert candidates("sequential", 1, others=True) == [Candidate("sequential", 1)]


def test_the_fastest_is_taken():
    result, _ = chosen({8: 0.5, 4: 0.3, 2: 0.4, 1: 0.9})
    assert result.taken == Candidate("stacked", 4)
    assert result.why == "measured fastest"
    assert result.milliseconds[Candidate("stacked", 4)] == pytest.approx(300)


def test_halving_ends_where_it_gets_slower():
    result, asked = chosen({8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1})
    assert result.taken == Candidate("stacked", 8)
    assert asked == [Candidate("stacked", 8), Candidate("stacked", 4)]


def test_ties_go_to_the_larger_pass():
    result, asked = chosen({8: 0.3, 4: 0.29, 2: 0.295, 1: 0.3})
    assert result.taken == Candidate("stacked", 8)
    assert len(asked) == 4


@pytest.mark.parametrize(("sequential", "expected"), [(0.2, "sequential"), (0.6, "stacked")])
def test_one_chain_after_another_may_win(sequential, expected):
    result, _ = chosen({2: 0.5, 1: 0.5}, others=True, sequential=sequential)
    assert result.taken.engine == expected


def test_a_run_of_few_steps_is_not_measured():
    result, asked = chosen({8: 0.5, 4: 0.3, 2: 0.4, 1: 0.9}, steps=8 * 100)
    assert (result.taken, result.why, asked) == (Candidate("stacked", 8), "too few steps to measure others", [])


def test_a_short_run_takes_all_chains():
    result, asked = chosen({8: 1e-6, 4: 1e-9, 2: 1e-9, 1: 1e-9})
    assert (result.taken, result.why) == (Candidate("stacked", 8), "a short run")
    assert asked == [Candidate("stacked", 8)]


def test_measuring_takes_a_small_part_of_the_run():
    for steps in (8 * 150, 8 * 300, 8 * 1000):
        times = Times({8: 0.5, 4: 0.49, 2: 0.48, 1: 0.47}, 0.5)
        warm = []

        def measure(option, count, times=times, warm=warm):
            seconds = [seconds_ / 3 if i == 0 else seconds_ for i, seconds_ in enumerate(times(option, count))]
            warm.extend(seconds)
            return seconds

        fastest(candidates("stacked", 8, others=True), steps, measure)
        assert 0 < sum(warm) <= pace.SHARE * steps * 0.5 * (1 + 1e-9)


def test_a_clock_is_read_around_each_step():
    ticks, done = iter([1.0, 1.5, 2.0, 4.0]), []
    assert seconds_of(lambda: done.append(1), 2, lambda: next(ticks)) == [0.5, 2.0]
    assert len(done) == 2


@pytest.mark.parametrize(("sequential", "engine", "together"), [(0.1, "sequential", 1), (1.0, "stacked", 2)])
def test_the_measured_choice_is_recorded_and_changes_rounding_alone(monkeypatch, sequential, engine, together):
    settings = {"loss_fn": regression_loss, "lr": 1e-5, "n_beta": 5.0, "batch_size": 4, "progress": False}
    settings |= {"num_chains": 4, "num_draws": 1000}
    plain = sltfast.sample(Mlp(), regression_data(), chains_per_pass=4, **settings)
    times = Times({4: 0.5, 2: 0.2, 1: 0.4}, sequential)
    monkeypatch.setattr(Sizing, "_seconds", lambda self, cells, option, count: times(option, count))
    tree = sltfast.sample(Mlp(), regression_data(), **settings)
    plan = tree.attrs["sltfast"]["plan"]
    assert (plan["engine"], plan["chains_per_pass"]) == (engine, together)
    assert plan["milliseconds_per_chain_step"]["stacked 2"] == pytest.approx(200)
    assert plan["expected_seconds"] == pytest.approx(min(0.2, sequential) * 4 * 1000)
    # a step rounds a weight once in float32, and nothing makes the roundings of 1000 steps grow
    rounding = 1000 * torch.finfo(torch.float32).eps
    found, expected = (torch.tensor(one["loss"].values) for one in (tree, plain))
    torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)


def test_steps_are_timed_on_engines_that_leave_nothing_behind():
    """With real times: nothing is asserted of them but that the run is the same."""
    settings = {"loss_fn": regression_loss, "lr": 1e-5, "n_beta": 5.0, "batch_size": 4, "progress": False}
    settings |= {"num_chains": 4, "num_draws": 200, "sampling_method": "rmsprop_sgld"}
    timed = sltfast.sample(Mlp(), regression_data(), engine="stacked", **settings)
    assert timed.attrs["sltfast"]["plan"]["chains_per_pass_reason"] == "a short run"
    plain = sltfast.sample(Mlp(), regression_data(), engine="stacked", chains_per_pass=4, **settings)
    assert (timed["loss"].values == plain["loss"].values).all()
