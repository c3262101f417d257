"""A spread batch is its whole batch under every operation, and stays unwritten under sums."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sltfast.stacking.heads.spread import Spread, written

RESTRICTIONS, CHAINS, ROWS = 2, 3, 2
LANES = RESTRICTIONS * CHAINS


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shared(seed: int = 1) -> tuple[Spread, Tensor]:
    base = noise(1, ROWS, 4, 5, seed=seed)
    return Spread.of(base, LANES), base.expand(LANES, -1, -1, -1).reshape(LANES * ROWS, 4, 5)


def own(seed: int = 2) -> tuple[Spread, Tensor, list[int]]:
    base, lanes = noise(RESTRICTIONS, ROWS, 4, 5, seed=seed), noise(LANES, ROWS, 4, 5, seed=seed + 1)
    written_times: list[int] = []

    def write(base: Tensor) -> Tensor:
        written_times.append(1)
        return (base.repeat_interleave(CHAINS, dim=0) + lanes).reshape(LANES * ROWS, 4, 5)

    return Spread.of(base, LANES, write), write(base), written_times


def same(found: Tensor, expected: Tensor) -> None:
    assert type(written(found)) is Tensor
    torch.testing.assert_close(written(found), expected, rtol=1e-14, atol=1e-14)  # a sum in another order


def test_shape_is_told_without_writing() -> None:
    spread, whole, times = own()
    times.clear()
    assert (spread.shape, spread.dtype, spread.ndim, len(spread)) == (whole.shape, whole.dtype, 3, LANES * ROWS)
    assert spread.size(0) == LANES * ROWS
    assert times == []


def test_sums_stay_unwritten_and_are_exact() -> None:
    (a, whole_a), (b, whole_b), (c, whole_c, times) = shared(1), shared(4), own()
    times.clear()
    total = a + c + b
    assert isinstance(total, Spread)
    assert times == []
    same(total, whole_a + whole_c + whole_b)
    assert times == [1]
    assert isinstance(a + b, Spread)
    assert (a + b).shared is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", [1, 4])
def test_what_all_lanes_share_is_added_to_a_plain_batch(seed: int) -> None:
    spread, whole = shared(seed)
    plain = noise(LANES * ROWS, 4, 5, seed=9)
    same(plain + spread, plain + whole)
    same(spread + plain, whole + plain)
    same(plain.add(spread), plain + whole)


def test_a_written_batch_is_written_once() -> None:
    spread, whole, times = own()
    times.clear()
    same(torch.tanh(spread), whole.tanh())
    same(spread * 2, whole * 2)
    same(shared()[0] + spread, shared()[1] + whole)
    assert times == [1]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.layer_norm(x, (5,)),
        lambda x: x.view(LANES, ROWS, 4, 5)[1],
        lambda x: x[:, -1],
        lambda x: torch.cat([x, x]),
        lambda x: x - 1,
        lambda x: x.add(x, alpha=3),
        lambda x: nn.Linear(5, 2, dtype=torch.float64).requires_grad_(False)(x) * 0,
    ],
)
def test_every_other_operation_sees_the_whole_batch(function) -> None:
    spread, whole = shared()
    same(function(spread), function(whole))
    spread, whole, _ = own()
    same(function(spread), function(whole))


def test_dropout_that_does_not_drop_keeps_it_unwritten() -> None:
    spread, whole = shared()
    assert F.dropout(spread, 0.5, training=False) is spread
    assert F.dropout(spread, 0.0) is spread
    kept = F.dropout(spread, 0.5)
    assert bool(((kept == 0) | (kept == 2 * whole)).all())


def test_writing_in_place_is_seen_by_every_later_use() -> None:
    for spread, whole in (shared(), own()[:2]):
        base = spread.base.clone()
        alias = spread
        alias += 1
        spread.mul_(2)
        same(spread, (whole + 1) * 2)
        same(spread + shared()[0], (whole + 1) * 2 + shared()[1])
        assert spread.shared is None
        assert torch.equal(spread.base, base)


def test_one_lane_does_not_write_into_the_base() -> None:
    base = noise(1, ROWS, 4, 5)
    spread = Spread.of(base.clone(), 1)
    spread.mul_(2)
    assert torch.equal(spread.base, base)


def test_nested_arguments_are_written() -> None:
    spread, whole = shared()
    found = written(({"a": [spread, None]}, 3, "x"))
    assert torch.equal(found[0]["a"][0], whole)
    assert found[0]["a"][1:] == [None]
    assert found[1:] == (3, "x")
