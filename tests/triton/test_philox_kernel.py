"""Philox words and normals in Triton: the same bits as the native ones."""

import pytest
import torch
import triton
import triton.language as tl
from known_answers import PHILOX4X32

from sltfast import _C
from sltfast.triton_kernels import philox


@triton.jit
def _words(out, counter, key):
    c0, c1, c2, c3 = philox.philox4x32(
        tl.load(counter).to(tl.uint32),
        tl.load(counter + 1).to(tl.uint32),
        tl.load(counter + 2).to(tl.uint32),
        tl.load(counter + 3).to(tl.uint32),
        tl.load(key).to(tl.uint32),
        tl.load(key + 1).to(tl.uint32),
    )
    tl.store(out, c0.to(tl.int64))
    tl.store(out + 1, c1.to(tl.int64))
    tl.store(out + 2, c2.to(tl.int64))
    tl.store(out + 3, c3.to(tl.int64))


@triton.jit
def _normals(grouped, single, ids, BLOCK: tl.constexpr):
    seed, stream, step, chain = tl.load(ids), tl.load(ids + 1), tl.load(ids + 2), tl.load(ids + 3)
    first = tl.load(ids + 4)
    offsets = tl.arange(0, BLOCK)
    groups = (first >> 2) + tl.arange(0, BLOCK // 4)
    tl.store(grouped + offsets, philox.normals_of_groups(seed, stream, step, chain, groups))
    tl.store(single + offsets, philox.normals_of_elements(seed, stream, step, chain, first + offsets))


def words(counter, key) -> list[int]:
    out = torch.full((4,), -1)
    _words[(1,)](out, torch.tensor(counter), torch.tensor(key))
    return out.tolist()


@pytest.mark.parametrize(("counter", "key", "expected"), PHILOX4X32)
def test_known_answers(counter, key, expected) -> None:
    assert words(counter, key) == list(expected)


def test_words_of_random_counters_are_the_native_ones() -> None:
    drawn = torch.randint(0, 1 << 32, (64, 6), generator=torch.Generator().manual_seed(3))
    for row in drawn.tolist():
        assert words(row[:4], row[4:]) == _C.philox(row[:4], row[4:])


@pytest.mark.parametrize("first", [0, 1, 3, 1021, (1 << 34) - 36, (1 << 40) + 2])
@pytest.mark.parametrize("seed", [0, 0x0EADBEEF_F1234567, 0xDEADBEEF_01234567])
def test_normals_have_the_bits_of_the_native_ones(first: int, seed: int) -> None:
    count, signed = 1024, seed - (1 << 64) if seed >> 63 else seed
    grouped, single = torch.full((count,), torch.nan), torch.full((count,), torch.nan)
    _normals[(1,)](grouped, single, torch.tensor([signed, 2, 5, 9, first]), BLOCK=count)
    ids = {"seed": seed, "stream": 2, "step": 5, "chain": 9}
    assert torch.equal(single, torch.from_numpy(_C.normals(**ids, first=first, count=count)))
    assert torch.equal(grouped, torch.from_numpy(_C.normals(**ids, first=first & ~3, count=count)))
