"""native_langevin_step_ against the plain PyTorch reference, which rounds once from float64."""

import itertools
import math

import pytest
import torch
from langevin_cases import ISAS, WIDEST, Case, make_case, rounding_bound

from sltfast import _C, ops

METHODS = ops.METHODS
NORMAL_ERROR = 2e-6  # documented distance of a native normal from the exact one


@pytest.fixture(autouse=True)
def _widest_isa_afterwards():
    yield
    _C.use_isa(WIDEST)


def assert_same_step(case: Case, noise_error: float = NORMAL_ERROR, **changes) -> Case:
    ours, truth = case.run("native", **changes), case.run("reference", **changes)
    for got, want, bound in zip(ours.rows(), truth.rows(), rounding_bound(case, noise_error), strict=True):
        error = (got.double() - want.double()).abs()
        assert not (error > bound).any(), f"{(error / bound).max():.2f} times the rounding bound"
    inside = torch.zeros(case.w.shape[1], dtype=torch.bool)
    for offset, n in case.segments[:, :2].tolist():
        inside[offset : offset + n] = True
    assert ours.w[:, ~inside].isnan().all()
    if case.keywords.get("v") is not None:
        u = torch.finfo(case.w.dtype).eps
        for got, want in zip(ours.rows(ours.keywords["v"]), truth.rows(truth.keywords["v"]), strict=True):
            # three roundings of positive terms, against one
            assert torch.allclose(got, want, rtol=2 * u, atol=0)
    if case.keywords.get("momentum") is not None:
        for got, want, bound in zip(
            ours.rows(ours.keywords["momentum"]),
            truth.rows(truth.keywords["momentum"]),
            rounding_bound(case, noise_error),
            strict=True,
        ):
            assert not ((got.double() - want.double()).abs() > bound).any()
    if case.keywords.get("thermostat") is not None:
        got, want, before = (x.keywords["thermostat"] for x in (ours, truth, case))
        # Σm² of w's precision: 64 products a lane (see below), and each m within the bound of a move
        heat = want - before + case.hyper[:, 0] / (2 - before)
        assert not ((got - want).abs() > (80 * torch.finfo(case.w.dtype).eps + 2 * noise_error) * heat).any()
    for name in ("alive", "death_step"):
        assert torch.equal(ours.keywords[name], truth.keywords[name])
    if case.keywords.get("metrics") is not None:
        got, want = ours.keywords["metrics"], truth.keywords["metrics"]
        # A lane sums at most 64 products in w's precision before they go on in float64, each of a few roundings;
        # dots cancel, so their error is relative to the product of the norms.
        tolerance = (64 + 16) * torch.finfo(case.w.dtype).eps / 2 + noise_error
        scale = torch.cat(
            [
                want[:, :6],
                (want[:, 0] * (want[:, 2] + want[:, 3]))[:, None],
                (want[:, 0] * want[:, 4])[:, None],
                ((want[:, 2] + want[:, 3]) * want[:, 4])[:, None],
            ],
            dim=1,
        )
        assert torch.equal(got.isnan(), want.isnan())
        assert not ((got - want).abs() > tolerance * scale).any()
    return ours


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("masked", "runs"), [(False, None), (True, None), (False, (8, 32)), (True, (3, 7))])
def test_step(isa, method, dtype, masked, runs) -> None:
    _C.use_isa(isa)
    assert_same_step(make_case(method=method, dtype=dtype, masked=masked, runs=runs))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("runs", [None, (1, 1), (1, 5), (2, 2), (64, 192), (1023, 4096), (1500, 1501)])
def test_slices_draw_the_noise_of_their_elements(method, runs) -> None:
    assert_same_step(make_case((5, 2051, 4096), chains=2, method=method, runs=runs))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("method", METHODS)
def test_given_noise_in_float64_is_exact(isa, method) -> None:
    _C.use_isa(isa)
    assert_same_step(make_case(method=method, dtype=torch.float64, external_noise=True), noise_error=0.0)


