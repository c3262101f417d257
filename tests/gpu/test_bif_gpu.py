"""Influences whose products are formed on a GPU against those formed on the CPU."""

import numpy as np
import pytest
from loss_trees import loss_tree

import sltfast

pytestmark = pytest.mark.gpu
# float32 sums of 120 products, in another order on each side, of entries up to 1; errors add up 24 blocks, √24 < 8
ROUNDING = 120 * 2.0**-24


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_index_range_1": [5, 2]},
        {"top_k": 4},
        {"average_tokenwise_bif": True},
        {"average_tokenwise_bif": True, "top_k": 3},
        {"correlation_method": "sequence", "separate_chains": True},
    ],
)
def test_both_devices_agree(options):
    tree = loss_tree({"b": 7, "a": 4})
    tree["loss_a"].values[:, :, 2, 3:] = np.nan
    options = {"normalize": True, "standard_errors": True, **options}
    here, there = (sltfast.compute_bif(tree, device=device, **options) for device in ("cpu", "cuda"))
    for name in here.data_vars:
        np.testing.assert_allclose(there[name], here[name], rtol=0, atol=8 * ROUNDING)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_groups_agree(exclude_self):
    tree = loss_tree({"a": 6})
    options = {"exclude_self": exclude_self, "normalize": True, "per_query": True}
    here, there = (sltfast.group_influence(tree, [0, 1, 2] * 2, device=device, **options) for device in ("cpu", "cuda"))
    for name in here.data_vars:
        np.testing.assert_allclose(there[name], here[name], rtol=0, atol=1e-12)  # float64
