"""`triton_langevin_step_`: chains that die, and the op as torch sees it."""

import math
import re

import pytest
import torch
from langevin_cases import make_case, positional

from sltfast import ops

OP = torch.ops.sltfast.triton_langevin_step_.default


def full_case():
    return make_case((3, 40), method="rmsprop_sgld", low_dtype=torch.bfloat16)


def assert_untouched(after, before, c: int) -> None:
    assert torch.equal(after.w[c].nan_to_num(), before.w[c].nan_to_num())
    assert torch.equal(after.keywords["v"][c].nan_to_num(), before.keywords["v"][c].nan_to_num())
    for low in after.keywords["low"]:
        assert low[c].isnan().all()
    assert after.keywords["metrics"][c].isnan().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_dead_chain_is_not_touched(dtype) -> None:
    case = full_case()
    case.keywords["alive"] = torch.tensor([1, 0, 1], dtype=dtype)
    case.keywords["death_step"] = torch.tensor([-1, 2, -1])
    case.grads[1].view(3, -1)[1] = math.nan
    after = case.run("triton")
    assert_untouched(after, case, 1)
    assert after.keywords["alive"].tolist() == [1, 0, 1]
    assert after.keywords["death_step"].tolist() == [-1, 2, -1]
    assert after.keywords["metrics"][[0, 2]].isfinite().all()


@pytest.mark.parametrize(("loss", "empty"), [(math.nan, False), (math.inf, True), (-math.inf, False)])
def test_chain_with_a_broken_loss_dies_where_it_is(loss, empty) -> None:
    case = make_case((), method="rmsprop_sgld", low_dtype=torch.bfloat16) if empty else full_case()
    after = case.run("triton", loss=torch.tensor([1.0, 2.0, loss], dtype=torch.float64))
    assert_untouched(after, case, 2)
    assert after.keywords["alive"].tolist() == [True, True, False]
    assert after.keywords["death_step"].tolist() == [-1, -1, int(case.step)]


@pytest.mark.parametrize("method", ops.METHODS)
@pytest.mark.parametrize(("broken", "position"), [(math.nan, 0), (math.inf, 139)])
def test_broken_coordinate_stays_and_kills_its_chain_alone(method, broken, position) -> None:
    case = make_case((5, 140), method=method)
    healthy = case.run("triton")
    case.grads[-1].view(3, -1)[1, position] = broken
    after = case.run("triton")
    assert after.keywords["alive"].tolist() == [True, False, True]
    assert after.keywords["death_step"].tolist() == [-1, int(case.step), -1]
    expected = healthy.w.clone()
    expected[1, case.segments[-1, 0] + position] = case.rows()[-1][1, position]
    assert torch.equal(after.w.nan_to_num(), expected.nan_to_num())
    if method == "sgnht":
        assert after.keywords["thermostat"][1] == case.keywords["thermostat"][1]


def test_broken_gradient_of_a_masked_coordinate_is_not_read() -> None:
    case = make_case((5, 600), masked=True, method="rmsprop_sgld")
    for grad, mask in zip(case.grads, case.keywords["masks"], strict=True):
        grad.masked_fill_(~mask, math.nan)
    after = case.run("triton")
    assert after.keywords["alive"].all()
    assert after.keywords["metrics"].isfinite().all()


def test_without_health_tensors_a_broken_coordinate_only_stays() -> None:
    case = make_case((5, 63), measured=False)
    case.grads[-1].view(3, -1)[0, 5] = math.nan
    del case.keywords["alive"], case.keywords["death_step"]
    assert case.run("triton").rows()[-1].isfinite().all()


def test_nothing_to_do() -> None:
    assert make_case(()).run("triton").keywords["alive"].all()
    assert (make_case(()).run("triton").keywords["metrics"] == 0).all()
    nobody = make_case((5,), chains=0)
    assert nobody.run("triton").w.shape == nobody.w.shape
    all_dead = make_case((5, 63))
    all_dead.keywords["alive"].zero_()
    assert torch.equal(all_dead.run("triton").w.nan_to_num(), all_dead.w.nan_to_num())


@pytest.mark.parametrize("method", ops.METHODS)
def test_opcheck(method) -> None:
    case = make_case((5, 63), chains=2, method=method, low_dtype=torch.bfloat16, masked=True, external_noise=True)
    # the schema test compares with what was there before: poison would differ from itself
    case.w.nan_to_num_()
    for name in ("metrics", "v", "momentum"):
        if case.keywords.get(name) is not None:
            case.keywords[name].nan_to_num_()
    for low in case.keywords["low"]:
        low.zero_()
    torch.library.opcheck(OP, positional(case))


def test_compiles_in_one_graph() -> None:
    case = make_case((5, 63), chains=2)
    expected = case.run("triton")

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(w, grads, metrics):
        ops.langevin_step_(
            w, grads, case.anchors, case.segments, case.hyper, case.step, case.chains,
            seed=case.keywords["seed"], metrics=metrics, backend="triton",
        )  # fmt: skip
        return w * 2

    doubled = step(case.w, case.grads, case.keywords["metrics"])
    assert torch.equal(case.w.nan_to_num(), expected.w.nan_to_num())
    assert torch.equal(doubled.nan_to_num(), (expected.w * 2).nan_to_num())
    assert torch.equal(case.keywords["metrics"], expected.keywords["metrics"])


def test_bad_input_is_refused_before_anything_is_written() -> None:
    case = make_case((5, 63))
    case.grads[1] = case.grads[1][:2]
    before = case.w.clone()
    with pytest.raises(ValueError, match=re.escape("grads[1] must hold 189 values")):
        OP(*positional(case))
    assert torch.equal(case.w.nan_to_num(), before.nan_to_num())


def test_auto_on_a_cpu_is_not_the_interpreter() -> None:
    assert ops.backend.choose("langevin_step_", "auto", torch.device("cpu")) == "native"
    assert "triton" not in ops.backend.refusals("langevin_step_", "cpu")
