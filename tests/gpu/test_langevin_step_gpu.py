"""langevin_step_ on a GPU: the CPU's numbers, no host synchronisation, and a CUDA graph that replays it."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from langevin_cases import Case, make_case, rounding_bound
from torch import Tensor

from sltfast import ops

pytestmark = pytest.mark.gpu
BACKENDS = ("native", "triton")
NORMAL_ERROR = 2e-6  # documented distance of a native normal from the exact one
LOW = (torch.bfloat16, torch.float16)


def to(case: Case, device: str) -> Case:
    """The same on `device`; segments stay on the CPU."""
    out = copy.copy(case)
    for name in ("w", "hyper", "step", "chains"):
        setattr(out, name, getattr(case, name).to(device))
    out.grads, out.anchors = ([t.to(device) for t in tensors] for tensors in (case.grads, case.anchors))

    def moved(value):
        if isinstance(value, Tensor):
            return value.to(device)
        return [t.to(device) for t in value] if isinstance(value, list) else value

    out.keywords = {name: moved(value) for name, value in case.keywords.items()}
    return out


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Whatever makes the host wait for the device raises."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def assert_same_step(case: Case, backend: str) -> Case:
    ours, truth = to(to(case, "cuda").run(backend), "cpu"), case.run("reference")
    for got, want, bound in zip(ours.rows(), truth.rows(), rounding_bound(case, NORMAL_ERROR), strict=True):
        assert not ((got.double() - want.double()).abs() > bound).any()
    for name in ("alive", "death_step"):
        assert torch.equal(ours.keywords[name], truth.keywords[name])
    u = torch.finfo(case.w.dtype).eps / 2
    if case.keywords.get("thermostat") is not None:
        # Σm² of positive terms: at most 64 of w's precision in a row, then float64; each m within its own roundings
        tolerance = (64 + 16) * u + 2 * NORMAL_ERROR
        assert torch.allclose(ours.keywords["thermostat"], truth.keywords["thermostat"], rtol=tolerance, atol=0)
    if case.keywords.get("metrics") is not None:
        got, want = ours.keywords["metrics"][:, :6], truth.keywords["metrics"][:, :6]
        assert torch.allclose(got, want, rtol=(64 + 16) * u + NORMAL_ERROR, atol=0, equal_nan=True)
    return ours


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ops.METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("masked", "runs"), [(False, None), (True, None), (False, (8, 32)), (True, (3, 7))])
def test_step(backend, method, dtype, masked, runs) -> None:
    assert_same_step(make_case(method=method, dtype=dtype, masked=masked, runs=runs), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("grad", "anchor", "low"), list(itertools.product(LOW, LOW, LOW)))
def test_low_precision(backend, grad, anchor, low) -> None:
    ours = assert_same_step(make_case(grad_dtype=grad, anchor_dtype=anchor, low_dtype=low), backend)
    for got, w in zip(ours.keywords["low"], ours.rows(), strict=True):
        assert torch.equal(got, w.to(low))


def large(method: str, chains: int = 4) -> Case:
    """Whole aligned tensors of 2^22 coordinates in all: the path of real models."""
    n = 1 << 20
    case = make_case((n,) * 4, chains=1, method=method, measured=False)
    segments = torch.tensor([[s * n, n, s * n, n, 0] for s in range(4)])
    random = torch.Generator().manual_seed(1)
    keywords = {"seed": 5, "method": method}
    for name in ("alive", "death_step"):
        keywords[name] = case.keywords[name].expand(chains).clone()
    state = "v" if method.startswith("rmsprop") else "momentum" if method in ("sghmc", "sgnht") else None
    if state:
        keywords[state] = torch.rand(chains, 4 * n, generator=random)
    if method == "sgnht":
        keywords["thermostat"] = torch.full((chains,), 0.1, dtype=torch.float64)
    return Case(
        w=torch.randn(chains, 4 * n, generator=random),
        grads=[torch.randn(chains, n, generator=random) for _ in range(4)],
        anchors=case.anchors,
        segments=segments,
        hyper=case.hyper.expand(chains, 6).contiguous(),
        step=torch.tensor(3),
        chains=torch.arange(chains),
        keywords=keywords,
    )


@pytest.mark.parametrize("method", ops.METHODS)
def test_native_gives_the_bits_of_the_cpu(method) -> None:
    case = large(method)
    assert torch.equal(to(case, "cuda").run("native").w.cpu(), case.run("native").w)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ops.METHODS)
def test_the_host_never_waits(backend, method) -> None:
    case = to(large(method, chains=1), "cuda")
    case.run(backend)  # compiles what has to be compiled
    after = copy.deepcopy(case)
    with no_synchronisation():
        ops.langevin_step_(
            after.w, after.grads, after.anchors, after.segments, after.hyper, after.step, after.chains,
            backend=backend, **after.keywords,
        )  # fmt: skip
    assert after.w.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ops.METHODS)
def test_a_graph_replays_the_steps(backend, method) -> None:
    """Ten captured steps and ten eager ones have the same bits: the step index is read from the device."""
    eager = to(large(method, chains=2), "cuda")
    replayed = copy.deepcopy(eager)

    def move(case: Case) -> None:
        ops.langevin_step_(
            case.w, case.grads, case.anchors, case.segments, case.hyper, case.step, case.chains,
            backend=backend, **case.keywords,
        )  # fmt: skip
        case.step += 1

    warm = copy.deepcopy(eager)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        move(warm)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        move(replayed)
    for _ in range(10):
        move(eager)
        graph.replay()
    torch.cuda.synchronize()
    assert int(replayed.step) == int(eager.step)
    assert torch.equal(replayed.w, eager.w)


def test_a_chain_dies_on_the_device_alone() -> None:
    case = large("sgld")
    case.grads[2][1, 12345] = float("nan")
    after = to(case, "cuda").run("native")
    assert after.keywords["alive"].tolist() == [True, False, True, True]
    assert after.keywords["death_step"].tolist() == [-1, 3, -1, -1]
    assert after.w.isfinite().all()
