"""Which use of randomness a number belongs to: the 8-bit tag in Philox's counter."""

STREAM_STEP = 0  # noise of a step
STREAM_INIT = 1  # noise added to the start of a chain
STREAM_MOMENTUM = 2  # momenta at the start
STREAM_ROUNDING = 3  # stochastic rounding
STREAM_DATA = 4  # order of the data


def signed_seed(seed: int) -> int:
    """The 64 bits of a seed as the signed integer that an op's schema takes.

    Raises:
        ValueError: seed outside 0..2^64-1.
    """
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be in 0..2^64-1, got {seed}")
    return seed - (1 << 64) if seed >= 1 << 63 else seed
