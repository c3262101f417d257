"""The CUDA kernels of langevin_step_, on CPU threads, against the C++ op bit for bit and against the reference."""

import copy
import ctypes
import itertools
import math
import mmap

import numpy as np
import pytest
import torch
from cuda_threads.build import assert_clean, library
from langevin_cases import Case, make_case, poisoned, rounding_bound
from torch import Tensor

from sltfast import ops

DTYPES = {torch.float32: 1, torch.float64: 2, torch.bfloat16: 3, torch.float16: 4}
NORMAL_ERROR = 2e-6  # documented distance of a native normal from the exact one
SIZES = (0, 1, 3, 4, 5, 63, 1000)
HOT = 100  # what the library adds for each launch of the hot kernel


class Method(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_bool) for name in ("preconditioned", "corrected", "inert", "thermal")),
        *((name, ctypes.c_double) for name in ("alpha", "eps", "friction")),
        ("seed", ctypes.c_uint64),
        ("stream", ctypes.c_uint32),
    ]


class Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("w", "state")),
        ("row", ctypes.c_int64),
        ("chains", ctypes.c_int),
        ("method", Method),
        *((name, ctypes.c_void_p) for name in ("hyper", "step", "chain_ids", "loss", "alive", "death_step")),
        *((name, ctypes.c_void_p) for name in ("metrics", "thermostat")),
        ("stochastic_rounding", ctypes.c_bool),
        *((name, ctypes.c_void_p) for name in ("ticket", "broken", "sums")),
        ("blocks", ctypes.c_uint32),
    ]


class Call(ctypes.Structure):
    _fields_ = [
        ("step", Step),
        ("rows", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("segments", "master", "threads", "most", "table_rows", "backward")),
    ]


def pointer(t: Tensor | None) -> int:
    return t.data_ptr() if t is not None and t.numel() else 0


def on_threads(case: Case, **how) -> tuple[Case, int]:
    """A copy on which the CUDA kernels have run, and how many launches that took (HOT more for a hot one)."""
    after = copy.deepcopy(case)
    return after, run_kernels(after, **how)


def run_kernels(after: Case, *, threads: int = 64, most: int = 3, table_rows: int = 300, backward: bool = False) -> int:
    k = after.keywords
    method = k["method"]
    count = len(after.chains)
    lists = [
        after.grads,
        after.anchors,
        *(k.get(name) or [None] * len(after.grads) for name in ("noise", "masks", "low")),
    ]
    rows = []
    for s, segment in enumerate(after.segments.tolist()):
        here = [tensors[s] for tensors in lists]
        grad, anchor, noise, _, low = (DTYPES.get(t.dtype, 0) if t is not None else 0 for t in here)
        rows.append([*map(pointer, here), *segment, grad, anchor, noise, low])
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 14)
    state = k.get("v") if k.get("v") is not None else k.get("momentum")
    step = Step(
        w=pointer(after.w), state=pointer(state), row=after.w.shape[1], chains=count,
        method=Method(
            method.startswith("rmsprop"), method == "rmsprop_sgld_hh", method in ("sghmc", "sgnht"), method == "sgnht",
            k.get("rms_alpha", 0.99), k.get("rms_eps", 0.1), k.get("friction", 0.1),
            k["seed"], k.get("stream", ops.STREAM_STEP),
        ),
        hyper=pointer(after.hyper), step=pointer(after.step), chain_ids=pointer(after.chains),
        loss=pointer(k.get("loss")), alive=pointer(k.get("alive")), death_step=pointer(k.get("death_step")),
        metrics=pointer(k.get("metrics")), thermostat=pointer(k.get("thermostat")),
        stochastic_rounding=k.get("stochastic_rounding", False),
    )  # fmt: skip
    call = Call(step, pointer(table), len(rows), DTYPES[after.w.dtype], threads, most, table_rows, backward)
    run = library("langevin_step").langevin_step
    run.restype = ctypes.c_int64
    return run(ctypes.byref(call))


def aligned(case: Case) -> Case:
    """The same with rows, segments and elements on multiples of four."""
    out = copy.deepcopy(case)
    starts, offset = [], 0
    for n in case.segments[:, 1].tolist():
        starts.append(offset)
        offset += (n + 3) // 4 * 4 + 4
    out.segments[:, 0] = torch.tensor(starts)
    out.segments[:, 2] //= 4
    out.segments[:, 2] *= 4

    def moved(of: Tensor) -> Tensor:
        wide = poisoned(len(of), offset, dtype=of.dtype)
        for start, rows in zip(starts, case.rows(of), strict=True):
            wide[:, start : start + rows.shape[1]] = rows
        return wide

    out.w = moved(case.w)
    for name in ("v", "momentum"):
        if case.keywords.get(name) is not None:
            out.keywords[name] = moved(case.keywords[name])
    return out


