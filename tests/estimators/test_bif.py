"""`compute_bif` against devinterp's on the same tree, against plain numpy, and on trees that are not whole."""

import itertools

import numpy as np
import pytest
import xarray as xr
from devinterp.slt.bif import compute_bif as theirs
from loss_trees import loss_tree, pooled

import sltfast
from sltfast.errors import AllChainsDied

# float32 sums of 120 products, in another order on each side, of entries up to 1 (correlations) or 10 (covariances)
ROUNDING = 120 * 2.0**-24
OPTIONS = list(
    itertools.product(["token", "sequence"], ["stack", "mean"], [False, True], [False, True], ["all", [5, 2, 9]])
)


@pytest.fixture(scope="module")
def tree():
    return loss_tree({"b": 7, "a": 4})


def naive(losses, chains, *, normalize, blocks=8):
    """Values, errors and `between` of all pairs of variables [n, N], each from its own series of contributions."""
    n, variables = losses.shape
    z = losses - losses.mean(0)
    z = z / (np.sqrt((z**2).sum(0)) if normalize else np.sqrt(n - 1))
    values, draws = z.T @ z, n // chains
    errors, between = np.zeros((variables, variables)), np.zeros((variables, variables))
    block_of = np.arange(draws) * blocks // draws
    for i, j in np.ndindex(variables, variables):
        each = z[:, i] * z[:, j]
        level = values[i, j] / n if not normalize else values[i, j] * (z[:, i] ** 2 + z[:, j] ** 2) / 2
        each = (each - level).reshape(chains, draws)
        sums = np.array([np.bincount(block_of, row) for row in each])
        by_block = np.sqrt(sums.size / (sums.size - 1) * (sums**2).sum())
        by_chain = np.sqrt(chains / (chains - 1) * (sums.sum(1) ** 2).sum())
        errors[i, j] = max(by_block, by_chain)
        means = z.reshape(chains, draws, variables).mean(1)
        between[i, j] = draws * (means[:, i] * means[:, j]).sum()
    return values, errors, between


