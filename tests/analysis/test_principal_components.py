"""Principal components against the singular value decomposition; whitening; ranks."""

import numpy as np
import pytest
import xarray as xr
from response_trees import Letters, susceptibility_tree

from sltfast import extras
from sltfast.analysis import centre_rows, pca, response_matrix, standardise, whiten


def matrix(**changes):
    return standardise(response_matrix(susceptibility_tree(**changes), Letters()))


@pytest.mark.parametrize("tall", [False, True])  # scikit-learn takes another way where tokens are many
def test_against_the_singular_values(tall):
    x = matrix(sizes=((40, 9), (20, 7))) if tall else matrix()
    found = pca(x, 4)
    apart = x.values - x.values.mean(axis=0)
    _, s, v = np.linalg.svd(apart, full_matrices=False)
    np.testing.assert_allclose(found["explained_variance"], s**2 / (len(x) - 1), rtol=1e-9)
    np.testing.assert_allclose(found["explained_variance_ratio"].sum(), 1.0)
    np.testing.assert_allclose(np.abs((found["loadings"].values * v).sum(axis=1)), 1.0, rtol=1e-9)
    loadings = found["loadings"].values
    assert (loadings.max(axis=1) == np.abs(loadings).max(axis=1)).all()
    whole = found["scores"] @ found["loadings"] + found["mean"]
    np.testing.assert_allclose(whole.transpose("token", "component").values, x.values, atol=1e-12)
    assert found["scores"]["text"].equals(x["text"])
    assert found["pc"].values.tolist() == [1, 2, 3, 4]


def test_a_planted_mode_is_the_first_component():
    rng = np.random.default_rng(5)
    direction = np.array([0.5, -0.5, 0.5, -0.5])
    strength = rng.standard_normal(300)
    values = 3.0 * strength[:, None] * direction + rng.standard_normal((300, 4))
    x = xr.DataArray(values, dims=("token", "component"), coords={"component": list("abcd")})
    found = pca(x, 2)
    # noise of variance 1 on 300 tokens turns the axis by about 1/(3·√300) = 0.02 in each other direction
    assert abs(float(found["loadings"][0] @ xr.DataArray(direction, dims="component"))) > 1 - 3 * 4 * 0.02**2
    assert found["explained_variance"].values[0] == pytest.approx(10.0, rel=4 * np.sqrt(2 / 300))


def test_whitened_scores_are_uncorrelated_with_variance_1():
    x = matrix()
    white = whiten(x)
    assert white.dims == ("token", "pc")
    np.testing.assert_allclose(np.cov(white.values.T), np.eye(4), atol=1e-10)
    found = pca(x, 2, whiten=True)
    np.testing.assert_allclose(found["scores"].values, white.values[:, :2], atol=1e-10)
    assert found.attrs["whitened"] == 1


def test_centred_rows_have_one_direction_less():
    x = centre_rows(matrix())
    assert whiten(x).sizes["pc"] == 3
    with pytest.raises(ValueError, match="rank 3 after centring and cannot be whitened in 4 directions"):
        pca(x, 4, whiten=True)
    assert float(pca(x, 4)["explained_variance"][3]) == pytest.approx(0.0, abs=1e-12)
    same = xr.DataArray(np.ones((3, 2)), dims=("token", "component"))
    with pytest.raises(ValueError, match="all rows of the matrix are equal"):
        whiten(same)
    assert pca(same, 1)["explained_variance_ratio"].values.tolist() == [0.0]


@pytest.mark.parametrize("num_components", [0, 5, 1.5, True])
def test_a_number_of_components_that_is_not_there(num_components):
    with pytest.raises(ValueError, match="num_components must be a whole number in 1 … 4, got"):
        pca(matrix(), num_components)


def test_one_token_has_no_components():
    with pytest.raises(ValueError, match="at least two tokens"):
        pca(matrix()[:1], 1)


def test_a_missing_package_names_its_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(extras.MissingExtra, match=r"sltfast\[analysis\]"):
        pca(matrix(), 1)
