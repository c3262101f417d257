"""`triton_langevin_step_` under the interpreter: the bits of the C++ op, the reference within its rounding."""

import copy
import itertools
import math

import pytest
import torch
from langevin_cases import STATE, WIDEST, Case, make_case, poisoned, rounding_bound

from sltfast import ops
from sltfast.triton_kernels import langevin_step, langevin_table

METHODS = ops.METHODS
SIZES = (0, 1, 63, 530)  # across a block of the scalar path, a tile, and their tails
NORMAL_ERROR = 2e-6  # documented distance of a normal from the exact one
# a CPU without fused multiply-add rounds about one in 2^29 of them twice
SAME_BITS = WIDEST != "generic"


def aligned(case: Case) -> Case:
    """The same tensors where every address and element is a multiple of four coordinates: the 16-byte path."""
    packed, offset, element = copy.deepcopy(case), 0, 0
    sizes = case.segments[:, 1].tolist()
    width = sum(n + -n % 4 for n in sizes)
    packed.w = poisoned(len(case.chains), width, dtype=case.w.dtype)
    for name in STATE[case.keywords["method"]]:
        packed.keywords[name] = packed.w.clone()
    for s, (start, n, _, run, stride) in enumerate(case.segments.tolist()):
        packed.segments[s] = torch.tensor([offset, n, element, run, stride])
        packed.w[:, offset : offset + n] = case.w[:, start : start + n]
        for name in STATE[case.keywords["method"]]:
            packed.keywords[name][:, offset : offset + n] = case.keywords[name][:, start : start + n]
        offset += n + -n % 4
        element += 4 * ((n // max(run, 1) + 1) * max(stride, n))
    return packed


def assert_same_step(case: Case, *, same_bits: bool = SAME_BITS) -> Case:
    ours, native, truth = (case.run(backend) for backend in ("triton", "native", "reference"))
    bounds = rounding_bound(case, 0.0 if case.keywords.get("noise") else NORMAL_ERROR)
    for got, want, bound in zip(ours.rows(), truth.rows(), bounds, strict=True):
        error = (got.double() - want.double()).abs()
        assert not (error > bound).any(), f"{(error / bound).max():.2f} times the rounding bound"
    if same_bits:
        for name in ("w", "v", "momentum"):
            got, want = (x.w if name == "w" else x.keywords.get(name) for x in (ours, native))
            if got is not None:
                assert torch.equal(got.nan_to_num(), want.nan_to_num()), name
        for got, want in zip(ours.keywords.get("low", []), native.keywords.get("low", []), strict=True):
            assert torch.equal(got, want)
    for name in ("alive", "death_step"):
        if case.keywords.get(name) is not None:
            assert torch.equal(ours.keywords[name], truth.keywords[name])
    # one rounding for each of the ten halvings of a block, three in each product; the normals' own error
    tolerance = 16 * torch.finfo(case.w.dtype).eps + NORMAL_ERROR
    if case.keywords.get("thermostat") is not None:
        got, want, before = (x.keywords["thermostat"] for x in (ours, truth, case))
        heat = want - before + case.hyper[:, 0] / (2.0 - before)
        assert not ((got - want).abs() > 2 * tolerance * heat).any()
    if case.keywords.get("metrics") is not None:
        got, want = ours.keywords["metrics"], truth.keywords["metrics"]
        scale = want.clone()
        prior = want[:, 2] + want[:, 3]  # a dot product's error is relative to the product of its norms
        scale[:, 6], scale[:, 7], scale[:, 8] = want[:, 0] * prior, want[:, 0] * want[:, 4], prior * want[:, 4]
        assert torch.equal(got.isnan(), want.isnan())
        assert not ((got - want).abs() > tolerance * scale).any()
    return ours


VARIANTS = {
    "whole": {},
    "masked": {"masked": True},
    "slices of four": {"runs": (8, 32)},
    "slices of three": {"runs": (3, 7)},
    "box": {"box": 0.02},
    "given noise": {"external_noise": True},
}


# every variant by the three rules of the kernel; what the other two methods add is in a scalar
COMBINATIONS = [
    *itertools.product(VARIANTS, ("sgld", "rmsprop_sgld", "sgnht")),
    ("whole", "rmsprop_sgld_hh"),
    ("whole", "sghmc"),
]


@pytest.mark.parametrize(("variant", "method"), COMBINATIONS)
def test_step(variant, method) -> None:
    assert_same_step(make_case(SIZES, chains=2, method=method, **VARIANTS[variant]))


@pytest.mark.parametrize(("variant", "method"), COMBINATIONS)
def test_step_in_16_byte_accesses(variant, method) -> None:
    assert_same_step(aligned(make_case((8, 64, 1000), chains=2, method=method, **VARIANTS[variant])))


@pytest.mark.parametrize("method", METHODS)
def test_float64(method) -> None:
    # 1 − α^{t+1} is found without pow, to other last digits
    same_bits = SAME_BITS and method != "rmsprop_sgld_hh"
    case = make_case((5, 70), chains=2, method=method, dtype=torch.float64, external_noise=True)
    assert_same_step(case, same_bits=same_bits)
    assert_same_step(aligned(make_case((4, 70), chains=2, method=method, dtype=torch.float64)), same_bits=same_bits)


LOW = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize(("grad", "low"), list(itertools.product(LOW, LOW)))
@pytest.mark.parametrize("stochastic", [False, True])
def test_low_precision(grad, low, stochastic) -> None:
    for arrange in (aligned, copy.deepcopy):
        case = make_case((8, 200), chains=2, grad_dtype=grad, anchor_dtype=low, low_dtype=low, measured=False)
        case = arrange(case)
        case.keywords["stochastic_rounding"] = stochastic
        ours = assert_same_step(case)
        if not stochastic:
            for got, w in zip(ours.keywords["low"], ours.rows(), strict=True):
                assert torch.equal(got, w.to(low))


def test_segments_of_different_dtypes_share_one_step() -> None:
    case = make_case((40, 9, 130), method="sgnht", low_dtype=torch.bfloat16)
    case.grads[0] = case.grads[0].bfloat16()
    case.grads[1] = torch.empty(0)  # no gradient
    case.keywords["low"][2] = torch.empty(0, dtype=torch.bfloat16)  # no copy
    case.keywords["low"][0] = case.keywords["low"][0].half()
    assert_same_step(case)


@pytest.mark.parametrize("method", ["sgld", "sgnht"])
@pytest.mark.parametrize(("cells", "busy"), [(1, 1), (2, 1 << 20), (3, 4)])
def test_how_work_is_shared_out_does_not_matter(method, cells, busy, monkeypatch) -> None:
    case = make_case((1300, 5, 700), method=method)
    usual = case.run("triton")
    monkeypatch.setattr(langevin_table, "CELLS", cells)
    monkeypatch.setattr(langevin_table, "BUSY", busy)
    monkeypatch.setattr(langevin_step, "_plans", langevin_table.Kept())
    other = case.run("triton")
    assert torch.equal(other.w.nan_to_num(), usual.w.nan_to_num())
    # float64 sums of a few tiles, in another order
    assert torch.allclose(other.keywords["metrics"], usual.keywords["metrics"], rtol=1e-14, atol=0)
    if method == "sgnht":
        assert torch.allclose(other.keywords["thermostat"], usual.keywords["thermostat"], rtol=1e-14, atol=0)


def test_a_plan_is_kept_while_hyperparameters_change() -> None:
    case = make_case((64, 5))
    plans = langevin_step._plans
    arguments = (case.w, case.grads, case.anchors, case.segments, case.hyper, case.step, case.chains)
    ops.langevin_step_(*arguments, backend="triton", **case.keywords)
    known = list(plans._plans)
    case.hyper.mul_(0.5)
    case.step.add_(1)
    ops.langevin_step_(*arguments, backend="triton", **case.keywords)
    assert list(plans._plans) == known
    ops.langevin_step_(*arguments, backend="triton", **(case.keywords | {"seed": 5}))
    assert list(plans._plans) != known


def test_two_steps_are_the_native_two() -> None:
    # flags and tickets are zero again after a step in which chains died
    case = make_case((5, 600), method="sgnht")
    case.grads[-1].view(3, -1)[1, 5] = math.nan
    assert_same_step(case.run("triton"))
    assert_same_step(make_case((5, 600), method="sgnht"))


def test_case_is_aligned_as_named() -> None:
    for arrange, expected in ((aligned, 1), (copy.deepcopy, 0)):
        case = arrange(make_case((8, 516)))
        operands = langevin_table.Operands(case.grads, case.anchors, [], [], [])
        settings = (1, 0, 0.99, 0.1, 0.1)
        plan = langevin_table.plan_step(case.w, None, case.segments.tolist(), operands, settings, 512, False)
        assert plan.launches[0].table[12:].view(2, 12)[:, 11].tolist() == [expected] * 2
        assert plan.launches[0].tiles.tolist() == [0, 1, 1]
