"""The ops as torch sees them, and their errors."""

import math
import re

import pytest
import torch
from langevin_cases import STATE, make_case, positional

from sltfast import _C, ops
from sltfast.ops import registration
from sltfast.ops.langevin_arguments import check_langevin_step

OPS = {
    "native": torch.ops.sltfast.native_langevin_step_.default,
    "reference": torch.ops.sltfast.reference_langevin_step_.default,
}


def test_schemas_are_one() -> None:
    native, reference = (str(op._schema).split("langevin_step_", 1)[1] for op in OPS.values())
    assert native == reference
    assert registration.OPS["langevin_step_"].schema == native


@pytest.mark.parametrize("backend", OPS)
@pytest.mark.parametrize("method", ops.METHODS)
def test_opcheck(backend, method) -> None:
    case = make_case((5, 63), chains=2, method=method, low_dtype=torch.bfloat16, masked=True, external_noise=True)
    # the schema test compares with what was there before: poison would differ from itself
    case.w.nan_to_num_()
    for tensor in (case.keywords["metrics"], *case.keywords["low"]):
        tensor.zero_()
    for name in STATE[method]:
        case.keywords[name].nan_to_num_()
    torch.library.opcheck(OPS[backend], positional(case))


@pytest.mark.parametrize("backend", OPS)
def test_compiles_in_one_graph(backend) -> None:
    case = make_case((5, 63), chains=2, method="rmsprop_sgld", low_dtype=torch.bfloat16)
    expected = case.run(backend)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(w, grads, v, low, metrics, alive, death_step):
        ops.langevin_step_(
            w, grads, case.anchors, case.segments, case.hyper, case.step, case.chains,
            seed=case.keywords["seed"], method="rmsprop_sgld", v=v, low=low, metrics=metrics, alive=alive,
            death_step=death_step, backend=backend,
        )  # fmt: skip
        return w * 2

    k = case.keywords
    doubled = step(case.w, case.grads, k["v"], k["low"], k["metrics"], k["alive"], k["death_step"])
    assert torch.equal(case.w.nan_to_num(), expected.w.nan_to_num())
    assert torch.equal(doubled.nan_to_num(), (expected.w * 2).nan_to_num())
    assert torch.equal(k["metrics"], expected.keywords["metrics"])


def broken(change, method="rmsprop_sgld"):
    case = make_case((4, 9), chains=2, method=method, low_dtype=torch.bfloat16, masked=True)
    change(case)
    return case


def keyword(name, value):
    return lambda case: case.keywords.__setitem__(name, value)


def field(name, value):
    return lambda case: setattr(case, name, value)


def segment(row, column, value):
    return lambda case: case.segments.__setitem__((row, column), value)