@pytest.mark.parametrize(("method", "reduction", "average", "covariance", "queries"), OPTIONS)
def test_is_devinterps_on_the_same_tree(tree, method, reduction, average, covariance, queries, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    options = {
        "correlation_method": method,
        "reduce_chain_dimension_method": reduction,
        "average_tokenwise_bif": average,
        "compute_covariance": covariance,
        "batch_index_range_1": queries,
        "batch_size": 3,
        "device": "cpu",
    }
    ours, other = sltfast.compute_bif(tree, **options), theirs(tree, **options)
    assert ours["influences"].dims == other["influences"].dims
    scale = float(np.abs(other["influences"]).max())
    np.testing.assert_allclose(ours["influences"], other["influences"], rtol=0, atol=ROUNDING * max(scale, 1.0))
    xr.testing.assert_identical(
        ours[["input_ids"]].drop_vars("observable").drop_attrs(), other[["input_ids"]].drop_attrs()
    )
    for name, coordinate in other.coords.items():
        np.testing.assert_array_equal(ours[name], coordinate)


def test_keys_are_sorted_as_devinterps_are(tree):
    one = sltfast.compute_bif(tree, correlation_method="sequence")
    assert one["observable"].values.tolist() == ["a"] * 4 + ["b"] * 7
    both = sltfast.compute_bif(tree, correlation_method="sequence", loss_keys=["b", "a"])
    np.testing.assert_allclose(both["influences"][7:, 7:], one["influences"][:4, :4])


def test_the_definition_is_minus_the_covariance(tree):
    losses = pooled(tree, "b").mean(2)
    result = sltfast.compute_bif(tree, loss_keys=["b"], correlation_method="sequence")
    np.testing.assert_allclose(result["influences"], -np.cov(losses.T), rtol=1e-12)
    assert result.attrs["definition"] == "−Cov[ℓ_i, ℓ_j]"
    other = sltfast.compute_bif(tree, loss_keys=["b"], correlation_method="sequence", normalize=True, sign=1)
    np.testing.assert_allclose(other["influences"], np.corrcoef(losses.T), rtol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", ["token", "sequence"])
def test_errors_and_parts_are_those_of_each_pair_alone(method, normalize):
    tree = loss_tree({"a": 4}, draws=43)
    losses = pooled(tree, "a")
    series = losses.reshape(len(losses), -1) if method == "token" else losses.mean(2)
    values, errors, between = naive(series, 3, normalize=normalize)
    result = sltfast.compute_bif(
        tree, correlation_method=method, normalize=normalize, standard_errors=True, separate_chains=True, sign=1
    )

    def flat(name):
        array = result[name].values
        return array if array.ndim == 2 else array.transpose(0, 2, 1, 3).reshape(values.shape)

    atol = ROUNDING * max(1, np.abs(values).max()) if method == "token" else 1e-12
    np.testing.assert_allclose(flat("influences"), values, rtol=0, atol=atol)
    np.testing.assert_allclose(flat("influences_se"), errors, rtol=0, atol=8 * atol)  # 24 blocks add up: √24 < 8
    np.testing.assert_allclose(flat("between"), between, rtol=0, atol=atol)
    np.testing.assert_allclose(flat("within") + flat("between"), flat("influences"), rtol=0, atol=atol)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_average_and_its_error_are_those_of_the_mean_over_token_pairs(normalize):
    tree = loss_tree({"a": 3}, draws=43)
    losses = pooled(tree, "a")
    series = losses.reshape(len(losses), -1)
    values, _, _ = naive(series, 3, normalize=normalize)
    z = series - series.mean(0)
    z /= np.sqrt((z**2).sum(0)) if normalize else np.sqrt(len(z) - 1)
    each = np.einsum("ti,tj->tij", z, z)
    level = values * (z[:, :, None] ** 2 + z[:, None] ** 2) / 2 if normalize else values / len(z)
    means = (each - level).reshape(3, 43, 3, 5, 3, 5).mean((3, 5))
    sums = np.stack([means[:, np.arange(43) * 8 // 43 == block].sum(1) for block in range(8)])
    errors = np.maximum(np.sqrt(24 / 23 * (sums**2).sum((0, 1))), np.sqrt(3 / 2 * (sums.sum(0) ** 2).sum(0)))
    result = sltfast.compute_bif(tree, average_tokenwise_bif=True, normalize=normalize, sign=1)
    np.testing.assert_allclose(result["influences"], values.reshape(3, 5, 3, 5).mean((1, 3)), atol=1e-12)
    np.testing.assert_allclose(result["influences_se"], errors, rtol=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"average_tokenwise_bif": True}, {"correlation_method": "sequence"}, {"batch_size": 1}]
)
@pytest.mark.parametrize("queries", [None, ["b"]])
@pytest.mark.parametrize("by", ["absolute", "value"])
def test_neighbours_are_the_largest_of_the_matrix(tree, options, queries, by):
    options = {**options, "normalize": True, "loss_keys_1": queries, "standard_errors": True}
    whole = sltfast.compute_bif(tree, **options)
    best = sltfast.compute_bif(tree, top_k=4, top_k_by=by, **options)
    entries, errors = whole["influences"], whole["influences_se"]
    single = "target_position" not in entries.dims
    for row in np.ndindex(best["influences"].shape[:-1]):
        line, spread = (
            array.values[row[0]] if single else array.values[row[0], :, row[1]] for array in (entries, errors)
        )
        line, spread = line.ravel().copy(), spread.ravel()
        batch = int(entries["batch_1"][row[0]])
        line[batch if single else batch * 5 + row[1]] = np.nan
        found = best["neighbour_batch"].values[row]
        if not single:
            found = found * 5 + best["neighbour_position"].values[row] - 1
        assert len(set(found.tolist())) == 4
        largest = np.sort(-np.abs(line) if by == "absolute" else -line)[:4]
        values = best["influences"].values[row]
        np.testing.assert_allclose(-np.abs(values) if by == "absolute" else -values, largest, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(values, line[found], rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(best["influences_se"].values[row], spread[found], rtol=0, atol=8 * ROUNDING)


def test_fewer_neighbours_than_asked_for(tree):
    best = sltfast.compute_bif(tree, top_k=6, loss_keys=["a"], correlation_method="sequence")
    assert (best["neighbour_batch"].values[:, 3:] == -1).all()
    assert np.isnan(best["influences"].values[:, 3:]).all()
    assert np.isnan(best["influences_se"].values[:, 3:]).all()
    assert np.isfinite(best["influences"].values[:, :3]).all()


def test_dead_chains_are_left_out_loudly():
    tree, whole = (loss_tree({"a": 3}, chains=4, completed=1) for _ in range(2))
    tree["loss_a"].values[1, 17:] = np.nan
    alone = xr.DataTree(whole.dataset.isel(chain=[0, 2, 3]))
    expected = sltfast.compute_bif(alone)
    with pytest.warns(sltfast.ChainDiverged, match="1 of 4 chains died and are left out"):
        result = sltfast.compute_bif(tree)
    xr.testing.assert_equal(result, expected)
    assert result.attrs["chains_left_out"] == [1]
    told = xr.DataTree(tree.dataset.assign(alive=("chain", np.array([True, False, True, True]))))
    with pytest.warns(sltfast.ChainDiverged, match="1 of 4 chains died"):
        xr.testing.assert_equal(sltfast.compute_bif(told), expected)
    tree["loss_a"].values[:, 17:] = np.nan
    with pytest.raises(AllChainsDied, match="no chain lived"):
        sltfast.compute_bif(tree)


def test_an_interrupted_run_is_read_as_far_as_all_chains_went():
    tree, whole = loss_tree({"a": 3}, completed=0), loss_tree({"a": 3})
    for chain, draws in enumerate((20, 13, 17)):
        tree["loss_a"].values[chain, draws:] = np.nan
    with pytest.warns(UserWarning, match="13 of 40 draws of 3 chains"):
        result = sltfast.compute_bif(tree)
    xr.testing.assert_equal(result, sltfast.compute_bif(xr.DataTree(whole.dataset.isel(draw=slice(13)))))


def test_padding_is_nan_and_no_part_of_a_mean():
    tree, whole = loss_tree({"a": 4}), loss_tree({"a": 4})
    tree["loss_a"].values[:, :, 2, 3:] = np.nan
    tokens, expected = sltfast.compute_bif(tree)["influences"], sltfast.compute_bif(whole)["influences"]
    padded = xr.zeros_like(expected, dtype=bool)
    padded[{"batch_1": 2, "target_position": slice(3, None)}] = True
    padded[{"batch_2": 2, "target_position_T": slice(3, None)}] = True
    np.testing.assert_array_equal(np.isnan(tokens), padded)
    xr.testing.assert_allclose(tokens, expected.where(~padded))
    averaged = sltfast.compute_bif(tree, average_tokenwise_bif=True)
    np.testing.assert_allclose(
        averaged["influences"], tokens.mean(["target_position", "target_position_T"]), rtol=1e-4, atol=1e-6
    )
    sequences = sltfast.compute_bif(tree, correlation_method="sequence")
    np.testing.assert_allclose(sequences["influences"], averaged["influences"], rtol=1e-6, atol=1e-9)
    assert np.isfinite(averaged["influences_se"]).all()
    best = sltfast.compute_bif(tree, top_k=20)
    assert not ((best["neighbour_batch"] == 2) & (best["neighbour_position"] > 3)).any()


def test_a_loss_that_does_not_vary_has_no_correlation():
    tree = loss_tree({"a": 3})
    tree["loss_a"].values[:, :, 1] = 2.5
    values = sltfast.compute_bif(tree, correlation_method="sequence", compute_covariance=False)["influences"].values
    np.testing.assert_array_equal(values[1], 0.0)
    assert values[0, 0] == values[2, 2] == 1.0


def test_a_loss_that_is_nan_in_some_draws_of_a_living_chain_stays_nan():
    tree = loss_tree({"a": 3})
    tree["loss_a"].values[0, 5, 1, 2] = np.nan
    values = sltfast.compute_bif(tree, correlation_method="sequence")["influences"].values
    assert np.isnan(values[1]).all()
    assert np.isfinite(values[0, [0, 2]]).all()


def test_observables_of_different_lengths_are_padded():
    long, short = loss_tree({"long": 3}, positions=6), loss_tree({"short": 2}, positions=4, seed=1)
    renamed = short.dataset.rename(token_pos="token_pos_short", token="token_short")
    result = sltfast.compute_bif(xr.DataTree(long.dataset.merge(renamed)))
    assert np.isnan(result["influences"].values[3:, :, 4:]).all()
    assert np.isfinite(result["influences"].values[3:, :3, :4]).all()
    np.testing.assert_array_equal(result["input_ids"].values[3:, 5:], -1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correlation_method": "word"}, "correlation_method must be one of .*'token', 'sequence'.*got 'word'"),
        ({"reduce_chain_dimension_method": "sum"}, "reduce_chain_dimension_method must be one of"),
        ({"sign": 2}, "sign must be -1 .*got 2"),
        ({"compute_covariance": True, "normalize": True}, "settles sign and normalize"),
        ({"loss_keys": ["c"]}, r"different names of \['a', 'b'\], got \['c'\]"),
        ({"loss_keys": "a"}, "loss_keys must be 'all' or a list"),
        ({"batch_index_range_1": [3, 11]}, r"row numbers in 0 … 10, got \[3, 11\]"),
        ({"batch_index_range_2": [3, 3]}, "different row numbers"),
        ({"batch_index_range_1": [1], "loss_keys_1": ["a"]}, "batch_index_range_1 or loss_keys_1, not both"),
        ({"loss_keys_2": ["c"]}, r"loss_keys_2 must be a list of \['a', 'b'\]"),
        ({"top_k": 0}, "top_k must be a whole number >= 1, got 0"),
        ({"num_blocks": 2.5}, "num_blocks must be a whole number >= 1"),
        (
            {"reduce_chain_dimension_method": "mean", "separate_chains": True},
            "divides the whole matrix, of stacked draws",
        ),
    ],
)
def test_bad_arguments_say_what_is_allowed(tree, options, message):
    with pytest.raises(ValueError, match=message):
        sltfast.compute_bif(tree, **options)


def test_trees_without_losses():
    with pytest.raises(ValueError, match="no losses of observables"):
        sltfast.compute_bif(xr.DataTree(xr.Dataset({"x": ("y", [1.0])})))
    with pytest.raises(TypeError, match="must be a tree from"):
        sltfast.compute_bif(np.zeros(3))
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        sltfast.compute_bif(loss_tree({"a": 2}, chains=1, draws=1))
