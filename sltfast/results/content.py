"""A digest of what a tensor holds, bit for bit, formed where it lies: weighted sums of its words, mod 2⁶⁴."""

from __future__ import annotations

import functools
import hashlib

import torch
from torch import Tensor

WORDS = 1 << 16  # of a block: what is multiplied at once


@functools.cache
def _weights() -> Tensor:
    """WORDS fixed odd numbers without pattern (splitmix64's mixing of a counter)."""
    mixed = torch.arange(1, WORDS + 1, dtype=torch.int64) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return (mixed ^ (mixed >> 31)) | 1


def content(tensor: Tensor) -> bytes:
    """16 bytes that differ where values or their order differ, up to a chance of 2⁻³².

    Of each block of 2¹⁶ words x of 4 bytes h = Σ_i r_i·x_i mod 2⁶⁴, with fixed odd r_i of 64 bits; then BLAKE2b of all
    h and of the bytes left over. The sums are formed on the tensor's device, at the speed of its memory.

    Args:
        tensor: of any dtype and device but "meta", whose tensors hold nothing.

    Source: multilinear hashing, Carter & Wegman 1979.
    """
    digest = hashlib.blake2b(digest_size=16)
    flat = tensor.detach().reshape(-1)
    if flat.is_meta or not flat.numel():
        return digest.digest()
    if flat.is_conj() or flat.is_neg():
        flat = flat.resolve_conj().resolve_neg()
    if not flat.is_contiguous() or flat.storage_offset() * flat.element_size() % 4:
        flat = flat.clone(memory_format=torch.contiguous_format)
    octets = flat.view(torch.uint8)
    whole = len(octets) // 4 * 4
    weights = _weights().to(flat.device)
    words = octets[:whole].view(torch.int32)
    sums = [(block.long() * weights[: len(block)]).sum() for block in words.split(WORDS) if len(block)]
    if sums:
        digest.update(torch.stack(sums).cpu().numpy().tobytes())
    digest.update(octets[whole:].cpu().numpy().tobytes())
    return digest.digest()
