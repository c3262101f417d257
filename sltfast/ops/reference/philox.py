"""The random numbers of every op: Philox4x32-10 words and Box–Muller normals, in plain PyTorch."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox4x32(counter: Sequence[Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 of four int64 tensors that hold 32-bit words; returns four words of the same shape.

    Products of two words are taken modulo 2^64 in int64, whose bits 32..63 are the high word.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = c0 * _MULTIPLIERS[0]
        p1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _WORD) ^ c1 ^ k0, p1 & _WORD, (p0 >> 32 & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def box_muller(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent normals from two 32-bit words, in float64.

    u = (⌊x0/2⌋ + ½)/2^31 in (0, 1] (rounded to float32: a definition, not an error), θ = 2π x1/2^32:
    ξ0 = √(−2 ln u) cos θ,  ξ1 = √(−2 ln u) sin θ.
    """
    u = ((x0 >> 1).float() + 0.5).double() * 2.0**-31
    radius = torch.sqrt(-2.0 * torch.log(u))
    angle = x1.double() * (2.0 * math.pi * 2.0**-32)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def philox_words(elements: Tensor, *, seed: int, stream: int, step: int, chain: int) -> Tensor:
    """The 32-bit word of each element e, int64: word e % 4 of the counter of group e // 4 (see `philox_normals`)."""
    position, words = _words_of_groups(elements, seed, stream, step, chain)
    return torch.stack(words, dim=-1)[position, elements & 3]


def philox_normals(elements: Tensor, *, seed: int, stream: int, step: int, chain: int) -> Tensor:
    """The standard normals ξ of the given elements, float64.

    Args:
        elements: int64 [n], flat indices in the full model.
        seed: 64 bits, the Philox key.
        stream: 0..255, which use of randomness (ops.STREAM_STEP, ...).
        step: counter word; its low 32 bits count.
        chain: counter word; its low 32 bits count.
    """
    position, (x0, x1, x2, x3) = _words_of_groups(elements, seed, stream, step, chain)
    normals = torch.stack((*box_muller(x0, x1), *box_muller(x2, x3)), dim=-1)  # [groups, 4]
    return normals[position, elements & 3]


def _words_of_groups(
    elements: Tensor, seed: int, stream: int, step: int, chain: int
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Where each element's group of four is among the groups touched, and the four words of those."""
    groups, position = torch.unique(elements >> 2, return_inverse=True)
    counter = (
        groups & _WORD,
        (groups >> 32 & 0xFFFFFF) | stream << 24,
        torch.full_like(groups, step & _WORD),
        torch.full_like(groups, chain & _WORD),
    )
    return position, philox4x32(counter, (seed & _WORD, seed >> 32 & _WORD))


def segment_elements(segment: Sequence[int], start: int, stop: int, device: torch.device) -> Tensor:
    """Flat model indices of coordinates start..stop of a segment (offset, numel, element, run, stride)."""
    _, _, element, run, stride = segment
    i = torch.arange(start, stop, device=device)
    return element + (i // run) * stride + i % run
