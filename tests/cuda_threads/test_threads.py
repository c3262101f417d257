"""The harness that runs CUDA kernels on CPU threads, and whether its sanitizers would speak up."""

import pytest
from cuda_threads.build import SANITIZERS, assert_clean, run_program


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_threads_blocks_warps_barriers_and_atomics(sanitizer) -> None:
    assert_clean("threads", sanitizer)


@pytest.mark.parametrize(
    ("planted", "sanitizer", "verdict"),
    [
        ("race", "races", "ThreadSanitizer: data race"),
        ("out of bounds", "memory", "AddressSanitizer: heap-buffer-overflow"),
        ("misaligned", "memory", "misaligned address"),
        ("part of a warp", "plain", "a warp function's mask must be 0xffffffff, got 0xffff"),
    ],
)
def test_a_planted_mistake_is_found(planted, sanitizer, verdict) -> None:
    done = run_program("threads", sanitizer, planted)
    assert done.returncode != 0
    assert verdict in done.stderr
