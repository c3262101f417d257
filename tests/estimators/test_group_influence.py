"""Influence between groups against means over the matrix of all pairs, and against a sum pair by pair."""

import itertools

import numpy as np
import pytest
import xarray as xr
from loss_trees import loss_tree, pooled

import sltfast

LABELS = ["x", "y", "x", None, "z", "y", "x"]
ROWS = {"x": [0, 2, 6], "y": [1, 5], "z": [4]}


@pytest.fixture(scope="module")
def tree():
    return loss_tree({"a": 7}, draws=43)


def naive(losses, chains, groups, *, normalize, exclude_self, blocks=8):
    """Mean and error over the pairs of two groups: the pairs' contributions are averaged draw by draw."""
    n = len(losses)
    z = losses - losses.mean(0)
    z = z / (np.sqrt((z**2).sum(0)) if normalize else np.sqrt(n - 1))
    matrix = z.T @ z
    block_of = np.arange(n // chains) * blocks // (n // chains)
    values, errors = np.empty((2, len(groups), len(groups)))
    for (g, left), (h, right) in itertools.product(enumerate(groups), enumerate(groups)):
        pairs = [(i, j) for i in left for j in right if not (exclude_self and i == j)]
        if not pairs:
            values[g, h] = errors[g, h] = np.nan
            continue
        i, j = np.array(pairs).T
        level = matrix[i, j] / n if not normalize else matrix[i, j] * (z[:, i] ** 2 + z[:, j] ** 2) / 2
        each = (z[:, i] * z[:, j] - level).mean(1).reshape(chains, -1)
        sums = np.array([np.bincount(block_of, row) for row in each])
        by_chain = np.sqrt(chains / (chains - 1) * (sums.sum(1) ** 2).sum())
        errors[g, h] = max(np.sqrt(sums.size / (sums.size - 1) * (sums**2).sum()), by_chain)
        values[g, h] = matrix[i, j].mean()
    return values, errors


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_is_the_mean_over_pairs_with_its_error(tree, normalize, exclude_self):
    options = {"normalize": normalize, "exclude_self": exclude_self}
    result = sltfast.group_influence(tree, LABELS, sign=1, separate_chains=True, **options)
    values, errors = naive(pooled(tree, "a").mean(2), 3, list(ROWS.values()), **options)
    assert result["group_1"].values.tolist() == ["x", "y", "z"]
    assert result["group_size"].values.tolist() == [3, 2, 1]
    np.testing.assert_allclose(result["influences"], values, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(result["influences_se"], errors, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(result["within"] + result["between"], result["influences"], rtol=1e-10)


@pytest.mark.parametrize("normalize", [False, True])
def test_tokens_have_labels_too(tree, normalize):
    labels = np.array(["even", "odd"], dtype=object)[np.indices((7, 5)).sum(0) % 2]
    labels[3, 2] = None
    result = sltfast.group_influence(tree, labels, correlation_method="token", normalize=normalize, sign=1)
    flat = labels.ravel()
    groups = [np.flatnonzero(flat == name) for name in ("even", "odd")]
    values, errors = naive(pooled(tree, "a").reshape(129, -1), 3, groups, normalize=normalize, exclude_self=False)
    np.testing.assert_allclose(result["influences"], values, rtol=1e-10)
    np.testing.assert_allclose(result["influences_se"], errors, rtol=1e-8)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_single_queries_against_groups(tree, exclude_self):
    matrix = -sltfast.compute_bif(tree, correlation_method="sequence")["influences"].values
    if exclude_self:
        np.fill_diagonal(matrix, np.nan)
    result = sltfast.group_influence(tree, LABELS, per_query=True, exclude_self=exclude_self)
    assert result["influences"].dims == ("batch_1", "group_2")
    for group, rows in ROWS.items():
        defined = np.isfinite(matrix[:, rows]).any(1)
        expected = -np.nanmean(matrix[defined][:, rows], axis=1)
        found = result["influences"].sel(group_2=group).values
        np.testing.assert_allclose(found[defined], expected, rtol=1e-10)
        assert np.isnan(found[~defined]).all()


def test_single_tokens_against_groups(tree):
    tokens = sltfast.group_influence(tree, LABELS, per_query=True, correlation_method="token")
    assert tokens["influences"].dims == ("batch_1", "target_position", "group_2")
    sequences = sltfast.group_influence(tree, LABELS, per_query=True)
    np.testing.assert_allclose(tokens["influences"].mean("target_position"), sequences["influences"], rtol=1e-8)


@pytest.mark.parametrize("per_query", [False, True])
def test_of_a_matrix_that_is_there(tree, per_query):
    entries = sltfast.compute_bif(tree, correlation_method="sequence")
    options = {"per_query": per_query, "exclude_self": True}
    given, exact = (sltfast.group_influence(each, LABELS, **options) for each in (entries, tree))
    np.testing.assert_allclose(given["influences"], exact["influences"], rtol=1e-10)
    assert "upper bound" in given.attrs["se_kind"]
    # the triangle inequality holds for each of the two errors, and for their maximum up to √2
    defined = np.isfinite(exact["influences"].values)
    assert (exact["influences_se"].values[defined] <= np.sqrt(2) * given["influences_se"].values[defined]).all()


def test_observables_are_groups_by_default():
    tree = loss_tree({"b": 3, "a": 2})
    matrix = sltfast.compute_bif(tree, correlation_method="sequence")["influences"].values
    result = sltfast.group_influence(tree)
    assert result["group_1"].values.tolist() == ["a", "b"]
    parts = (slice(2), slice(2, 5))
    expected = [[matrix[rows, columns].mean() for columns in parts] for rows in parts]
    np.testing.assert_allclose(result["influences"], expected, rtol=1e-10)
    named = sltfast.group_influence(tree, {"b": [1, 1, 2], "a": [2, 2]})
    assert named["group_1"].values.tolist() == [1, 2]
    np.testing.assert_allclose(named["influences"][0, 0], matrix[2:4, 2:4].mean())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x"] * 6, "one for each of 7 items"),
        ([None] * 7, "labels name no group"),
        ([["x"] * 9] * 7, r"rows of \[9\]"),
        ({"b": ["x"]}, r"\['a'\] are missing"),
    ],
)
def test_bad_labels_say_what_is_allowed(tree, labels, message):
    with pytest.raises(ValueError, match=message):
        sltfast.group_influence(tree, labels, correlation_method="token")


def test_a_matrix_of_tokens_is_refused(tree):
    with pytest.raises(ValueError, match="give the samples instead"):
        sltfast.group_influence(sltfast.compute_bif(tree), LABELS)
    assert isinstance(sltfast.group_influence(tree, LABELS, standard_errors=False), xr.Dataset)
