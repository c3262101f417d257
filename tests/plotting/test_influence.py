"""The matrix of influences: items of a label side by side, a scale that variances do not bleach."""

import numpy as np
import pytest
import xarray as xr

from sltfast import plotting

LABELS = ["b", "a", "b", "a", "b"]


def result() -> xr.Dataset:
    values = np.arange(25.0).reshape(5, 5) / 10 - 1
    np.fill_diagonal(values, 50.0)
    coords = {"batch_1": np.arange(5), "batch_2": np.arange(5), "observable": ("batch", np.array(LABELS, dtype=object))}
    dataset = xr.Dataset({"influences": (("batch_1", "batch_2"), values)}, coords)
    return dataset.assign_attrs(definition="−Cov[ℓ_i, ℓ_j]")


def test_items_of_a_label_stand_together() -> None:
    found = result()
    axes = plotting.influence_matrix(found).axes[0]
    image = axes.images[0]
    order = [1, 3, 0, 2, 4]
    np.testing.assert_array_equal(image.get_array(), found["influences"].values[np.ix_(order, order)])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    np.testing.assert_allclose(axes.get_yticks(), [0.5, 3.0])
    assert axes.get_title() == "−Cov[ℓ_i, ℓ_j]"
    low, high = image.get_clim()
    assert -low == high <= 1.4  # the largest entry off the diagonal, where 50 stands


def test_queries_against_items_with_labels_of_the_callers() -> None:
    part = result().isel(batch_1=[0, 3])
    axes = plotting.influence_matrix(part, labels=[1, 2, 2, 3, 1], title="mine").axes[0]
    assert axes.images[0].get_array().shape == (2, 5)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "3"]
    assert axes.get_title() == "mine"


def test_a_kernel_is_drawn_too() -> None:
    kernel = result().rename(influences="correlation")
    assert plotting.influence_matrix(kernel).axes[1].get_title() == "correlation of losses"


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        (result().isel(batch_1=0), None, r"must hold influences or correlation of \(batch_1, batch_2\)"),
        (xr.Dataset({"llc_mean": 1.0}), None, r"it has \['llc_mean'\]"),
        (result(), ["a"], "one for each of 5 items, got 1"),
    ],
)
def test_bad_input_says_what_is_allowed(given, labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        plotting.influence_matrix(given, labels)
