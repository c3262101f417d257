"""The step in the epilogue against `langevin_step_` on the gradient written out."""

import math
import re

import pytest
import torch
from grouped_cases import LAYOUTS, SHAPES, assert_same_step, make_grouped_case
from langevin_cases import ISAS, WIDEST

from sltfast import _C, ops
from sltfast.ops import registration

BACKENDS = ["native", "reference"]
OPS = {b: getattr(torch.ops.sltfast, f"{b}_grouped_gradient_step_").default for b in BACKENDS}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_step_is_the_langevin_step_on_the_gradient(shape, dtype, layout, weighted) -> None:
    case = make_grouped_case(shape, layout, dtype=dtype, weighted=weighted)
    ours = case.run("native")
    assert_same_step(ours, case.run("reference"), case)
    explicit = case.explicit().run("native")
    want = case.run("native")
    want.w, want.keywords = explicit.w, explicit.keywords
    assert_same_step(ours, want, case)


@pytest.mark.parametrize("shape", [(16, 24, 32), (5, 3, 4), (300, 64, 64)])
def test_where_the_product_is_the_same_the_step_is_to_the_bit(shape) -> None:
    case = make_grouped_case(shape, chains=1)
    explicit = case.explicit()
    explicit.grads = [case.left[0].T @ case.right[0]]
    assert torch.equal(case.run().moved(), explicit.run().rows()[0])