def assert_same_bits(a: Case, b: Case) -> None:
    assert torch.equal(a.w.nan_to_num(), b.w.nan_to_num())
    for name in ("v", "momentum", "alive", "death_step"):
        if a.keywords.get(name) is not None:
            assert torch.equal(a.keywords[name].nan_to_num(), b.keywords[name].nan_to_num()), name
    for mine, theirs in zip(a.keywords.get("low") or [], b.keywords.get("low") or [], strict=True):
        assert torch.equal(mine.nan_to_num(), theirs.nan_to_num())


def assert_same_step(case: Case, **how) -> int:
    ours, launches = on_threads(case, **how)
    native, truth = case.run("native"), case.run("reference")
    assert_same_bits(ours, native)
    for got, want, bound in zip(ours.rows(), truth.rows(), rounding_bound(case, NORMAL_ERROR), strict=True):
        assert not ((got.double() - want.double()).abs() > bound).any()
    u = torch.finfo(case.w.dtype).eps / 2
    if case.keywords.get("thermostat") is not None:
        # Σm² of positive terms: at most 64 of w's precision in a row, then float64
        assert torch.allclose(ours.keywords["thermostat"], native.keywords["thermostat"], rtol=80 * u, atol=0)
    if case.keywords.get("metrics") is not None:
        got, want = ours.keywords["metrics"], native.keywords["metrics"]
        # both sum at most 64 products in w's precision before they go on in float64; dots cancel
        priors = want[:, 2] + want[:, 3]
        dots = (want[:, 0] * priors, want[:, 0] * want[:, 4], priors * want[:, 4])
        scale = torch.cat([want[:, :6], torch.stack(dots, dim=1)], dim=1)
        assert torch.equal(got.isnan(), want.isnan())
        assert not ((got - want).abs() > 2 * (64 + 16) * u * scale).any()
    return launches


@pytest.mark.parametrize("sanitizer", ["memory", "races"])
def test_sanitizers_find_nothing(sanitizer) -> None:
    assert_clean("langevin_step", sanitizer)


@pytest.mark.parametrize("method", ops.METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("masked", "runs"), [(False, None), (True, None), (False, (8, 32)), (True, (3, 7))])
def test_step(method, dtype, masked, runs) -> None:
    case = make_case(SIZES, method=method, dtype=dtype, masked=masked, runs=runs)
    assert assert_same_step(case) == 1
    assert assert_same_step(aligned(case)) == 1


@pytest.mark.parametrize("method", ops.METHODS)
@pytest.mark.parametrize("chains", [1, 3, 35])
def test_hot_kernel(method, chains) -> None:
    """Whole groups of float32 take the hot kernel, in one launch, and the others one more; 35 chains are two rounds."""
    measured = method == "sgnht"
    whole = aligned(make_case((4, 64, 516), method=method, chains=chains, measured=False, box=0.3))
    mixed = aligned(make_case((4, 7, 516), method=method, chains=chains, measured=False))
    for case in (whole, mixed):
        if measured:
            case.keywords["thermostat"].clamp_(max=0.5)
    assert assert_same_step(whole) == (1 if measured else 1 + HOT)
    assert assert_same_step(mixed) == (1 if measured else 2 + HOT)


@pytest.mark.parametrize("layout", [aligned, copy.deepcopy])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("grad", "anchor", "low"), list(itertools.product((torch.bfloat16, torch.float16), repeat=3)))
def test_low_precision(layout, stochastic, grad, anchor, low) -> None:
    case = make_case((3, 64, 300), grad_dtype=grad, anchor_dtype=anchor, low_dtype=low, measured=False)
    case.keywords["stochastic_rounding"] = stochastic
    assert_same_step(layout(case))


@pytest.mark.parametrize("layout", [aligned, copy.deepcopy])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_given_noise_and_no_gradient(layout, dtype) -> None:
    case = make_case((4, 63, 300), dtype=dtype, external_noise=True, method="rmsprop_sgld")
    case.grads[1] = torch.empty(0)
    assert_same_step(layout(case))


