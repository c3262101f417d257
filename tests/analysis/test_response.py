"""The response matrix carries every token's place, text and context; standardise and centre_rows say what they do."""

import numpy as np
import pytest
import xarray as xr
from models import tiny_neox, token_rows
from response_trees import Letters, susceptibility_tree

import sltfast
from sltfast.analysis import centre_rows, pca, response_matrix, standardise


def changed(**values):
    tree = susceptibility_tree()
    found = tree["susceptibilities"].to_dataset()
    for at, value in values.get("sus", []):
        found["sus"].values[at] = value
    return xr.DataTree.from_dict({"/susceptibilities": found, "/context": tree["context"].to_dataset()})


def test_rows_are_labelled_with_their_tokens():
    tree = susceptibility_tree()
    matrix = response_matrix(tree, Letters(), context=2)
    assert matrix.dims == ("token", "component")
    assert matrix.shape == (3 * 4 + 2 * 3, 4)
    np.testing.assert_array_equal(matrix.values, tree["susceptibilities"]["sus"].values)
    assert matrix["component"].values.tolist() == ["l0h0", "l0h1", "l1h0", "l1h1"]
    stored = tree["context"].dataset
    for row in matrix:
        dataset = ["code", "prose"].index(str(row["dataset"].values))
        mine = (stored["dataset_id"] == dataset) & (stored["batch"] == int(row["batch"]))
        ids = stored["input_ids"].values[mine.values]
        position = int(row["target_position"])
        assert int(row["token_id"]) == ids[position]
        assert str(row["text"].values) == Letters().decode(ids[position : position + 1])
        assert str(row["context"].values) == Letters().decode(ids[max(0, position - 2) : position])


def test_the_order_of_the_context_does_not_matter():
    tree = susceptibility_tree()
    shuffled = tree["context"].to_dataset().isel(ctx_flat=np.random.default_rng(1).permutation(23))
    other = xr.DataTree.from_dict({"/susceptibilities": tree["susceptibilities"].to_dataset(), "/context": shuffled})
    assert response_matrix(tree, Letters()).identical(response_matrix(other, Letters()))


def test_without_a_tokenizer_ids_stand_for_text():
    matrix = response_matrix(susceptibility_tree(), context=1)
    assert matrix["text"].values.tolist() == [str(i) for i in matrix["token_id"].values.tolist()]
    assert matrix["context"].values[1] == str(int(matrix["token_id"][0]))
    assert response_matrix(susceptibility_tree(), context=0)["context"].values.tolist() == [""] * 18


def test_data_without_tokens_have_places_alone():
    tree = susceptibility_tree(context=False)
    matrix = response_matrix(tree)
    assert "token_id" not in matrix.coords
    assert matrix["dataset"].values.tolist() == ["code"] * 12 + ["prose"] * 6
    with pytest.raises(ValueError, match="its data are no tokens"):
        response_matrix(tree, Letters())


def test_padding_is_left_out_and_dead_components_stay():
    tree = changed(sus=[((slice(2, 5), slice(None)), np.nan), ((slice(None), 1), np.nan)])
    matrix = response_matrix(tree)
    assert matrix.shape == (15, 4)
    assert matrix.attrs["padding_rows"] == 3
    assert np.isnan(matrix.sel(component="l0h1")).all()
    with pytest.raises(ValueError, match=r"15 of 15 rows are not finite in the components \['l0h1'\]: leave out"):
        standardise(matrix)
    standardise(matrix.dropna("component", how="all"))
    with pytest.raises(ValueError, match="no row of the susceptibilities"):
        response_matrix(changed(sus=[(slice(None), np.nan)]))


