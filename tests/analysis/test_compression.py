"""Compression against what it must do to weights, and its critical level against one that is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sltfast.analysis import critical_compression, factorised, pruned, quantised, rank_correlation


@pytest.mark.parametrize("levels", [2, 3, 5, 64])
def test_quantised_weights_take_so_many_values(levels: int) -> None:
    weight = torch.randn(50, 63, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded = quantised({"w": weight}, levels)["w"]
    spacing = 2 * float(weight.abs().max()) / (levels - 1)
    assert len(rounded.unique()) <= levels
    assert float((rounded - weight).abs().max()) <= spacing / 2 * (1 + 1e-12)
    assert float(rounded.abs().max()) == pytest.approx(float(weight.abs().max()))
    assert torch.equal(quantised({"w": torch.zeros(3, 3)}, levels)["w"], torch.zeros(3, 3))


def test_factorised_is_the_best_of_its_rank() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = torch.linalg.svdvals(weight)
    for rank in range(6):
        near = factorised({"w": weight}, rank)["w"]
        assert float((near - weight).norm()) == pytest.approx(float(values[rank:].norm()), abs=1e-12)
    assert factorised({"w": torch.ones(2, 3, 4)}, 1)["w"].shape == (2, 3, 4)


def test_pruned_keeps_the_largest() -> None:
    weights = {"a": torch.tensor([[1.0, -4.0]]), "b": torch.tensor([[3.0], [-2.0]])}
    left = pruned(weights, 2)
    assert left["a"].tolist() == [[0.0, -4.0]]
    assert left["b"].tolist() == [[3.0], [0.0]]
    assert weights["a"].tolist() == [[1.0, -4.0]]


def distance(weight: torch.Tensor):
    return lambda model: float((model.weight.detach() - weight).square().sum())


def test_the_critical_rank_is_known() -> None:
    """|W − W_r|² = Σ_{k>r} s_k² with s = 4, 2, 1, ½."""
    model = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5])))
    before = model.weight.detach().clone()
    for tolerance, rank in ((0.2, 4), (0.3, 3), (1.3, 2), (5.3, 1), (22.0, 0)):
        found = critical_compression(model, distance(before), tolerance, "factorisation")
        assert found.level == rank
        assert found.loss <= tolerance
        assert critical_compression(model, distance(before), tolerance, "pruning").level == rank
    assert torch.equal(model.weight.detach(), before)


def test_the_critical_number_of_levels_is_the_least_that_is_tolerated() -> None:
    model = nn.Linear(63, 31, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.rand(31, 63, generator=torch.Generator().manual_seed(2)) - 0.5)
    whole = model.weight.detach().clone()
    found = critical_compression(model, distance(whole), 0.1)
    assert float((quantised({"w": whole}, found.level)["w"] - whole).square().sum()) <= 0.1
    assert float((quantised({"w": whole}, found.level - 1)["w"] - whole).square().sum()) > 0.1
    # rounding errors are uniform over ±Δ/2 with Δ = 1/(n − 1): N·Δ²/12 = 0.1, and one level either way
    assert abs(found.level - (1 + math.sqrt(31 * 63 / 1.2))) <= 1.5
    assert found.bits == math.log2(found.level)


@pytest.mark.parametrize(
    ("model", "arguments", "match"),
    [
        (nn.Linear(2, 2), {"tolerance": 1.0, "scheme": "zip"}, "scheme must be one of"),
        (nn.Linear(2, 2), {"tolerance": 0.0}, "tolerance must be finite and > 0, got 0.0"),
        (nn.LayerNorm(3), {"tolerance": 1.0}, "nothing to compress"),
    ],
)
def test_bad_arguments(model: nn.Module, arguments: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        critical_compression(model, lambda _: 1.0, **arguments)


def test_levels_that_are_none() -> None:
    weights = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    with pytest.raises(ValueError, match="levels must be >= 2, got 1"):
        quantised(weights, 1)
    with pytest.raises(ValueError, match="rank must be >= 0, got -1"):
        factorised(weights, -1)
    with pytest.raises(ValueError, match=r"leave out \['b'\]"):
        factorised(weights, 1)
    with pytest.raises(ValueError, match="kept must be >= 0"):
        pruned(weights, -1)


def test_losses_that_are_no_numbers_and_tolerances_nothing_meets() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="the loss uncompressed is nan"):
        critical_compression(model, lambda _: math.nan, 1.0)
    losses = iter([0.0, *[9.0] * 30])
    with pytest.raises(ValueError, match="even the weakest quantisation, level 65536, raises the loss from 0 to 9"):
        critical_compression(model, lambda _: next(losses), 1.0)


def test_rank_correlation() -> None:
    assert rank_correlation([1.0, 2.0, 4.0, np.nan], [1, 10, 100, 0]).rho == pytest.approx(1.0)
    assert rank_correlation([1.0, 2.0, 3.0], [3, 2, 1]).rho == pytest.approx(-1.0)
    assert rank_correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]).rho == pytest.approx(0.8)  # 1 − 6·4/(5·24)
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [1, 2, 3]).rho)
    with pytest.raises(ValueError, match="three pairs of numbers, got 2"):
        rank_correlation([1, 2], [1, 2])
    with pytest.raises(ValueError, match="vectors of one length"):
        rank_correlation([1, 2, 3], [1, 2])
