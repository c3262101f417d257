"""Nothing quadratic in the items is held where none was asked for."""

import pytest
from loss_trees import loss_tree

import sltfast
from sltfast.estimators.bif import groups, pairs

ITEMS, POSITIONS, SIDE = 180, 8, 512


@pytest.fixture
def formed(monkeypatch):
    """Sizes of the products that are formed."""
    sizes = []
    product = pairs.product

    def seen(left, right, out):
        sizes.append(out.numel())
        return product(left, right, out)

    for module in (pairs, groups):
        monkeypatch.setattr(module, "product", seen)
    return sizes


@pytest.fixture(scope="module")
def tree():
    return loss_tree({"a": ITEMS}, positions=POSITIONS, chains=2, draws=16)


def test_neighbours_of_tokens_hold_a_tile(tree, formed):
    result = sltfast.compute_bif(tree, top_k=3)
    assert max(formed) <= SIDE**2 < (ITEMS * POSITIONS) ** 2
    assert result.nbytes < ITEMS * POSITIONS * 100  # a hundred bytes a token: three of each number


def test_averages_form_no_pair_of_tokens(tree, formed):
    sltfast.compute_bif(tree, average_tokenwise_bif=True, standard_errors=False)
    assert max(formed) <= ITEMS**2
    formed.clear()
    sltfast.compute_bif(tree, average_tokenwise_bif=True, normalize=True)
    assert max(formed) <= ITEMS * POSITIONS * ITEMS
    formed.clear()
    sltfast.group_influence(tree, [number % 3 for number in range(ITEMS)], correlation_method="token")
    assert max(formed) <= 3**2


def test_tiles_follow_batch_size(tree, formed):
    sltfast.compute_bif(tree, batch_size=5, progress=False)
    assert max(formed) == (5 * POSITIONS) ** 2
