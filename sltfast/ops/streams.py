"""Which use of randomness a number belongs to: the 8-bit tag in Philox's counter."""

STREAM_STEP, STREAM_INIT, STREAM_MOMENTUM, STREAM_ROUNDING, STREAM_DATA = range(5)


def signed_seed(seed: int) -> int:
    """The 64 bits of a seed as the signed integer that an op's schema takes.

    Raises:
        ValueError: seed outside 0..2^64-1.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be in 0..2^64-1, got {seed}")
    return seed - (1 << 64) if seed >= 1 << 63 else seed
