"""Stochastic rounding of the low-precision copy: neighbours only, unbiased, the same bits everywhere."""

import math

import pytest
import torch
from langevin_cases import ISAS, WIDEST, Case, make_case
from torch import Tensor

from sltfast import _C, ops
from sltfast.ops.reference.philox import philox_words
from sltfast.ops.reference.rounding import stochastic_round

LOW = (torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def _widest_isa_afterwards():
    yield
    _C.use_isa(WIDEST)


def rounded(w: Tensor, low: torch.dtype, *, first: int = 0, seed: int = 9, step: int = 4) -> Tensor:
    """The native op's rounded copy of [C, n] weights that do not move."""
    chains, n = w.shape
    case = Case(
        w=w.clone(),
        grads=[torch.empty(0)],
        anchors=[torch.zeros(n)],
        segments=torch.tensor([[0, n, first, n, 0]]),
        hyper=torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, math.inf]] * chains, dtype=torch.float64),
        step=torch.tensor(step),
        chains=torch.arange(chains),
        keywords={"seed": seed, "low": [torch.zeros(chains, n, dtype=low)], "stochastic_rounding": True},
    )
    return case.run().keywords["low"][0]


def neighbours(x: Tensor, low: torch.dtype) -> tuple[Tensor, Tensor]:
    """The largest value of `low` that is <= x and the smallest that is >= x."""
    near = x.to(low)
    step = torch.where(near.float() > x, -math.inf, math.inf).to(low)
    other = torch.where(near.float() == x, near, torch.nextafter(near, step))
    return torch.minimum(near, other), torch.maximum(near, other)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("runs", [None, (3, 7), (64, 192)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_agree_bit_for_bit(isa, low, runs, dtype) -> None:
    _C.use_isa(isa)
    # a step of zero length: both backends round the same weights
    case = make_case(low_dtype=low, runs=runs, dtype=dtype, masked=True)
    case.hyper[:, 0] = 0.0
    ours = case.run("native", stochastic_rounding=True)
    truth = case.run("reference", stochastic_rounding=True)
    for got, want, w in zip(ours.keywords["low"], truth.keywords["low"], case.rows(), strict=True):
        assert torch.equal(got, want)
        if w.numel() > 100:
            assert not torch.equal(got, w.to(low))


@pytest.mark.parametrize("low", LOW)
def test_a_step_is_rounded_after_it_is_made_and_not_changed_by_it(low) -> None:
    case = make_case(low_dtype=low)
    ours, nearest = case.run(stochastic_rounding=True), case.run()
    assert torch.equal(ours.w.nan_to_num(), nearest.w.nan_to_num())
    for copy, w in zip(ours.keywords["low"], ours.rows(), strict=True):
        down, up = neighbours(w, low)
        assert ((copy == down) | (copy == up)).all()


def test_words_are_those_of_the_elements() -> None:
    ids = {"seed": 9, "stream": ops.STREAM_ROUNDING, "step": 4, "chain": 0}
    w = torch.full((1, 999), 1.0 + 2.0**-8)  # half way to the next bfloat16: up where the highest bit is set
    words = philox_words(torch.arange(5, 5 + 999), **ids)
    assert torch.equal(rounded(w, torch.bfloat16, first=5)[0].float() > 1.0, words >= 1 << 31)
    alone = philox_words(torch.tensor([700]), **ids)
    assert alone.item() == words[695]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("low", LOW)
def test_what_is_exact_stays_and_special_values_too(isa, low) -> None:
    _C.use_isa(isa)
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(low)
    finite = every[every.isfinite()]
    kept = rounded(finite.float().expand(2, -1), low)
    assert torch.equal(kept, finite.expand(2, -1))
    special = torch.tensor([math.inf, -math.inf, math.nan])
    words = torch.tensor([0xFFFFFFFF] * 3)
    assert torch.equal(stochastic_round(special, words, low).nan_to_num(), special.to(low).nan_to_num())
    assert torch.equal(rounded(special[None, :2], low)[0], special[:2].to(low))
    assert rounded(special[None], low)[0, 2].isnan()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("low", LOW)
def test_unbiased(isa, low) -> None:
    """Mean of N roundings of x: Bernoulli(p) between neighbours, p the fraction; |mean − x| < 5·√(p(1 − p)/N)·spacing.

    p is kept to 16 bits or more over normal numbers and to 21 over float16's subnormals: a truncation of at most
    2^-21 of the spacing there, none here at the standard error's scale.
    """
    _C.use_isa(isa)
    count = 1 << 16
    scales = [1.0, -1.3, 3e4, 7.1e-3] + ([5.3e-5, -3.01e-6, 4.9e-8, 1e-8] if low == torch.float16 else [1e-30, -2e38])
    for scale in scales:
        for fraction in (0.01, 0.37, 0.5, 0.93):
            down = torch.tensor(scale).to(low)
            up = torch.nextafter(down, torch.tensor(math.inf, dtype=low))
            x = (down.double() + fraction * (up.double() - down.double())).float()
            down, up = neighbours(x, low)
            copies = rounded(x.expand(1, count), low, seed=int(1000 * fraction))[0]
            assert ((copies == down) | (copies == up)).all()
            spacing = up.double() - down.double()
            p = (x.double() - down.double()) / spacing
            error = 5 * (p * (1 - p) / count).sqrt() * spacing
            assert (copies.double().mean() - x.double()).abs() < error, (scale, fraction)


@pytest.mark.parametrize("low", LOW)
def test_probability_is_the_fraction_exactly(low) -> None:
    """Over all random words of k bits the number rounded up is the fraction in 2^-k."""
    k = 16 if low == torch.bfloat16 else 13
    words = torch.arange(1 << k) << (32 - k)
    for lost in (1, 77, (1 << k) - 1):
        x = torch.tensor(1.0) + lost * 2.0**-23
        up = stochastic_round(x.expand(1 << k), words, low).float() > 1.0
        assert up.sum() == lost


def test_different_steps_chains_and_seeds_round_differently() -> None:
    w = torch.full((2, 4096), 1.0 + 2.0**-8)
    drawn = [*rounded(w, torch.bfloat16), rounded(w, torch.bfloat16, step=5)[0], rounded(w, torch.bfloat16, seed=8)[0]]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            # independent halves agree in 2048 ± 32 places
            assert abs(int((one == other).sum()) - 2048) < 5 * 32