def test_backends_form_the_same_step_in_the_reference() -> None:
    case = make_grouped_case((9, 7, 12), "columns", weighted=True, dtype=torch.float64)
    assert torch.equal(case.run("reference").moved(), case.explicit().run("reference").rows()[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [True, False])
def test_slice_of_a_layer_is_the_layers_step_there(backend, rows) -> None:
    """A head's rows or columns move as they do when the whole layer moves, to the rounding of the product."""
    n, r, k = 6, 12, 20
    whole = make_grouped_case((n, r, k), dtype=torch.float64)
    layer = whole.run(backend).moved().view(3, r, k)
    part = make_grouped_case((n, r, k), dtype=torch.float64)
    begin, size = (4, 5) if rows else (3, 7)
    pick = (slice(None), slice(begin, begin + size)) if rows else (slice(None), slice(None), slice(begin, begin + size))
    part.w = whole.moved().view(3, r, k)[pick].reshape(3, -1).contiguous()
    part.anchor = whole.anchor.view(r, k)[pick[1:]].reshape(-1)
    if rows:
        part.left = whole.left[..., begin : begin + size]  # a view: columns of the wider tensor
        part.segment = torch.tensor([0, size * k, 6 + begin * k, size * k, 0])
    else:
        part.right = whole.right[..., begin : begin + size]
        part.segment = torch.tensor([0, r * size, 6 + begin, size, k])
    assert torch.allclose(part.run(backend).moved(), layer[pick].reshape(3, -1), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_conv1d_is_linear_with_its_factors_swapped(backend) -> None:
    """Weight [in, out]: left is the input; the gradient is the transpose of Linear's."""
    x, d = torch.randn(1, 8, 5, dtype=torch.float64), torch.randn(1, 8, 3, dtype=torch.float64)
    linear, conv = ops.grouped_gradient(d, x, dtype=x.dtype), ops.grouped_gradient(x, d, dtype=x.dtype)
    assert torch.allclose(linear[0].T, conv[0], rtol=1e-13)
    hyper = torch.tensor([[0.5, 2.0, 0.0, 0.0, 0.0, math.inf]], dtype=torch.float64)  # no noise
    moved = []
    for left, right in ((d, x), (x, d)):
        w = torch.zeros(1, 15, dtype=torch.float64)
        segment = torch.tensor([0, 15, 0, right.shape[2], right.shape[2]])
        ops.grouped_gradient_step_(
            w, left, right, torch.zeros(15, dtype=torch.float64), segment, hyper, torch.tensor(0), torch.tensor([0]),
            seed=1, backend=backend,
        )  # fmt: skip
        moved.append(w.view(left.shape[2], right.shape[2]))
    assert torch.allclose(moved[0], -0.5 * linear[0], rtol=1e-13)
    assert torch.allclose(moved[1], moved[0].T, rtol=1e-13)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("weighted", [False, True])
def test_precision_rounds_the_factors_alone(precision, weighted) -> None:
    case = make_grouped_case((60, 33, 70), weighted=weighted, precision=precision)
    case.hyper[:, 1] *= 1000  # so that the gradient is most of the step
    ours = case.run()
    assert_same_step(ours, case.run("reference"), case)
    exact = case.run(precision="ieee")
    assert not torch.equal(ours.moved(), exact.moved())
    # error <= 2 × eager's in that precision, as a norm: bfloat16 factors, or 11 bits, summed in float32
    truth = ops.grouped_gradient(case.left, case.right, case.keywords.get("weights"), dtype=torch.float32).double()
    eager = case.explicit().grads[0].double()
    scale = 0.5 * case.hyper[:, 0] * case.hyper[:, 1]
    allowed = 2 * (scale[:, None] * (eager - truth).flatten(1)).norm(dim=1)
    assert ((ours.moved().double() - exact.moved().double()).norm(dim=1) <= allowed).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_factors_and_anchors_are_widened_exactly(backend, low) -> None:
    case = make_grouped_case((9, 13, 30), factor_dtype=low, anchor_dtype=low, weighted=True)
    wide = make_grouped_case((9, 13, 30), factor_dtype=low, anchor_dtype=low, weighted=True)
    wide.left, wide.right, wide.anchor = wide.left.float(), wide.right.float(), wide.anchor.float()
    assert torch.equal(case.run(backend).moved(), wide.run(backend).moved())


def test_box_and_strides() -> None:
    case = make_grouped_case((9, 13, 30), box=0.02)
    ours = case.run()
    assert_same_step(ours, case.run("reference"), case)
    assert not ((ours.moved() - case.anchor).abs() > 0.02 + 1e-6).any()
    shaped = make_grouped_case((9, 13, 30), box=0.02)
    shaped.left = case.left.transpose(0, 1).contiguous().transpose(0, 1)
    shaped.right = case.right.transpose(1, 2).contiguous().transpose(1, 2)
    assert not shaped.right.is_contiguous()
    assert torch.equal(shaped.run().moved(), ours.moved())
    shared = make_grouped_case((9, 13, 30), box=0.02)
    shared.right = case.right[:1].expand(3, -1, -1)
    copied = make_grouped_case((9, 13, 30), box=0.02)
    copied.right = shared.right.contiguous()
    assert torch.equal(shared.run().moved(), copied.run().moved())


def test_chains_threads_and_instruction_sets_do_not_change_a_bit() -> None:
    for shape in ((40, 200, 1100), (300, 64, 64)):
        case = make_grouped_case(shape, weighted=True)
        together, threads = case.run().moved(), torch.get_num_threads()
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                assert torch.equal(case.run().moved(), together)
            for isa in ISAS:
                _C.use_isa(isa)
                assert torch.equal(case.run().moved(), together)
        finally:
            torch.set_num_threads(threads)
            _C.use_isa(WIDEST)
        for c in range(3):
            one = make_grouped_case(shape, weighted=True)
            for name in ("w", "left", "right", "hyper", "chains"):
                setattr(one, name, getattr(case, name)[c : c + 1].clone())
            one.keywords = {"seed": case.keywords["seed"], "weights": case.keywords["weights"][c : c + 1]}
            assert torch.equal(one.run().moved()[0], together[c])


@pytest.mark.parametrize("backend", BACKENDS)
def test_health(backend) -> None:
    case = make_grouped_case((9, 70, 1030), chains=4)
    healthy = case.run(backend)
    case.keywords["alive"] = torch.tensor([True, False, True, True])
    case.left[1] = math.nan  # the dead chain's, which nobody reads
    case.left[2, 4, 65] = math.inf
    loss = torch.tensor([1.0, math.nan, 2.0, math.nan], dtype=torch.float64)
    after = case.run(backend, loss=loss)
    assert after.keywords["alive"].tolist() == [True, False, False, False]
    assert after.keywords["death_step"].tolist() == [-1, -1, 7, 7]
    assert torch.equal(after.moved()[0], healthy.moved()[0])
    assert torch.equal(after.moved()[[1, 3]], case.moved()[[1, 3]])
    got, old, well = (x.moved()[2].view(70, 1030) for x in (after, case, healthy))
    assert torch.equal(got[65], old[65])
    assert torch.equal(got[:65], well[:65])
    del case.keywords["alive"], case.keywords["death_step"]
    assert case.run(backend, loss=loss).moved().isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_contract(backend) -> None:
    assert str(OPS[backend]._schema).split("grouped_gradient_step_", 1)[1] == (
        registration.OPS["grouped_gradient_step_"].schema
    )
    case = make_grouped_case((5, 3, 4), "columns", weighted=True)
    expected = case.run(backend)
    face = torch.compile(ops.grouped_gradient_step_, fullgraph=True, backend="aot_eager")
    compiled = make_grouped_case((5, 3, 4), "columns", weighted=True)
    face(
        compiled.w, case.left, case.right, case.anchor, case.segment, case.hyper, case.step, case.chains,
        backend=backend, **compiled.keywords,
    )  # fmt: skip
    assert torch.equal(compiled.moved(), expected.moved())
    case.w.nan_to_num_()  # the schema test compares with what was there before: poison would differ from itself
    torch.library.opcheck(OPS[backend], case.positional())


def field(name, change):
    return lambda case: setattr(case, name, change(getattr(case, name)))


def keyword(name, value):
    return lambda case: case.keywords.__setitem__(name, value)


BAD = {
    "w": (field("w", lambda x: x.bfloat16()), TypeError, "w must be float32 or float64, got bfloat16"),
    "left rank": (field("left", lambda x: x[0]), ValueError, "left must have shape [C, N, *], got [5, 3]"),
    "left chains": (field("left", lambda x: x[:1]), ValueError, "left must have shape [3, 5, *], got [1, 5, 3]"),
    "right": (field("right", lambda x: x[:, 1:]), ValueError, "right must have shape [3, 5, *], got [3, 4, 4]"),
    "right double": (field("right", lambda x: x.double()), TypeError, "right must be float32 or bfloat16 or float16"),
    "anchor": (field("anchor", lambda x: x[1:]), ValueError, "anchor must hold 12 values, got shape [11]"),
    "anchor double": (field("anchor", lambda x: x.double()), TypeError, "anchor must be float32 or bfloat16 or"),
    "segment": (field("segment", lambda x: x[None]), ValueError, "segment must have shape [5]"),
    "segment end": (field("segment", lambda x: x + torch.tensor([9, 0, 0, 0, 0])), ValueError, "beyond the 16"),
    "segment run": (field("segment", lambda x: torch.tensor([1, 12, 0, 3, 7])), ValueError, "run must be K = 4"),
    "segment numel": (field("segment", lambda x: torch.tensor([1, 8, 0, 4, 4])), ValueError, "8 values"),
    "hyper": (field("hyper", lambda x: x.float()), TypeError, "hyper must be float64"),
    "stream": (keyword("stream", 256), ValueError, "stream must be in 0..255, got 256"),
    "weights": (keyword("weights", torch.ones(3, 4)), ValueError, "weights must have shape [3, 5], got [3, 4]"),
    "weights double": (keyword("weights", torch.ones(3, 5).double()), TypeError, "weights must be float32"),
    "loss": (keyword("loss", torch.zeros(3)), TypeError, "loss must be float64, got float32"),
    "alive": (keyword("alive", torch.ones(3)), TypeError, "alive must be bool or uint8"),
    "precision": (keyword("precision", "fp8"), ValueError, "precision must be one of ieee, tf32, bf16, got 'fp8'"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD)
def test_bad_input(backend, name) -> None:
    change, error, message = BAD[name]
    case = make_grouped_case((5, 3, 4))
    change(case)
    before = case.w.clone()
    with pytest.raises(error, match=re.escape(message)):
        case.run(backend)
    if name != "stream":
        with pytest.raises((RuntimeError, ValueError, TypeError)):
            OPS[backend](*case.positional())
    assert torch.equal(case.w.nan_to_num(), before.nan_to_num())


def test_double_has_one_precision() -> None:
    with pytest.raises(ValueError, match="precision of a float64 w must be 'ieee', got 'bf16'"):
        make_grouped_case((5, 3, 4), dtype=torch.float64, precision="bf16").run()


def test_reasons_against_the_epilogue() -> None:
    fits = {"method": "sgld", "micro_batches": 1, "uses": 1}
    assert ops.epilogue_refusal(**fits) == ""
    for change, words in (
        ({"method": "rmsprop_sgld"}, "the method is 'rmsprop_sgld'"),
        ({"micro_batches": 4}, "4 micro-batches"),
        ({"uses": 2}, "uses the weight 2 times"),
        ({"uses": 0}, "uses the weight 0 times"),
        ({"recomputed": True}, "runs again in the backward"),
        ({"masked": True}, "a mask"),
        ({"low": True}, "rounded copy"),
        ({"metrics": True}, "metrics"),
        ({"exact": True}, "exact mode"),
        ({"given_noise": True}, "noise is given"),
    ):
        assert words in ops.epilogue_refusal(**(fits | change))
