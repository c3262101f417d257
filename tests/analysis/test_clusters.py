"""Neighbours, PageRank, cuts and clusters against dense algebra, brute force and what was planted."""

import numpy as np
import pytest
from scipy import sparse

from sltfast.analysis import PageRank, compare_clusters, find_clusters, knn_graph, nearest_neighbours, sweep_cut


def planted(groups=8, each=60, rest=480, dims=10, seed=0):
    """Points in tight groups far apart, and as many of a broad Gaussian; the group of each, −1: none."""
    rng = np.random.default_rng(seed)
    centres = 4.0 * rng.standard_normal((groups, dims))
    which = np.concatenate([np.repeat(np.arange(groups), each), np.full(rest, -1)])
    near = centres[which] + 0.3 * rng.standard_normal((len(which), dims))
    return np.where(which[:, None] >= 0, near, rng.standard_normal((len(which), dims))), which


def test_neighbours_are_the_nearest_others():
    points = np.random.default_rng(1).standard_normal((63, 5))
    points[40] = points[3]  # a point is no neighbour of its own, its double is
    apart = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    for device in (None, "cpu"):
        found = nearest_neighbours(points, 7, device)
        assert (found != np.arange(63)[:, None]).all()
        np.testing.assert_allclose(np.take_along_axis(apart, found, 1), np.sort(apart, axis=1)[:, :7], atol=1e-5)
    graph = knn_graph(points, 7)
    assert abs(graph - graph.T).max() == 0
    assert graph.sum(axis=1).min() >= 7
    with pytest.raises(ValueError, match="k must be a whole number in 1 … 62"):
        nearest_neighbours(points, 63)
    points[5, 2] = np.nan
    with pytest.raises(ValueError, match="the first is number 5"):
        nearest_neighbours(points, 3)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_push_keeps_its_invariant(tolerance):
    """P + pr(r) = pr(s), by dense algebra, and 0 ≤ r ≤ ε·d; volume at most 1/ε."""
    graph, teleport, seed = knn_graph(planted()[0], 12), 0.01, 17
    walk = PageRank(graph, teleport)
    reached = walk.push(seed, tolerance)
    n = graph.shape[0]
    resolvent = teleport * np.linalg.inv(np.eye(n) - (1 - teleport) * graph.toarray() / walk.degrees)
    mass = np.zeros(n)
    mass[reached.nodes] = reached.mass
    np.testing.assert_allclose(mass + resolvent @ reached.residual, resolvent[:, seed], atol=1e-9)
    share = reached.residual / (tolerance * walk.degrees)
    assert share.min() >= -0.1
    assert share.max() <= 1.1
    assert walk.degrees[reached.nodes].sum() <= 1.1 / tolerance
    assert reached.mass.min() >= 0


def test_refused_graphs():
    with pytest.raises(ValueError, match="symmetric"):
        PageRank(sparse.csr_array(np.array([[0.0, 1.0], [0.5, 0.0]])))
    with pytest.raises(ValueError, match="node 2 of the graph has no neighbour"):
        PageRank(sparse.csr_array(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])))
    with pytest.raises(TypeError, match="square scipy sparse array"):
        PageRank(np.eye(3))
    with pytest.raises(ValueError, match="max_conductance must be in"):
        find_clusters(sparse.csr_array(np.ones((3, 3))), max_conductance=0.0)


def test_the_sweep_is_the_best_prefix():
    rng = np.random.default_rng(3)
    weights = np.triu(rng.random((40, 40)) * (rng.random((40, 40)) < 0.2), 1)
    graph = sparse.csr_array(weights + weights.T)
    ranked = rng.permutation(40)[:30]
    dense, degrees = graph.toarray(), graph.toarray().sum(1)

    def conductance(count):
        inside = np.isin(np.arange(40), ranked[:count])
        return dense[inside][:, ~inside].sum() / min(degrees[inside].sum(), degrees[~inside].sum())

    every = np.array([conductance(count) for count in range(1, 31)])
    cut = sweep_cut(graph, ranked, 5, 20)
    np.testing.assert_allclose(cut.profile, every)
    assert cut.conductance == pytest.approx(every[4:20].min())
    assert len(cut.nodes) == 5 + every[4:20].argmin()
    assert sweep_cut(graph, ranked, 31) is None


def test_planted_groups_are_found_and_noise_is_not():
    points, which = planted()
    graph = knn_graph(points, 15)
    clusters = find_clusters(graph)
    assert clusters.identical(find_clusters(graph))
    beside = compare_clusters(clusters, which)
    assert sorted(beside["best"].values.tolist()) == list(range(8))
    assert (beside["precision"].values == 1.0).all()
    assert (beside["recall"].values == 1.0).all()
    assert (clusters["label"].values[which < 0] == -1).all()
    assert beside.attrs["adjusted_mutual_info"] == pytest.approx(1.0)
    assert beside.attrs["clustered_share"] == 0.5
    noise = find_clusters(knn_graph(points[which < 0], 15))
    assert noise.sizes["cluster"] == 0
    assert compare_clusters(noise, which[which < 0]).sizes["cluster"] == 0


def test_features_that_overlap():
    points, which = planted()
    clusters = find_clusters(knn_graph(points, 15))
    features = np.stack([which >= 0, which == 2, (which == 5) | (which == 6), which < -1], axis=1)
    of = {int(which[node]): index for index, node in enumerate(clusters["seed"].values)}
    for given in (features, sparse.csr_array(features)):
        found = compare_clusters(clusters, given)
        assert found["best"].values[of[2]] == 1
        here = found.isel(cluster=of[5])
        assert (int(here["best"]), float(here["precision"]), float(here["recall"])) == (2, 1.0, 0.5)
        assert float(here["jaccard"]) == 0.5
        assert float(here["p_value"]) < 1e-30
        assert np.isnan(found.attrs["adjusted_mutual_info"])
    with pytest.raises(ValueError, match=r"labels must be \[960\]"):
        compare_clusters(clusters, which[1:])
