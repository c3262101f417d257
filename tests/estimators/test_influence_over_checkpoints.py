"""Influence over checkpoints is that of each one's own run, by row and by group; kept runs are not sampled again."""

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast
from sltfast.sampler.run import Run

DATA, OTHERS = regression_data(12), regression_data(8, seed=7)
SETTINGS = {"lr": 1e-3, "n_beta": 20.0, "localization": 10.0, "num_chains": 2, "num_draws": 24, "batch_size": 4}
OBSERVABLES = {"train": (DATA, 3), "held out": (OTHERS, 2)}
KINDS = {"train": ["a", "b", None] * 4, "held out": ["b"] * 8}


def trained(seed):
    model = Mlp()
    with torch.no_grad():
        model.second.bias += 0.3 * seed
    return model


def followed(checkpoints=None, observables=OBSERVABLES, **changes):
    given = {0: trained(0), 100: trained(1), 300: trained(2)} if checkpoints is None else checkpoints
    return sltfast.influence_over_checkpoints(
        given, DATA, observables, **{"loss_fn": regression_loss, "progress": False, **SETTINGS, **changes}
    )


def own_run(model):
    return sltfast.sample(model, DATA, OBSERVABLES, loss_fn=regression_loss, progress=False, **SETTINGS)


def losses_by_row(tree, name, data):
    """[chain·draw, rows] recorded losses in the order of the data set, told from the losses at w*."""
    recorded = tree.dataset[f"loss_{name}"].values[..., 0].reshape(-1, len(data[0]))
    at_init = tree.dataset[f"init_loss_{name}"].values[..., 0].ravel()
    expected = regression_loss(trained(1), data).detach().numpy()
    order = np.argsort(np.argsort(expected))
    return recorded[:, np.argsort(at_init)[order]]


def test_each_checkpoint_is_its_own_run_by_row():
    result = followed()
    assert result["influences"].dims == result["influences_se"].dims == ("checkpoint", "query", "item")
    assert result["influences"].shape == (3, 20, 20)
    assert result["step"].values.tolist() == [0, 100, 300]
    assert result["item_row"].values.tolist() == [*range(12), *range(8)]
    assert result["query_observable"].values.tolist() == ["train"] * 12 + ["held out"] * 8
    tree = own_run(trained(1))
    losses = np.concatenate([losses_by_row(tree, "train", DATA), losses_by_row(tree, "held_out", OTHERS)], 1)
    # losses are float32: 20 of them are compared with what the estimator reads, through sums of float64
    np.testing.assert_allclose(result["influences"][1].values, -np.cov(losses.T), rtol=1e-5, atol=1e-9)
    estimate = sltfast.compute_llc(tree)
    assert float(result["llc_mean"][1]) == float(estimate["llc_mean"])
    assert result["verdict"].values[1] == estimate.attrs["verdict"]
    assert result["chains_alive"].values.tolist() == [2, 2, 2]
    assert (result["influences_se"] > 0).all()
    assert result.attrs["n_beta"] == 20.0