@pytest.mark.parametrize("method", ops.METHODS)
def test_box(method) -> None:
    case = make_case((5, 300), method=method, box=0.02)
    assert_same_step(case)
    assert_same_step(aligned(case))


@pytest.mark.parametrize("runs", [(1, 1), (1, 5), (2, 2), (64, 192), (1023, 4096)])
def test_slices(runs) -> None:
    case = make_case((5, 1500), chains=2, runs=runs, measured=False)
    assert_same_step(case)
    assert_same_step(aligned(case))


@pytest.mark.parametrize("method", ops.METHODS)
@pytest.mark.parametrize("measured", [True, False])
def test_dead_and_dying_chains(method, measured) -> None:
    case = make_case((5, 64, 300), chains=5, method=method, measured=measured, low_dtype=torch.bfloat16)
    case.keywords["loss"] = torch.tensor([1.0, math.nan, 2.0, 3.0, math.inf], dtype=torch.float64)
    case.keywords["alive"] = torch.tensor([True, True, False, True, True])
    case.grads[2].view(5, -1)[3, 17] = math.nan
    case.grads[2].view(5, -1)[2, 1] = math.nan
    for layout in (case, aligned(case)):
        ours, _ = on_threads(layout)
        assert_same_step(layout)
        assert ours.keywords["alive"].tolist() == [True, False, False, False, False]
        assert ours.keywords["death_step"].tolist() == [-1, 7, -1, 7, 7]


def test_a_masked_gradient_may_be_anything() -> None:
    case = make_case((64,), masked=True)
    case.keywords["masks"][0][5] = False
    case.grads[0][:, 5] = math.nan
    assert_same_step(case)
    assert_same_step(aligned(case))


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0)])
def test_nothing_to_move(sizes) -> None:
    case = make_case(sizes, chains=2)
    case.keywords["loss"] = torch.tensor([1.0, math.nan], dtype=torch.float64)
    ours, launches = on_threads(case)
    assert launches == 1
    assert ours.keywords["alive"].tolist() == [True, False]
    assert torch.equal(ours.keywords["metrics"][0], torch.zeros(9, dtype=torch.float64))
    assert ours.keywords["metrics"][1].isnan().all()


@pytest.mark.parametrize("method", ["sgld", "rmsprop_sgld", "sgnht"])
def test_grid_block_tables_and_order_do_not_matter(method) -> None:
    """Weights have the same bits for any grid; sums have for any order of the blocks of one grid."""
    case = aligned(make_case((1000, 4, 63, 300), method=method))
    usual, launches = on_threads(case)
    assert launches == 1
    split, launches = on_threads(case, table_rows=1)
    assert launches == 4
    wide, _ = on_threads(case, threads=256, most=1)
    reverse, _ = on_threads(case, backward=True)
    for other in (split, wide, reverse):
        assert_same_bits(other, usual)
    assert torch.equal(reverse.keywords["metrics"], usual.keywords["metrics"])
    for other in (split, wide):
        assert torch.allclose(other.keywords["metrics"], usual.keywords["metrics"], rtol=1e-4, atol=1e-6)


def test_more_than_2_to_31_coordinates() -> None:
    """A row of 2^31 + 64 that only its ends are of: memory that nobody touches is never given."""
    n = (1 << 31) + 64
    no_reserve = 0x4000  # Linux's MAP_NORESERVE, which the mmap module does not name
    memory = mmap.mmap(-1, 4 * 2 * n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    segments = torch.tensor([[0, 8, 0, 8, 0], [n - 8, 8, (1 << 36) + 4, 8, 0]])
    case = make_case((8, 8), chains=2, measured=False)
    near = Case(
        w=torch.zeros(2, 16), grads=[torch.zeros(2, 8), torch.arange(8.0).repeat(2, 1)], anchors=case.anchors,
        segments=torch.tensor([[0, 8, 0, 8, 0], [8, 8, (1 << 36) + 4, 8, 0]]), hyper=case.hyper, step=case.step,
        chains=case.chains, keywords=case.keywords,
    )  # fmt: skip
    far = copy.copy(near)
    far.w, far.segments = torch.from_numpy(np.frombuffer(memory, dtype=np.float32)).view(2, n), segments
    want = near.run("native")
    assert run_kernels(far) == 1 + HOT
    for mine, theirs in zip(far.rows(), want.rows(), strict=True):
        assert torch.equal(mine, theirs)