def test_trees_that_do_not_fit():
    for tree in (3, xr.DataTree(), xr.DataTree.from_dict({"/susceptibilities": xr.Dataset()})):
        with pytest.raises(TypeError, match="tree must be one of susceptibilities"):
            response_matrix(tree)
    with pytest.raises(ValueError, match="context must be a whole number of tokens >= 0, got -1"):
        response_matrix(susceptibility_tree(), context=-1)
    tree = susceptibility_tree()
    sus, context = (tree[name].to_dataset() for name in ("susceptibilities", "context"))
    lacking = context.isel(ctx_flat=context["batch"].values != 1)
    with pytest.raises(ValueError, match=r"no sequence \(dataset_id, batch\) = \(0, 1\)"):
        response_matrix(xr.DataTree.from_dict({"/susceptibilities": sus, "/context": lacking}))
    cut = context.isel(ctx_flat=context["position"].values < 3)
    with pytest.raises(ValueError, match="target_position 3 lies beyond its sequence"):
        response_matrix(xr.DataTree.from_dict({"/susceptibilities": sus, "/context": cut}))


def test_columns_are_standardised():
    matrix = response_matrix(susceptibility_tree())
    scaled = standardise(matrix)
    np.testing.assert_allclose(scaled.mean("token"), 0.0, atol=1e-14)
    np.testing.assert_allclose(scaled.std("token"), 1.0, rtol=1e-12)
    assert scaled["text"].equals(matrix["text"])
    # what a component's own factor and level do is gone
    other = standardise(matrix * xr.DataArray([2.0, 0.1, 30.0, 1.0], dims="component") + 7.0)
    np.testing.assert_allclose(scaled.values, other.values, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e6])
def test_constant_columns_become_0_and_are_named(level):
    tree = changed(sus=[((slice(None), 2), level)])
    with pytest.warns(UserWarning, match=r"the components \['l1h0'\] are constant"):
        scaled = standardise(response_matrix(tree))
    assert (scaled.sel(component="l1h0") == 0).all()
    assert (scaled.sel(component="l0h0") != 0).any()


def test_rows_are_centred():
    matrix = response_matrix(susceptibility_tree())
    centred = centre_rows(matrix)
    np.testing.assert_allclose(centred.sum("component"), 0.0, atol=1e-13)
    uniform = xr.DataArray(np.arange(18.0), dims="token")
    np.testing.assert_allclose(centre_rows(matrix + uniform).values, centred.values, atol=1e-12)


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (np.zeros((3, 2)), TypeError, "must be an xr.DataArray"),
        (xr.DataArray(np.zeros((3, 2)), dims=("token", "wr")), ValueError, "dimensions"),
        (xr.DataArray(np.zeros((0, 2)), dims=("token", "component")), ValueError, "values in it"),
        (xr.DataArray([[1.0, np.inf]], dims=("token", "component")), ValueError, r"in the components \[1\]"),
    ],
)
def test_what_is_no_response_matrix(matrix, error, message):
    for function in (standardise, centre_rows):
        with pytest.raises(error, match=message):
            function(matrix)


def test_a_run_s_own_susceptibilities():
    rows = {"code": token_rows(), "prose": token_rows(seed=9)}
    observables = {name: (ids, 2) for name, ids in rows.items()} | {"train": (rows["code"], 1)}
    settings = {"lr": 1e-3, "n_beta": 10.0, "localization": 50.0, "num_chains": 2, "num_draws": 8, "batch_size": 4}
    heads = {"full": None, "l0h0": "l0h0", "l0h1": "l0h1"}
    runs = sltfast.sample_restrictions(tiny_neox(), rows["code"], observables, heads, progress=False, **settings)
    matrix = response_matrix(sltfast.compute_susceptibilities(runs, "train"), context=3)
    matrix = matrix.sel(component=["l0h0", "l0h1"])
    assert matrix.shape == (2 * 8 * 8, 2)  # of each data set 8 rows of 9 tokens, 8 of them predicted
    assert set(matrix["dataset"].values.tolist()) == {"code", "prose"}
    row = matrix[5]
    end = int(row["target_position"]) + 1
    seen = [*map(int, str(row["context"].values).split()), int(row["token_id"])]
    assert seen in rows[str(row["dataset"].values)][:, end - 4 : end].tolist()
    scores = pca(centre_rows(standardise(matrix)), 1)["scores"]
    np.testing.assert_allclose(scores.mean("token"), 0.0, atol=1e-12)