LOW = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("grad", "anchor", "low"), list(itertools.product(LOW, LOW, LOW)))
def test_low_precision_is_widened_exactly_and_rounded_to_nearest(isa, grad, anchor, low) -> None:
    _C.use_isa(isa)
    case = make_case(grad_dtype=grad, anchor_dtype=anchor, low_dtype=low)
    ours = assert_same_step(case)
    for got, w in zip(ours.keywords["low"], ours.rows(), strict=True):
        assert torch.equal(got, w.to(low))
    widened = make_case(grad_dtype=grad, anchor_dtype=anchor, low_dtype=low)
    widened.grads = [g.float() for g in case.grads]
    widened.anchors = [a.float() for a in case.anchors]
    assert torch.equal(widened.run().w.nan_to_num(), ours.w.nan_to_num())


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("isa", ISAS)
def test_every_low_precision_value_survives_and_every_rounding_case_is_torchs(isa, low) -> None:
    _C.use_isa(isa)
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(low)
    every = every[every.isfinite()]
    n = every.numel()
    between = torch.nextafter(every.float(), torch.tensor(math.inf))
    halfway = (every.float() + torch.roll(every.float(), -1)) / 2
    tiny = torch.logspace(-46, -4, n)  # down through float16's subnormals
    w = torch.stack([every.float(), between, halfway, tiny])
    copies = [torch.zeros(4, n, dtype=low)]
    case = Case(
        w=w,
        grads=[torch.empty(0)],
        anchors=[every],
        segments=torch.tensor([[0, n, 0, n, 0]]),
        hyper=torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, math.inf]] * 4, dtype=torch.float64),
        step=torch.tensor(0),
        chains=torch.arange(4),
        keywords={"seed": 0, "low": copies},
    )
    ours = case.run()
    assert torch.equal(ours.w, w)
    assert torch.equal(ours.keywords["low"][0], w.to(low))
    # a box of zero width puts w on w*, widened
    case.w = torch.zeros_like(w)
    case.hyper[:, 5] = 0.0
    assert torch.equal(case.run().w, every.float().expand(4, n))


@pytest.mark.parametrize("method", METHODS)
def test_box(method) -> None:
    case = make_case(method=method, box=0.02)
    ours = assert_same_step(case)
    for w, anchor in zip(ours.rows(), case.anchors, strict=True):
        assert not ((w < anchor - 0.02) | (w > anchor + 0.02)).any()
        if w.numel() > 1:
            assert ((w == anchor - 0.02) | (w == anchor + 0.02)).any()


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("method", METHODS)
def test_no_gradient_is_a_zero_gradient(backend, method) -> None:
    case = make_case(method=method)
    absent, zero = make_case(method=method), make_case(method=method)
    absent.grads = [torch.empty(0) for _ in case.grads]
    zero.grads = [torch.zeros_like(g) for g in case.grads]
    assert torch.equal(absent.run(backend).w.nan_to_num(), zero.run(backend).w.nan_to_num())


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("method", METHODS)
def test_zero_step_size_moves_nothing(backend, method) -> None:
    case = make_case(method=method)
    case.hyper[:, 0] = 0.0
    if case.keywords.get("momentum") is not None:
        case.keywords["momentum"].zero_()
    after = case.run(backend)
    assert torch.equal(after.w.nan_to_num(), case.w.nan_to_num())
    assert after.keywords["alive"].all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_zero_noise_is_gradient_descent(backend) -> None:
    case = make_case(dtype=torch.float64)
    case.hyper[:, 2:5] = 0.0  # no localization, no decay, no noise
    after = case.run(backend)
    for w, old, g in zip(after.rows(), case.rows(), case.grads, strict=True):
        step = 0.5 * case.hyper[:, 0:1] * case.hyper[:, 1:2]
        # two roundings of the increment and one of the sum
        assert torch.allclose(w, old - step * g, rtol=4 * 2.0**-52, atol=4 * 2.0**-52)


def test_large_step_has_no_bias() -> None:
    """Aggregate guards that a few outliers cannot hide in: relative L2 and signed mean of the error."""
    n = 1 << 18
    for method in METHODS:
        case = make_case((n,), chains=1, method=method)
        ours, truth = case.run("native"), case.run("reference")
        error = (ours.rows()[0].double() - truth.rows()[0].double()).flatten()
        moved = (truth.rows()[0] - case.rows()[0]).double().flatten()
        # both round w at |w| < 8 (ulp 2^-20 at most), so the error is at most one ulp
        assert error.norm() / moved.norm() < 2.0**-20 * n**0.5 / moved.norm()
        assert error.mean().abs() < 5 * error.std() / n**0.5


def test_gradient_layouts() -> None:
    case = make_case((12, 1000), chains=1)
    shaped = make_case((12, 1000), chains=1)
    shaped.grads = [case.grads[0].reshape(3, 4), case.grads[1].reshape(25, 40).t().contiguous().t()]
    assert not shaped.grads[1].is_contiguous()
    assert torch.equal(shaped.run().w.nan_to_num(), case.run().w.nan_to_num())
    assert torch.equal(shaped.run("reference").w.nan_to_num(), case.run("reference").w.nan_to_num())


def test_unaligned_operands() -> None:
    case = make_case((1000, 63), chains=1)
    shifted = make_case((1000, 63), chains=1)
    for tensors in (shifted.grads, shifted.anchors):
        for s, tensor in enumerate(tensors):
            bytes_off = torch.empty(tensor.numel() + 1)[1:].view_as(tensor)
            assert bytes_off.data_ptr() % 16 != 0
            tensors[s] = bytes_off.copy_(tensor)
    # no deepcopy here: it would align them again
    ops.langevin_step_(
        shifted.w, shifted.grads, shifted.anchors, shifted.segments, shifted.hyper, shifted.step, shifted.chains,
        backend="native", **shifted.keywords,
    )  # fmt: skip
    assert torch.equal(shifted.w.nan_to_num(), case.run().w.nan_to_num())