BAD_INPUT = {
    "w half": (field("w", torch.zeros(2, 20).half()), TypeError, "w must be float32 or float64, got float16"),
    "w flat": (field("w", torch.zeros(20)), ValueError, "w must have shape [C, P], got [20]"),
    "w strided": (field("w", torch.zeros(20, 2).t()), ValueError, "w must be contiguous"),
    "grads missing": (lambda c: c.grads.pop(), ValueError, "2 segments, got 1 tensors"),
    "grads shape": (lambda c: c.grads.__setitem__(0, torch.zeros(7)), ValueError, "grads[0] must hold 8 values"),
    "grads dtype": (lambda c: c.grads.__setitem__(0, torch.zeros(8).long()), TypeError, "grads[0] must be float32"),
    "grads complex": (lambda c: c.grads.__setitem__(0, torch.zeros(8) * 1j), TypeError, "got complex64"),
    "anchors empty": (lambda c: c.anchors.__setitem__(1, torch.zeros(0)), ValueError, "anchors[1] must hold 9 values"),
    "anchors double": (lambda c: c.anchors.__setitem__(0, c.anchors[0].double()), TypeError, "got float64"),
    "segments dtype": (field("segments", torch.zeros(2, 5)), TypeError, "segments must be int64, got float32"),
    "segments shape": (field("segments", torch.zeros(2, 4, dtype=torch.int64)), ValueError, "shape [S, 5]"),
    "segments long": (segment(1, 1, 99), ValueError, "beyond the 20 coordinates of a row of w"),
    "segments overlap": (segment(1, 0, 2), ValueError, "must not overlap"),
    "segments negative": (segment(0, 2, -1), ValueError, "segments[0] must not be negative"),
    "segments run": (segment(0, 3, 0), ValueError, "segments[0] run must be >= 1, got 0"),
    "hyper dtype": (lambda c: setattr(c, "hyper", c.hyper.float()), TypeError, "hyper must be float64"),
    "hyper shape": (lambda c: setattr(c, "hyper", c.hyper[:1]), ValueError, "hyper must have shape [2, 6], got [1, 6]"),
    "step": (field("step", torch.tensor([3])), ValueError, "step must have shape [], got [1]"),
    "chains": (field("chains", torch.tensor([1, 2], dtype=torch.int32)), TypeError, "chains must be int64, got int32"),
    "seed": (keyword("seed", -1), ValueError, "seed must be in 0..2^64-1, got -1"),
    "stream": (keyword("stream", 256), ValueError, "stream must be in 0..255, got 256"),
    "method": (keyword("method", "adam"), ValueError, "method must be one of sgld, rmsprop_sgld, rms"),
    "no v": (keyword("v", None), ValueError, "method 'rmsprop_sgld' needs v"),
    "needless v": (keyword("method", "sgld"), ValueError, "v must be None for method 'sgld'"),
    "v shape": (keyword("v", torch.zeros(2, 5)), ValueError, "v must have shape [2, 20], got [2, 5]"),
    "v dtype": (keyword("v", torch.zeros(2, 20).double()), TypeError, "v must be float32, got float64"),
    "needless momentum": (keyword("momentum", torch.zeros(2, 20)), ValueError, "momentum must be None for method 'rms"),
    "needless thermostat": (keyword("thermostat", torch.ones(2)), ValueError, "thermostat must be None for method"),
    "rounding of nothing": (
        lambda c: c.keywords.update(low=[], stochastic_rounding=True),
        ValueError,
        "give low, or leave it off",
    ),
    "alpha": (keyword("rms_alpha", 1.5), ValueError, "rms_alpha must be in [0, 1], got 1.5"),
    "eps": (keyword("rms_eps", math.nan), ValueError, "rms_eps must be >= 0, got nan"),
    "low dtype": (keyword("low", [torch.zeros(2, 4), torch.zeros(2, 9)]), TypeError, "low[0] must be bfloat16"),
    "low strided": (
        lambda c: c.keywords["low"].__setitem__(1, torch.zeros(9, 2).bfloat16().t()),
        ValueError,
        "low[1] must be contiguous",
    ),
    "masks dtype": (keyword("masks", [torch.ones(4), torch.ones(9)]), TypeError, "masks[0] must be bool, got float32"),
    "masks shape": (
        lambda c: c.keywords["masks"].__setitem__(1, torch.ones(8, dtype=torch.bool)),
        ValueError,
        "masks[1] must hold 9 values, or none (all coordinates move), got shape [8]",
    ),
    "loss dtype": (keyword("loss", torch.zeros(2)), TypeError, "loss must be float64, got float32"),
    "loss shape": (keyword("loss", torch.zeros(3).double()), ValueError, "loss must have shape [2], got [3]"),
    "alive": (keyword("alive", torch.ones(2)), TypeError, "alive must be bool or uint8, got float32"),
    "death_step": (keyword("death_step", torch.zeros(2).int()), TypeError, "death_step must be int64, got int32"),
    "metrics": (keyword("metrics", torch.zeros(2, 8).double()), ValueError, "metrics must have shape [2, 9]"),
    "noise": (keyword("noise", [torch.zeros(2, 4)]), ValueError, "noise must hold one tensor a segment"),
}


@pytest.mark.parametrize("backend", OPS)
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(backend, name) -> None:
    change, error, message = BAD_INPUT[name]
    case = broken(change)
    with pytest.raises(error, match=re.escape(message)):
        case.run(backend)


@pytest.mark.parametrize("name", [name for name in BAD_INPUT if name != "seed"])
def test_native_op_refuses_by_itself_and_writes_nothing(name) -> None:
    case = broken(BAD_INPUT[name][0])
    before = case.w.clone()
    arguments = list(positional(case))
    arguments[8] = case.keywords.get("stream", 0)
    arguments[20:22] = [case.keywords.get("rms_alpha", 0.99), case.keywords.get("rms_eps", 0.1)]
    with pytest.raises((RuntimeError, NotImplementedError)):
        OPS["native"](*arguments)
    assert torch.equal(case.w.nan_to_num(), before.nan_to_num())


