"""Chains that die: which, when, and what is left of them."""

import math

import pytest
import torch
from langevin_cases import ISAS, STATE, WIDEST, make_case

from sltfast import _C, ops

BACKENDS = ["native", "reference"]


@pytest.fixture(autouse=True)
def _widest_isa_afterwards():
    yield
    _C.use_isa(WIDEST)


def full_case(method: str = "rmsprop_sgld"):
    return make_case(method=method, low_dtype=torch.bfloat16)


def assert_untouched(after, before, c: int) -> None:
    assert torch.equal(after.w[c].nan_to_num(), before.w[c].nan_to_num())
    assert torch.equal(after.keywords["v"][c].nan_to_num(), before.keywords["v"][c].nan_to_num())
    for copy in after.keywords["low"]:
        assert copy[c].isnan().all()
    assert after.keywords["metrics"][c].isnan().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_dead_chain_is_not_touched(backend, dtype) -> None:
    case = full_case()
    case.keywords["alive"] = torch.tensor([1, 0, 1], dtype=dtype)
    case.keywords["death_step"] = torch.tensor([-1, 2, -1])
    case.grads[3].view(3, -1)[1] = math.nan
    after = case.run(backend)
    assert_untouched(after, case, 1)
    assert after.keywords["alive"].tolist() == [1, 0, 1]
    assert after.keywords["death_step"].tolist() == [-1, 2, -1]
    assert after.keywords["metrics"][[0, 2]].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_chain_with_a_broken_loss_dies_where_it_is(backend, loss) -> None:
    case = full_case()
    after = case.run(backend, loss=torch.tensor([1.0, 2.0, loss], dtype=torch.float64))
    assert_untouched(after, case, 2)
    assert after.keywords["alive"].tolist() == [True, True, False]
    assert after.keywords["death_step"].tolist() == [-1, -1, int(case.step)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("method", ops.METHODS)
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 500, 2050])
@pytest.mark.parametrize("box", [math.inf, 0.05])
def test_broken_coordinate_stays_and_kills_its_chain_alone(isa, method, broken, position, box) -> None:
    _C.use_isa(isa)
    case = make_case(method=method, box=box)
    case.grads[-1].view(3, -1)[1, position] = broken
    healthy = make_case(method=method, box=box).run()
    for backend in BACKENDS:
        after = case.run(backend)
        last = after.rows()[-1]
        assert last[1, position] == case.rows()[-1][1, position]
        assert last.isfinite().all()
        assert after.keywords["alive"].tolist() == [True, False, True]
        assert after.keywords["death_step"].tolist() == [-1, int(case.step), -1]
        for name in STATE[method]:
            kept = after.rows(after.keywords[name])[-1][1, position]
            assert kept == case.rows(case.keywords[name])[-1][1, position]
        if method == "sgnht":
            now, before = after.keywords["thermostat"], case.keywords["thermostat"]
            assert (now != before).tolist() == [True, False, True]
    after = case.run("native")
    expected = healthy.w.clone()
    expected[1, case.segments[-1, 0] + position] = case.rows()[-1][1, position]
    assert torch.equal(after.w.nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_moment_that_overflows_kills_although_the_step_is_finite(backend) -> None:
    case = make_case(method="rmsprop_sgld")
    case.grads[-1].view(3, -1)[1, 7] = 1e25  # g² = 1e50 is infinite in float32, so G = 0
    after = case.run(backend)
    assert after.keywords["alive"].tolist() == [True, False, True]
    assert torch.equal(after.rows(after.keywords["v"])[-1][1, 7], case.rows(case.keywords["v"])[-1][1, 7])


@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_gradient_of_a_masked_coordinate_is_not_read(backend) -> None:
    case = make_case(masked=True, method="rmsprop_sgld")
    for grad, mask in zip(case.grads, case.keywords["masks"], strict=True):
        grad.masked_fill_(~mask, math.nan)
    after = case.run(backend)
    assert after.keywords["alive"].all()
    assert after.keywords["metrics"].isfinite().all()
    for w, old, mask in zip(after.rows(), case.rows(), case.keywords["masks"], strict=True):
        assert torch.equal(w[:, ~mask], old[:, ~mask])


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_health_tensors_a_broken_coordinate_only_stays(backend) -> None:
    case = make_case()
    case.grads[-1].view(3, -1)[0, 5] = math.nan
    del case.keywords["alive"], case.keywords["death_step"]
    after = case.run(backend)
    assert after.rows()[-1].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_do(backend) -> None:
    empty = make_case(())
    assert empty.run(backend).keywords["alive"].all()
    nobody = make_case(chains=0)
    assert nobody.run(backend).w.shape == nobody.w.shape
    all_dead = make_case()
    all_dead.keywords["alive"].zero_()
    assert torch.equal(all_dead.run(backend).w.nan_to_num(), all_dead.w.nan_to_num())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ops.METHODS)
def test_what_is_not_finite_where_nothing_moves_does_not_count(backend, method) -> None:
    case = make_case((63,), chains=2, method=method, masked=True)
    stays = ~case.keywords["masks"][0]
    states = [case.w, *(case.keywords[name] for name in ("v", "momentum") if case.keywords.get(name) is not None)]
    for state in states:
        case.rows(state)[0][:, stays] = math.nan
    after = case.run(backend)
    assert after.keywords["alive"].all()
    assert torch.isfinite(after.keywords["metrics"]).all()
    assert torch.isfinite(after.rows()[0][:, ~stays]).all()
    assert torch.isnan(after.rows()[0][:, stays]).all()