def test_queries_and_items_may_differ():
    whole, part = followed(), followed(loss_keys_1=["held out"], loss_keys_2=["train"])
    assert part["influences"].shape == (3, 8, 12)
    np.testing.assert_allclose(part["influences"], whole["influences"][:, 12:, :12], rtol=1e-9, atol=1e-12)
    correlation = followed({5: trained(0)}, normalize=True)["influences"][0].values
    spread = np.sqrt(-np.diag(whole["influences"][0]))
    np.testing.assert_allclose(correlation, whole["influences"][0] / np.outer(spread, spread), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_groups_are_means_over_rows(exclude_self):
    pairs, groups = followed(), followed(labels=KINDS, exclude_self=exclude_self)
    assert groups["influences"].dims == ("checkpoint", "group_1", "group_2")
    assert groups["group_1"].values.tolist() == ["a", "b"]
    assert groups["group_size"].values.tolist() == [4, 12]
    labels = np.array(KINDS["train"] + KINDS["held out"], dtype=object)
    own = np.eye(20, dtype=bool)
    for first, second in (("a", "a"), ("a", "b"), ("b", "b")):
        kept = (labels == first)[:, None] & (labels == second) & ~(own & exclude_self)
        expected = pairs["influences"].values[:, kept].mean(1)
        np.testing.assert_allclose(
            groups["influences"].sel(group_1=first, group_2=second), expected, rtol=1e-7, atol=1e-12
        )


def test_language_models_and_state_dicts():
    models = {0: tiny_neox().state_dict(), 10: tiny_neox().state_dict()}
    ids = token_rows(8)
    settings = {"lr": 1e-4, "n_beta": 5.0, "localization": 100.0, "num_chains": 2, "num_draws": 4, "batch_size": 4}
    result = sltfast.influence_over_checkpoints(
        models, ids, {"rows": (ids, 2)}, model=tiny_neox(), progress=False, **settings
    )
    assert result["influences"].shape == (2, 8, 8)
    assert np.array_equal(result["influences"][0], result["influences"][1])


def test_kept_runs_are_not_sampled_again(tmp_path, monkeypatch):
    first = followed(output_path=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.zarr")) == [
        "step-000000.zarr", "step-000100.zarr", "step-000300.zarr"
    ]  # fmt: skip
    monkeypatch.setattr(Run, "chains", None)
    again = followed(output_path=tmp_path)
    assert np.array_equal(first["influences"], again["influences"])
    grouped = followed(output_path=tmp_path, labels=KINDS)
    assert grouped["influences"].shape == (3, 2, 2)


class Fragile(Mlp):
    """Its outputs are NaN as soon as it moves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("start", self.second.bias.detach().clone())

    def forward(self, x):
        return super().forward(x) + torch.where(self.second.bias == self.start, 0.0, torch.nan)


def test_a_checkpoint_whose_chains_die_is_nan():
    dying = Fragile()
    with pytest.warns(sltfast.ChainDiverged, match="step 7 .*2 of 2 chains met NaN"):
        result = followed({3: trained(0), 7: dying})
    assert result["chains_alive"].values.tolist() == [2, 0]
    assert result["influences"][1].isnull().all()
    assert not result["influences"][0].isnull().any()
    assert result["verdict"].values[1] == "diverged"
    with pytest.warns(sltfast.ChainDiverged), pytest.raises(sltfast.AllChainsDied, match="of any checkpoint"):
        followed({7: dying})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"observables": {}}, ValueError, "influence needs observables"),
        ({"observables": {"train": (DATA, 9)}}, ValueError, "has 12 rows, fewer than"),
        (
            {"loss_keys_1": ["tests"]},
            ValueError,
            r"loss_keys_1 must be a list of the observables \['train', 'held out'\]",
        ),
        ({"labels": {"train": ["a"] * 12}}, ValueError, "labels must be {observable: one label a row}"),
        (
            {"labels": {"train": ["a"] * 3, "held out": ["b"] * 8}},
            ValueError,
            "labels of 'train' are 3, but .* 12 rows",
        ),
        ({"labels": KINDS, "loss_keys_2": ["train"]}, ValueError, "leave loss_keys_1 and loss_keys_2 away"),
        ({"exclude_self": True}, ValueError, "exclude_self is about means over groups"),
        ({"num_blocks": 0}, ValueError, "num_blocks must be a whole number >= 1"),
        ({"record": "moments", "sampling_task": "train"}, ValueError, "leave record='traces'"),
        ({"num_chain": 3}, TypeError, "did you mean 'num_chains'"),
    ],
)
def test_bad_arguments(change, error, message, monkeypatch):
    monkeypatch.setattr(Run, "chains", None)  # nothing is sampled
    with pytest.raises(error, match=message):
        followed(**change)
