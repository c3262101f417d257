"""`token_loss` as torch sees it, its errors, and its memory."""

import re
import subprocess
import sys

import pytest
import torch
from token_loss_cases import make_case
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sltfast import ops
from sltfast.ops import registration

BACKENDS = ("native", "reference")
NAMES = ("token_loss", "token_loss_backward", "token_loss_with_gradient")


def op(backend: str, name: str):
    return getattr(torch.ops.sltfast, f"{backend}_{name}").default


def positional(case, name: str) -> tuple:
    rest = (-100, 0.7, 3.0, "fp32")
    given = (case.hidden, case.unembedding, case.bias, case.targets)
    if name == "token_loss":
        return (*given, *rest)
    if name == "token_loss_with_gradient":
        return (*given, case.weights, *rest, True, case.bias is not None)
    lse = op("reference", "token_loss")(*(t if t is None else t.detach() for t in given), *rest)[1]
    return (case.weights, *given, lse, *rest, True, True, case.bias is not None)


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_one(name) -> None:
    native, reference = (str(op(b, name)._schema).split(name, 1)[1] for b in BACKENDS)
    assert native == reference
    assert registration.OPS[name].schema == native


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [False, True])
def test_opcheck(backend, name, bias) -> None:
    case = make_case(5, 3, 20, chains=2, own_weights=True, bias=bias)
    if name != "token_loss_backward":  # its own derivative is refused
        for t in case.parameters():
            t.requires_grad_()
    torch.library.opcheck(op(backend, name), positional(case, name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_in_one_graph(backend) -> None:
    case = make_case(6, 3, 20, chains=2, own_weights=True, bias=True, softcap=2.0)
    expected = case.with_gradient(backend)
    weighted = case.with_gradient(f"{backend}, weighted")

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(hidden, unembedding, bias):
        return ops.token_loss(hidden, unembedding, case.targets, bias=bias, softcap=2.0, backend=backend)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def total(hidden, unembedding, bias):
        return ops.token_loss(
            hidden, unembedding, case.targets, bias=bias, softcap=2.0, backend=backend, token_weights=case.weights
        )

    leaves = [t.clone().requires_grad_() for t in case.parameters()]
    got = loss(*leaves)
    (got * case.weights).sum().backward()
    assert torch.equal(got, expected[0])
    assert all(torch.equal(t.grad, e) for t, e in zip(leaves, expected[1:], strict=True))
    leaves = [t.clone().requires_grad_() for t in case.parameters()]
    got = total(*leaves)
    got.total.backward()
    assert torch.equal(got.losses, weighted[0])
    assert all(torch.equal(t.grad, e) for t, e in zip(leaves, weighted[1:], strict=True))


H, W, Y = torch.zeros(4, 3), torch.zeros(7, 3), torch.zeros(4, dtype=torch.int64)
BAD_INPUT = {
    "hidden int": ((H.long(), W, Y), {}, TypeError, "hidden must be float32 or float64 or bfloat16 or float16"),
    "hidden flat": ((H[0], W, Y[0]), {}, ValueError, "hidden must have shape [N, d] or [C, N, d], got [3]"),
    "depth": ((H, W[:, :2], Y), {}, ValueError, "unembedding must have shape [V, 3]"),
    "chains": ((H, W.expand(2, 7, 3), Y), {}, ValueError, "or [1, V, 3] for one a chain, got [2, 7, 3]"),
    "mixed": ((H, W.double(), Y), {}, TypeError, "unembedding must be float32 like hidden, got float64"),
    "bias dtype": ((H, W, Y), {"bias": torch.zeros(7).double()}, TypeError, "bias must be float32 like hidden"),
    "bias shape": ((H, W, Y), {"bias": torch.zeros(8)}, ValueError, "bias must have shape [7]"),
    "targets dtype": ((H, W, Y.int()), {}, TypeError, "targets must be int64, got int32"),
    "targets shape": ((H, W, Y[:3]), {}, ValueError, "targets must have shape [1, 4], got [1, 3]"),
    "target high": ((H, W, Y + 7), {}, ValueError, "targets must be in 0..6 or -100 (ignored), got 7..7"),
    "target low": ((H, W, Y - 1), {}, ValueError, "targets must be in 0..6 or -100 (ignored), got -1..-1"),
    "scale": ((H, W, Y), {"scale": float("inf")}, ValueError, "scale must be finite, got inf"),
    "softcap": ((H, W, Y), {"softcap": 0.0}, ValueError, "softcap must be finite and > 0, got 0.0 (None: no cap)"),
    "softcap inf": ((H, W, Y), {"softcap": float("inf")}, ValueError, "softcap must be finite and > 0, got inf"),
    "precision": ((H, W, Y), {"precision": "fp8"}, ValueError, "precision must be one of fp32, tf32, bf16, got 'fp8'"),
    "weights": ((H, W, Y), {"token_weights": torch.ones(3)}, ValueError, "token_weights must have shape [1, 4]"),
    "backend": ((H, W, Y), {"backend": "cuda"}, ValueError, "backend must be one of auto, native"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case) -> None:
    arguments, keywords, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=re.escape(message)):
        ops.token_loss(
            arguments[0].clone().requires_grad_(arguments[0].is_floating_point()), *arguments[1:], **keywords
        )


@pytest.mark.parametrize("options", [{}, {"bias": True, "scale": 0.7, "softcap": 3.0}], ids=["plain", "all"])
def test_few_logits_are_left_to_pytorch(options, monkeypatch) -> None:
    case = make_case(9, 5, 30, chains=2, own_weights=True, **options)
    dense, tiled = case.with_gradient("auto"), case.with_gradient("native")
    for a, b in zip(dense, tiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert torch.equal(dense[0], case.eager())
    limits = sys.modules["sltfast.ops.token_loss"].DENSE_LOGITS
    monkeypatch.setitem(limits, False, 9 * 30 * 2 - 1)
    with torch.no_grad():
        assert torch.equal(case.loss("auto"), case.loss("native"))
    assert torch.equal(case.to(torch.bfloat16).loss("auto"), case.to(torch.bfloat16).loss("native"))


class Largest(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)), 0)
        return out


def test_reference_never_holds_the_logits() -> None:
    tokens, vocabulary = 1100, 5000
    case = make_case(tokens, 2, vocabulary)
    for weighted in ("", ", weighted"):
        with Largest() as seen:
            case.with_gradient("reference" + weighted)
        assert 0 < seen.numel < 0.8 * tokens * vocabulary


PEAK = """
import resource, sys
import torch
from sltfast import ops

tokens, vocabulary = 4096, 40_000
torch.manual_seed(0)
hidden, unembedding = torch.randn(tokens, 8, requires_grad=True), torch.randn(vocabulary, 8, requires_grad=True)
targets = torch.randint(vocabulary, (tokens,))


def run(n):
    if sys.argv[1] == "weighted":
        ops.token_loss(hidden[:n], unembedding, targets[:n], token_weights=torch.ones(n)).total.backward()
    else:
        ops.token_loss(hidden[:n], unembedding, targets[:n]).sum().backward()


run(8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(tokens)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * tokens * vocabulary))
"""


@pytest.mark.parametrize("kind", ["plain", "weighted"])
def test_native_never_holds_the_logits(kind) -> None:
    # a slab is 64 MiB at most, a tenth of these logits; the gradients are 1.4 MiB
    run = subprocess.run([sys.executable, "-c", PEAK, kind], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.2
