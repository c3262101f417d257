"""The co-moment ops as torch sees them, and their errors."""

import re

import pytest
import torch
from comoment_cases import BACKENDS, joined, make_draws

from sltfast import ops
from sltfast.ops import registration

NAMES = [name for name in registration.OPS if name.startswith("comoment")]


def op(backend: str, name: str):
    return getattr(torch.ops.sltfast, f"{backend}_{name}").default


def arguments(name: str) -> list[tuple]:
    """Calls of every kind."""
    x, y, valid = make_draws(2, 6, 9), make_draws(2, 6, 5, seed=1), torch.ones(2, 6, dtype=torch.bool)
    own, both, lean = joined(x), joined(x, y), joined(x, made={"block": False})
    block = both.block[0].contiguous()
    return {
        "comoment_": [(*own, x, None, None, "fp64"), (*both, x, y, valid, "fp32"), (*lean, x, None, None, "fp64")],
        "comoment_merge_": [(*own, *joined(x)), (*both, *joined(x, y))],
        "comoment_correlation_": [(torch.zeros(2, 9, 5), both.block, both.m2_x, both.m2_y)],
        "comoment_standardise_": [(torch.zeros(2, 6, 9), x, own.mean_x, own.m2_x, valid)],
        "comoment_top_k_": [
            (torch.zeros(9, 2).double(), torch.full((9, 2), -1), block, 3, row, True) for row in (None, 2)
        ],
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_one(name) -> None:
    schemas = {str(op(backend, name)._schema).split(name, 1)[1] for backend in ("native", "triton", "reference")}
    assert schemas == {registration.OPS[name].schema}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(backend, name) -> None:
    for call in arguments(name):
        torch.library.opcheck(op(backend, name), call)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiles_in_one_graph(backend) -> None:
    x, y = make_draws(2, 20, 9), make_draws(2, 20, 5, seed=1)

    def everything(x, y):
        state = ops.comoments(2, 9, 5)
        ops.comoment_(state, x[:, :7], y[:, :7], backend=backend)
        other = ops.comoments(2, 9, 5)
        ops.comoment_(other, x[:, 7:], y[:, 7:], backend=backend)
        ops.comoment_merge_(state, other, backend=backend)
        r = ops.comoment_correlation(state, backend=backend)
        values, indices = torch.zeros(9, 2, dtype=torch.float64), torch.full((9, 2), -1)
        ops.comoment_top_k_(values, indices, r[0], backend=backend)
        return r, values, indices, ops.correlate_draws(x[0], backend=backend)

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x, y), everything(x, y), strict=True):
        assert torch.equal(got, want)


X, Y = make_draws(2, 6, 9), make_draws(2, 6, 5, seed=1)


def into(*, n=9, m=None, x=X, **options):
    return lambda backend: ops.comoment_(ops.comoments(2, n, m), x, backend=backend, **options)


def rank(**changes):
    given = {"values": torch.zeros(4, 2), "indices": torch.zeros(4, 2).long(), "block": torch.zeros(4, 6)} | changes
    return lambda backend: ops.comoment_top_k_(backend=backend, **given)


def broken_state(**changes):
    return lambda backend: ops.comoment_(ops.comoments(2, 9)._replace(**changes), X, backend=backend)


