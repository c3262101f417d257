"""Blocks of a correlation matrix against means over its pairs."""

import numpy as np
import pytest

from sltfast.analysis import block_contrast


def test_means_over_pairs():
    rng = np.random.default_rng(0)
    draws, labels = rng.standard_normal((200, 30)), np.arange(30) % 3
    draws += 2.0 * rng.standard_normal((200, 3))[:, labels]
    r = np.corrcoef(draws.T)
    found = block_contrast(r, labels)
    same, other = labels[:, None] == labels, ~np.eye(30, dtype=bool)
    assert found.within == pytest.approx(r[same & other].mean())
    assert found.across == pytest.approx(r[~same].mean())
    assert found.across_rms == pytest.approx(np.sqrt((r[~same] ** 2).mean()))
    assert found.p_value == 1 / 200
    assert block_contrast(r, rng.permutation(labels)).p_value > 1 / 200


def test_refused():
    with pytest.raises(ValueError, match=r"labels must be \[3\]"):
        block_contrast(np.eye(3), [0, 1])
    with pytest.raises(ValueError, match="square matrix of finite numbers"):
        block_contrast(np.full((2, 2), np.nan), [0, 1])
    with pytest.raises(ValueError, match=r"two items each at least, got sizes \[3, 1\]"):
        block_contrast(np.eye(4), [0, 0, 0, 1])
    with pytest.raises(ValueError, match="permutations must be"):
        block_contrast(np.eye(4), [0, 0, 1, 1], permutations=0)
