"""The loss kernel is positive semi-definite, its correlation has the kernel's own scale, and points keep distances."""

import numpy as np
import pytest
import torch
import xarray as xr
from loss_trees import loss_tree, pooled
from torch import nn

import sltfast


@pytest.fixture(scope="module")
def tree():
    return loss_tree({"b": 7, "a": 4})


@pytest.fixture(scope="module")
def kernel(tree):
    return sltfast.compute_loss_kernel(tree)


def test_is_covariance_and_correlation(tree, kernel):
    losses = np.concatenate([pooled(tree, name).mean(2) for name in ("a", "b")], axis=1)
    np.testing.assert_allclose(kernel["kernel"], np.cov(losses.T), rtol=1e-11)
    np.testing.assert_allclose(kernel["correlation"], np.corrcoef(losses.T), rtol=1e-11, atol=1e-14)
    assert {"kernel_se", "correlation_se", "input_ids"} <= set(kernel.data_vars)


@pytest.mark.parametrize("draws", [4, 40])  # fewer draws than items: a kernel of low rank
def test_is_symmetric_and_positive_semi_definite(draws):
    result = sltfast.compute_loss_kernel(loss_tree({"a": 30}, draws=draws))
    for name in ("kernel", "correlation"):
        values = result[name].values
        np.testing.assert_array_equal(values, values.T)
        eigenvalues = np.linalg.eigvalsh(values)
        # products in float64 of n draws err by n·2⁻⁵³ of the largest entry each, a matrix of N by N times that
        assert eigenvalues[0] >= -30 * 3 * draws * 2.0**-53 * eigenvalues[-1]


def test_a_loss_that_does_not_vary_is_like_no_other():
    tree = loss_tree({"a": 3})
    tree["loss_a"].values[:, :, 1] = 2.5
    result = sltfast.compute_loss_kernel(tree)
    np.testing.assert_array_equal(result["correlation"].values[1], 0.0)
    np.testing.assert_array_equal(result["kernel"].values[1], 0.0)


def test_neighbours_without_a_matrix(tree, kernel):
    best = sltfast.compute_loss_kernel(tree, top_k=2)
    assert "kernel" not in best
    strength = np.abs(kernel["correlation"].values)
    np.fill_diagonal(strength, 0.0)
    np.testing.assert_array_equal(best["neighbour_batch"][:, 0], strength.argmax(1))
    np.testing.assert_allclose(np.abs(best["correlation"][:, 0]), strength.max(1), rtol=1e-12)


def test_tokens(tree):
    result = sltfast.compute_loss_kernel(tree, correlation_method="token")
    assert result["kernel"].dims == ("batch_1", "batch_2", "target_position", "target_position_T")
    assert "kernel_se" not in result


def test_of_a_model():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 3, generator=random), torch.randn(16, generator=random)

    def squared(model, batch):
        return 0.5 * (model(batch[0])[:, 0] - batch[1]) ** 2

    settings = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 12, "batch_size": 4, "progress": False}
    model = nn.Linear(3, 1)
    result = sltfast.loss_kernel(model, (x, y), {"all": ((x, y), 2)}, loss_fn=squared, **settings)
    samples = sltfast.sample(model, (x, y), {"all": ((x, y), 2)}, loss_fn=squared, num_init_loss_batches=0, **settings)
    xr.testing.assert_equal(result, sltfast.compute_loss_kernel(samples))
    with pytest.raises(ValueError, match="loss_kernel needs observables"):
        sltfast.loss_kernel(model, (x, y), {}, loss_fn=squared, **settings)
    with pytest.raises(ValueError, match="correlation_method must be one of"):
        sltfast.loss_kernel(
            model, (x, y), {"all": ((x, y), 2)}, loss_fn=squared, correlation_method="words", **settings
        )


def distances(points):
    return np.linalg.norm(points[:, None] - points, axis=2)


def test_scaling_keeps_distances(tree, kernel):
    points = sltfast.embed(kernel, num_components=10)
    wanted = np.sqrt(np.maximum(2 - 2 * kernel["correlation"].values, 0))
    np.testing.assert_allclose(distances(points["embedding"].values), wanted, atol=1e-7)  # √ of 1e-14
    assert float(points["explained"].sum()) == pytest.approx(1.0)
    plane, of_samples = sltfast.embed(kernel), sltfast.embed(tree)
    np.testing.assert_allclose(np.abs(plane["embedding"]), np.abs(of_samples["embedding"]), atol=1e-9)
    np.testing.assert_allclose(plane["explained"], of_samples["explained"], rtol=1e-9)


def test_items_without_weight_have_no_place():
    tree = loss_tree({"a": 6})
    tree["loss_a"].values[:, :, 2] = np.nan
    tree["loss_a"].values[:, :, 4, 3:] = np.nan
    for given in (tree, sltfast.compute_loss_kernel(tree)):
        points = sltfast.embed(given)["embedding"].values
        np.testing.assert_array_equal(np.isnan(points).any(1), np.arange(6) == 2)
    tokens = sltfast.embed(tree, correlation_method="token", num_components=3)["embedding"]
    assert tokens.dims == ("batch", "target_position", "component")
    np.testing.assert_array_equal(np.isnan(tokens.values[4]).any(1), np.arange(5) >= 3)


def test_umap_finds_the_groups_and_the_seed_settles_it():
    random = np.random.default_rng(0)
    common = random.normal(size=(2, 60, 2))
    group = np.arange(24) % 2
    losses = common[:, :, group] + 0.2 * random.normal(size=(2, 60, 24))
    variables = {"loss_a": (("chain", "draw", "batch_a", "token_pos"), losses[..., None].astype("float32"))}
    kernel = sltfast.compute_loss_kernel(xr.DataTree(xr.Dataset(variables)))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    points, again = (sltfast.embed(kernel, "umap", neighbours=6, seed=3)["embedding"].values for _ in range(2))
    np.testing.assert_array_equal(points, again)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    apart = distances(points)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(1)] == group).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "tsne"}, r"method must be one of \('mds', 'umap'\), got 'tsne'"),
        ({"num_components": 11}, "num_components must be in 1 … 10"),
    ],
)
def test_bad_arguments_say_what_is_allowed(kernel, options, message):
    with pytest.raises(ValueError, match=message):
        sltfast.embed(kernel, **options)


def test_a_kernel_of_neighbours_is_refused(tree):
    with pytest.raises(ValueError, match="give the samples instead"):
        sltfast.embed(sltfast.compute_loss_kernel(tree, top_k=2))
