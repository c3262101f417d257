"""Devinterp as it is, without its collections of garbage."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_collections() -> Iterator[None]:
    """Devinterp collects garbage twice a chain, which takes longer than these chains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devinterp.slt.sampler._gc_and_empty_cache", lambda: None)
        yield