BAD_MOMENTUM = {
    "no momentum": (keyword("momentum", None), ValueError, "method 'sgnht' needs momentum, the last move"),
    "no thermostat": (keyword("thermostat", None), ValueError, "method 'sgnht' needs thermostat, float64 [C]"),
    "thermostat dtype": (keyword("thermostat", torch.ones(2)), TypeError, "thermostat must be float64, got float32"),
    "thermostat shape": (keyword("thermostat", torch.ones(3).double()), ValueError, "thermostat must have shape [2]"),
    "momentum shape": (keyword("momentum", torch.zeros(2, 5)), ValueError, "momentum must have shape [2, 20]"),
    "momentum dtype": (keyword("momentum", torch.zeros(2, 20).double()), TypeError, "momentum must be float32"),
    "friction": (keyword("friction", 0.0), ValueError, "friction must be in (0, 1], got 0.0"),
    "friction nan": (keyword("friction", math.nan), ValueError, "friction must be in (0, 1], got nan"),
    "friction large": (keyword("friction", 1.1), ValueError, "friction must be in (0, 1], got 1.1"),
}


@pytest.mark.parametrize("backend", OPS)
@pytest.mark.parametrize("name", BAD_MOMENTUM)
def test_bad_momentum(backend, name) -> None:
    change, error, message = BAD_MOMENTUM[name]
    case = broken(change, "sgnht")
    before = case.w.clone()
    with pytest.raises(error, match=re.escape(message)):
        case.run(backend)
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        OPS[backend](*positional(case))
    assert torch.equal(case.w.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("name", ["grads", "anchors"])
def test_devices_must_agree(name) -> None:
    # asked of the rules alone: an op that sees a meta tensor is only traced
    case = make_case((4, 9), chains=1)
    getattr(case, name)[0] = torch.zeros(4, device="meta")
    with pytest.raises(ValueError, match=re.escape(f"{name}[0] must be on cpu, got meta")):
        check_langevin_step(*positional(case))


def test_prepared_step_refuses_when_it_is_made() -> None:
    case = broken(field("hyper", torch.zeros(2, 5).double()))
    with pytest.raises(ValueError, match=re.escape("hyper must have shape [2, 6], got [2, 5]")):
        ops.LangevinStep(case.w, case.anchors, case.segments, case.hyper, case.step, case.chains, **case.keywords)


def test_backend_names() -> None:
    with pytest.raises(ValueError, match="backend must be one of auto, native, triton, reference, got 'cuda'"):
        make_case().run("cuda")


def test_backend_says_why_it_is_refused() -> None:
    op, gpu = "langevin_step_", torch.device("cuda")
    assert "native" not in ops.backend.refusals(op, "cpu")
    assert "has no CUDA" in ops.backend.refusals(op, gpu)["native"]
    assert "riton" in ops.backend.refusals(op, "cpu")["triton"]
    with pytest.raises(RuntimeError, match="backend 'native' cannot run langevin_step_ on cuda: this torch"):
        ops.backend.choose(op, "native", gpu)
    assert ops.backend.choose(op, "auto", torch.device("cpu")) == "native"
    assert ops.backend.choose(op, "auto", torch.device("meta")) == "reference"


def test_auto_takes_the_first_of_an_ops_own_order_that_runs(monkeypatch) -> None:
    gpu = torch.device("cuda")
    refused: dict[str, str] = {}
    monkeypatch.setattr(ops.backend, "refusals", lambda op, device: refused)
    assert ops.backend.choose("langevin_step_", "auto", gpu) == "native"
    assert ops.backend.choose("grouped_gradient_step_", "auto", gpu) == "triton"
    refused["triton"] = "not installed"
    assert ops.backend.choose("grouped_gradient_step_", "auto", gpu) == "native"
    refused["native"] = "not built"
    assert ops.backend.choose("grouped_gradient_step_", "auto", gpu) == "reference"


def test_build_facts() -> None:
    facts = ops.backend.build_facts()
    assert facts["isa"] == facts["isa_runnable"][-1]
    assert set(facts["isa_runnable"]) <= set(facts["isa_compiled"])
    assert facts["torch_target"] == "2.10"
    assert facts["cuda_archs"] == []
    with pytest.raises(ValueError, match="isa must be one of generic"):
        _C.use_isa("sse9")
