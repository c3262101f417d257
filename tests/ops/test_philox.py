import pytest
import torch
from known_answers import PHILOX4X32
from langevin_cases import ISAS

from sltfast import _C, ops
from sltfast.ops.reference import philox as reference


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX4X32)
def test_known_answers(counter, key, words) -> None:
    assert tuple(_C.philox(counter, key)) == words
    drawn = reference.philox4x32([torch.tensor([c]) for c in counter], key)
    assert tuple(int(x) for x in drawn) == words


def test_words_of_random_counters_agree() -> None:
    random = torch.Generator().manual_seed(3)
    drawn = torch.randint(0, 1 << 32, (64, 6), generator=random)
    for row in drawn.tolist():
        expected = reference.philox4x32([torch.tensor([c]) for c in row[:4]], (row[4], row[5]))
        assert _C.philox(row[:4], row[4:]) == [int(x) for x in expected]


def native(isa: str, first: int, count: int, **ids: int) -> torch.Tensor:
    _C.use_isa(isa)
    return torch.from_numpy(_C.normals(first=first, count=count, **ids))


@pytest.fixture(autouse=True)
def _widest_isa_afterwards():
    yield
    _C.use_isa(ISAS[-1])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("first", [0, 1, 2, 3, 1021, (1 << 34) - 37, (1 << 40) + 3])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 63, 1000, 3001])
def test_normals_are_those_of_the_reference(isa: str, first: int, count: int) -> None:
    ids = {"seed": 0xDEADBEEF_01234567, "stream": 2, "step": 5, "chain": 9}
    expected = ops.philox_normals(torch.arange(first, first + count), **ids)
    # documented: within 2e-6 of the exact value (log to 3e-8, float32 arithmetic, |ξ| < 6.7)
    assert torch.allclose(native(isa, first, count, **ids).double(), expected, rtol=0, atol=2e-6)


def test_normals_have_the_same_bits_on_every_instruction_set() -> None:
    ids = {"seed": 11, "stream": 0, "step": 1, "chain": 2}
    drawn = [native(isa, 1, 1 << 18, **ids) for isa in ISAS]
    for other in drawn[1:]:
        assert torch.equal(drawn[-1], other)


@pytest.mark.parametrize("isa", ISAS)
def test_error_stays_small_over_a_million_words(isa: str) -> None:
    ids = {"seed": 12, "stream": 0, "step": 0, "chain": 0}
    count = 1 << 20
    error = native(isa, 0, count, **ids).double() - ops.philox_normals(torch.arange(count), **ids)
    assert error.abs().max() < 2e-6
    # aggregate guards: relative L2 at the level of float32's rounding (2^-24 a step, about ten steps), and no
    # common sign: |mean| within 5 standard errors of zero
    assert error.square().mean().sqrt() < 10 * 2**-24
    assert error.mean().abs() < 5 * error.std() / count**0.5 + 2**-30


def test_streams_steps_chains_and_seeds_are_different_counters() -> None:
    base = {"seed": 1, "stream": 0, "step": 0, "chain": 0}
    variants = [base, *({**base, name: 1 << shift} for name in base for shift in (0, 5) if base[name] != 1 << shift)]
    variants.append({**base, "seed": 1 | 1 << 40})
    drawn = [tuple(native(ISAS[-1], 0, 8, **ids).tolist()) for ids in variants]
    assert len(set(drawn)) == len(drawn)