BAD_INPUT = {
    "x flat": (into(x=X[0]), ValueError, "x must have shape [G, k, N], got [6, 9]"),
    "x dtype": (into(x=X.half()), TypeError, "x must be float32 or float64, got float16"),
    "x shape": (into(n=8), ValueError, "x must have shape [2, 6, 8], got [2, 6, 9]"),
    "x strided": (into(x=X.mT.contiguous().mT), ValueError, "x must have contiguous rows"),
    "y missing": (into(m=5), ValueError, "y is missing, but this state has a mean_y"),
    "y needless": (into(y=Y), ValueError, "y was given, but in this state y is x"),
    "y shape": (into(m=4, y=Y), ValueError, "y must have shape [2, 6, 4], got [2, 6, 5]"),
    "valid shape": (into(valid=torch.ones(6, dtype=torch.bool)), ValueError, "valid must have shape [2, 6], got [6]"),
    "valid dtype": (into(valid=torch.ones(2, 6)), TypeError, "valid must be bool or uint8, got float32"),
    "precision": (into(precision="tf32"), ValueError, "precision must be fp32 or fp64, got 'tf32'"),
    "count": (broken_state(draws=torch.zeros(2)), TypeError, "count must be float64, got float32"),
    "mean": (broken_state(mean_x=torch.zeros(9).double()), ValueError, "mean_x must have shape [G, N], got [9]"),
    "m2": (broken_state(m2_x=torch.zeros(2, 8).double()), ValueError, "m2_x must have shape [2, 9], got [2, 8]"),
    "one of y": (broken_state(mean_y=torch.zeros(2, 9).double()), ValueError, "mean_y and m2_y go together"),
    "block": (broken_state(block=torch.zeros(2, 9, 9)), TypeError, "block must be float64, got float32"),
    "merge shapes": (
        lambda b: ops.comoment_merge_(ops.comoments(2, 9), ops.comoments(2, 8), backend=b),
        ValueError,
        "the states must have the same G, N and M, got (2, 9, 9) and (2, 8, 8)",
    ),
    "merge y": (
        lambda b: ops.comoment_merge_(ops.comoments(2, 9), ops.comoments(2, 9, 9), backend=b),
        ValueError,
        "in one of them y is x",
    ),
    "merge block": (
        lambda b: ops.comoment_merge_(ops.comoments(2, 9), ops.comoments(2, 9, block=False), backend=b),
        ValueError,
        "block must be kept by both states or by neither",
    ),
    "out": (
        lambda b: ops.comoment_correlation(joined(X), out=torch.zeros(2, 9, 8), backend=b),
        ValueError,
        "out must have shape [2, 9, 9], got [2, 9, 8]",
    ),
    "out dtype": (
        lambda b: ops.comoment_correlation(joined(X), out=torch.zeros(2, 9, 9).long(), backend=b),
        TypeError,
        "out must be float32 or float64, got int64",
    ),
    "z": (
        lambda b: ops.comoment_standardise_(torch.zeros(2, 6, 8), X, *joined(X)[1:3], backend=b),
        ValueError,
        "z must have shape [2, 6, 9], got [2, 6, 8]",
    ),
    "values dtype": (rank(values=torch.zeros(4, 2).double()), TypeError, "values must be float32, got float64"),
    "indices shape": (rank(indices=torch.zeros(4, 3).long()), ValueError, "indices must have shape [4, 2], got [4, 3]"),
    "column": (rank(column=-1), ValueError, "column and row must be >= 0, got -1 and None"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input(backend, name) -> None:
    call, error, message = BAD_INPUT[name]
    with pytest.raises(error, match=re.escape(message)):
        call(backend)


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match="groups, n and m must be >= 0, got 1, -2 and None"):
        ops.comoments(1, -2)
    lean = ops.comoments(1, 3, block=False)
    for read in (ops.comoment_covariance, ops.comoment_correlation):
        with pytest.raises(ValueError, match="this state keeps no block"):
            read(lean)
    with pytest.raises(ValueError, match=re.escape("draws must have shape [k, N], got [2, 6, 9]")):
        ops.correlate_draws(X)
    with pytest.raises(ValueError, match=re.escape("out must be torch.float32 of shape [9, 9]")):
        ops.correlate_draws(X[0], out=torch.zeros(9, 9).double())
    with pytest.raises(ValueError, match="k must be >= 0, got -1"):
        ops.rank_draws(X[0], k=-1)


def test_a_call_leaves_global_randomness_and_draws_alone() -> None:
    torch.manual_seed(3)
    state, before = torch.get_rng_state(), X.clone()
    ops.comoment_correlation(joined(X))
    ops.rank_draws(X[0], k=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(X, before)
