"""grouped_gradient_step_ in Triton, interpreted, against the C++ op and the reference."""

import numpy as np
import pytest
import torch
from grouped_cases import LAYOUTS, assert_same_step, make_grouped_case

from sltfast import ops

SHAPES = [(0, 4, 5), (1, 1, 1), (5, 3, 4), (37, 5, 67), (3, 66, 8)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_step(shape, dtype, layout, weighted) -> None:
    case = make_grouped_case(shape, layout, dtype=dtype, weighted=weighted, chains=2)
    ours = case.run("triton")
    for backend in ("native", "reference"):
        assert_same_step(ours, case.run(backend), case)


@pytest.mark.parametrize("element", [0, 8, 2])
def test_noise_is_drawn_by_fours_or_one_by_one(element) -> None:
    case = make_grouped_case((1, 9, 20), chains=2)
    case.segment[2] = element
    # one product: the sum is exact, and the update has the same bits
    assert torch.equal(case.run("triton").moved(), case.run("native").moved())


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precision_rounds_the_factors_alone(precision) -> None:
    case = make_grouped_case((20, 9, 12), precision=precision, weighted=True, chains=2)
    assert_same_step(case.run("triton"), case.run("reference"), case)
    one = make_grouped_case((1, 9, 12), precision=precision, weighted=True, chains=2)
    assert torch.equal(one.run("triton").moved(), one.run("native").moved())


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_strides_and_box(low) -> None:
    case = make_grouped_case((6, 13, 30), factor_dtype=low, anchor_dtype=low, box=0.02)
    case.left = torch.cat([case.left, case.left.flip(2)], 2)[..., 3:16]
    case.right = case.right[:1].expand(3, -1, -1)
    assert_same_step(case.run("triton"), case.run("native"), case)


def test_health() -> None:
    case = make_grouped_case((9, 5, 7), chains=4)
    case.keywords["alive"] = torch.tensor([True, False, True, True])
    case.left[1] = torch.nan
    case.left[2, 4, 3] = torch.inf
    loss = torch.tensor([1.0, torch.nan, 2.0, torch.nan], dtype=torch.float64)
    with np.errstate(invalid="ignore"):  # the interpreter multiplies in numpy, which warns of the infinity
        after = case.run("triton", loss=loss)
    assert after.keywords["alive"].tolist() == [True, False, False, False]
    assert after.keywords["death_step"].tolist() == [-1, -1, 7, 7]
    assert_same_step(after, case.run("native", loss=loss), make_grouped_case((9, 5, 7), chains=4))
    assert torch.equal(after.moved()[[1, 3]], case.moved()[[1, 3]])
    empty = make_grouped_case((3, 0, 4), chains=4)
    assert empty.run("triton", loss=loss).keywords["alive"].tolist() == [True, False, True, False]


def test_torch_contract() -> None:
    case = make_grouped_case((5, 3, 4), "columns", weighted=True)
    case.w.nan_to_num_()  # the schema test compares with what was there before: poison would differ from itself
    torch.library.opcheck(torch.ops.sltfast.triton_grouped_gradient_step_.default, case.positional())
    with pytest.raises(ValueError, match="precision must be one of"):
        case.run("triton", precision="fp8")
    assert "triton" not in ops.backend.refusals("grouped_gradient_step_", "cpu")
