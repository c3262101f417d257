"""The CUDA kernel of grouped_gradient_step_, on CPU threads, against the C++ op and the reference."""

import copy
import ctypes

import pytest
import torch
from cuda_threads.build import assert_clean, library
from grouped_cases import LAYOUTS, GroupedCase, assert_same_step, make_grouped_case

DTYPES = {torch.float32: 1, torch.float64: 2, torch.bfloat16: 3, torch.float16: 4}
PRECISIONS = {"ieee": 0, "tf32": 1, "bf16": 2}
SHAPES = [(0, 4, 5), (1, 1, 1), (5, 3, 4), (17, 66, 67), (33, 5, 130)]


def on_threads(case: GroupedCase, *, blocks: int = 2, backward: bool = False, **changes) -> GroupedCase:
    after = copy.deepcopy(case)
    after.keywords |= changes
    k = after.keywords
    factors = [after.left, after.right]
    assert all(f.stride(2) == 1 or f.shape[2] == 1 for f in factors)
    words = []
    for f in factors:
        words += [f.data_ptr(), DTYPES[f.dtype], f.shape[2], f.stride(0), f.stride(1)]
    weights, loss = k.get("weights"), k.get("loss")
    offset, numel, element, run, stride = after.segment.tolist()
    words += [
        weights.data_ptr() if weights is not None else 0, after.left.shape[1], PRECISIONS[k["precision"]],
        after.w.data_ptr(), after.w.shape[1], offset, after.anchor.data_ptr(), DTYPES[after.anchor.dtype], element,
        len(after.chains), k["seed"], 0, after.hyper.data_ptr(), after.step.data_ptr(), after.chains.data_ptr(),
        loss.data_ptr() if loss is not None else 0, k["alive"].data_ptr(), k["death_step"].data_ptr(),
        after.right.shape[2] if run == numel else stride, int(after.w.dtype == torch.float64), blocks, int(backward),
    ]  # fmt: skip
    library("grouped_gradient_step").grouped_gradient_step_words((ctypes.c_int64 * len(words))(*words))
    return after


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_step(shape, dtype, layout, weighted) -> None:
    case = make_grouped_case(shape, layout, dtype=dtype, weighted=weighted, chains=2)
    ours = on_threads(case)
    for backend in ("native", "reference"):
        assert_same_step(ours, case.run(backend), case)
    assert torch.equal(on_threads(case, blocks=5, backward=True).moved(), ours.moved())


def test_without_a_sum_the_update_has_the_bits_of_the_native_one() -> None:
    for layout in LAYOUTS:
        case = make_grouped_case((1, 9, 70), layout)
        assert torch.equal(on_threads(case).moved(), case.run("native").moved())


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precision_rounds_the_factors_alone(precision) -> None:
    case = make_grouped_case((20, 9, 12), precision=precision, weighted=True)
    assert_same_step(on_threads(case), case.run("reference"), case)
    one = make_grouped_case((1, 9, 12), precision=precision, weighted=True)
    assert torch.equal(on_threads(one).moved(), one.run("native").moved())


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_strides_and_box(low) -> None:
    case = make_grouped_case((6, 13, 30), factor_dtype=low, anchor_dtype=low, box=0.02)
    case.left = torch.cat([case.left, case.left.flip(2)], 2)[..., 3:16]
    case.right = case.right[:1].expand(3, -1, -1)
    assert_same_step(on_threads(case), case.run("native"), case)


def test_health() -> None:
    case = make_grouped_case((9, 70, 70), chains=4)
    case.keywords["alive"] = torch.tensor([True, False, True, True])
    case.left[1] = torch.nan
    case.left[2, 4, 65] = torch.inf
    loss = torch.tensor([1.0, torch.nan, 2.0, torch.nan], dtype=torch.float64)
    after, native = on_threads(case, loss=loss), case.run("native", loss=loss)
    assert after.keywords["alive"].tolist() == native.keywords["alive"].tolist() == [True, False, False, False]
    assert after.keywords["death_step"].tolist() == [-1, -1, 7, 7]
    assert torch.equal(after.moved()[[1, 3]], case.moved()[[1, 3]])
    got, old = (x.moved()[2].view(70, 70)[65] for x in (after, case))
    assert torch.equal(got, old)
    assert after.moved().isfinite().all()


@pytest.mark.parametrize("sanitizer", ["plain", "memory", "races"])
def test_clean(sanitizer) -> None:
    assert_clean("grouped_gradient_step", sanitizer)
