"""sghmc and sgnht beyond what every method is tested for: their limits, the box, masks, the thermostat."""

import copy
import math

import pytest
import torch
from langevin_cases import ISAS, SIZES, WIDEST, make_case

from sltfast import _C

METHODS = ("sghmc", "sgnht")
BACKENDS = ("native", "reference")


@pytest.fixture(autouse=True)
def _widest_isa_afterwards():
    yield
    _C.use_isa(WIDEST)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_friction_is_sgld_bit_for_bit(isa, masked, dtype) -> None:
    _C.use_isa(isa)
    case = make_case(method="sghmc", masked=masked, dtype=dtype)
    plain = copy.deepcopy(case)
    del plain.keywords["momentum"]
    plain.keywords["method"] = "sgld"
    for backend in BACKENDS:
        ours, sgld = case.run(backend, friction=1.0), plain.run(backend)
        assert torch.equal(ours.w.nan_to_num(), sgld.w.nan_to_num())
        # sums of two compilations of one loop: gcc was seen to round the last digit of one differently
        last = torch.finfo(dtype).eps * sgld.keywords["metrics"].abs().max()
        assert torch.allclose(ours.keywords["metrics"], sgld.keywords["metrics"], rtol=0, atol=float(last))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("friction", [0.05, 0.7])
def test_momentum_is_the_move_and_obeys_its_equation(backend, friction) -> None:
    case = make_case(method="sghmc", dtype=torch.float64, external_noise=True)
    after = case.run(backend, friction=friction)
    lr, n_beta, gamma, decay, sigma = case.hyper[:, :5].T[..., None]
    for s, (w, old) in enumerate(zip(after.rows(), case.rows(), strict=True)):
        m, before = (c.rows(c.keywords["momentum"])[s] for c in (after, case))
        d = n_beta * case.grads[s] + gamma * (old - case.anchors[s]) + decay * old
        noise = (friction * lr).sqrt() * sigma * case.keywords["noise"][s]
        # a dozen roundings of terms below 10
        assert torch.allclose(m, (1 - friction) * before - lr / 2 * d + noise, rtol=0, atol=12 * 10 * 2.0**-53)
        assert torch.allclose(w, old + m, rtol=4 * 2.0**-53, atol=0)


def test_default_friction_is_a_tenth() -> None:
    case = make_case(method="sghmc")
    assert torch.equal(case.run().w.nan_to_num(), case.run(friction=0.1).w.nan_to_num())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("method", METHODS)
def test_a_clamped_coordinate_turns_round(isa, method) -> None:
    _C.use_isa(isa)
    free = make_case(method=method)
    case = make_case(method=method, box=0.02)
    turned = 0
    for backend in BACKENDS:
        loose, boxed = free.run(backend), case.run(backend)
        for s, anchor in enumerate(case.anchors):
            m, held = (c.rows(c.keywords["momentum"])[s] for c in (loose, boxed))
            outside = (loose.rows()[s] < anchor - 0.02) | (loose.rows()[s] > anchor + 0.02)
            assert torch.equal(held, torch.where(outside, -m, m))
            turned += int(outside.sum())
    assert turned > 1000
    if method == "sgnht":  # a reversed momentum is as hot
        ours, theirs = case.run().keywords["thermostat"], free.run().keywords["thermostat"]
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_masked_coordinates_keep_their_momentum_and_do_not_heat(backend, method) -> None:
    case = make_case(method=method, masked=True)
    for m, mask in zip(case.rows(case.keywords["momentum"]), case.keywords["masks"], strict=True):
        m[:, ~mask] = math.nan
    after = case.run(backend)
    assert after.keywords["alive"].all()
    heat, moving = torch.zeros(3, dtype=torch.float64), 0
    for m, mask in zip(after.rows(after.keywords["momentum"]), case.keywords["masks"], strict=True):
        assert m[:, ~mask].isnan().all()
        heat += m[:, mask].double().square().sum(1)
        moving += int(mask.sum())
    if method == "sgnht":
        zeta = case.keywords["thermostat"]
        expected = zeta + heat / moving - case.hyper[:, 0] / (2 - zeta)
        # a lane sums at most 64 squares in float32
        tolerance = 65 * 2**-24 * float(heat.max() / moving)
        assert torch.allclose(after.keywords["thermostat"], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_thermostat_takes_the_frictions_place_and_stays_where_nothing_moves(backend) -> None:
    case = make_case(method="sgnht")
    case.keywords["thermostat"].fill_(0.25)
    hot = case.run(backend, friction=0.25)
    cold = case.run(backend, friction=0.25, method="sghmc", thermostat=None)
    assert torch.equal(hot.w.nan_to_num(), cold.w.nan_to_num())
    still = make_case(method="sgnht", masked=True)
    for mask in still.keywords["masks"]:
        mask.fill_(False)
    assert torch.equal(still.run(backend).keywords["thermostat"], still.keywords["thermostat"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_broken_momentum_kills(backend) -> None:
    case = make_case(method="sgnht")
    case.rows(case.keywords["momentum"])[-1][1, 5] = math.nan
    after = case.run(backend)
    assert after.keywords["alive"].tolist() == [True, False, True]
    assert after.rows()[-1][1, 5] == case.rows()[-1][1, 5]
    assert after.keywords["thermostat"][1] == case.keywords["thermostat"][1]


@pytest.mark.parametrize("method", METHODS)
def test_a_dead_chain_keeps_its_state(method) -> None:
    for backend in BACKENDS:
        case = make_case(SIZES, method=method)
        case.keywords["alive"][1] = False
        after = case.run(backend)
        assert torch.equal(after.keywords["momentum"][1].nan_to_num(), case.keywords["momentum"][1].nan_to_num())
        if method == "sgnht":
            assert after.keywords["thermostat"][1] == case.keywords["thermostat"][1]
