"""``sltfast.susceptibilities``: from a model to χ, in memory and on disk, with a control, and for other models."""

import numpy as np
import pytest
import torch
import xarray as xr
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 6, "batch_size": 4,
    "batches_per_draw": 2, "progress": False,
}  # fmt: skip
OBSERVABLES = {"pile": token_rows(seed=5), "code": token_rows(seed=6)}


def test_it_is_compute_susceptibilities_of_the_sampled_restrictions():
    model, data = tiny_neox(), token_rows()
    found = sltfast.susceptibilities(model, data, OBSERVABLES, ["all heads"], sampling_task="pile", **SETTINGS)
    heads = sltfast.head_names(model)
    assert found["susceptibilities"]["wr"].values.tolist() == ["full", *heads]
    runs = sltfast.sample_restrictions(model, data, OBSERVABLES, {"full": None, **{h: h for h in heads}}, **SETTINGS)
    expected = sltfast.compute_susceptibilities(runs, "pile")
    for node in ("susceptibilities", "datasets"):
        for name in ("sus", "se", "sus_single_chain", "se_single_chain"):
            # the same float32 losses; joined from 6 blocks of one draw in float64
            np.testing.assert_allclose(found[node][name], expected[node][name], rtol=1e-9, atol=1e-14)
    assert {"estimator": "two_chain", "sampling_task": "pile", "n_beta": 10.0, "num_blocks": 6}.items() <= (
        found.attrs.items()
    )


def test_the_single_chain_estimator_samples_no_full_run():
    model, data = tiny_neox(), token_rows()
    heads = sltfast.head_names(model)[:2]
    found, whole = (
        sltfast.susceptibilities(
            model, data, OBSERVABLES, names, sampling_task="pile", estimator="single_chain", **SETTINGS
        )
        for names in (heads, ["full", *heads])
    )
    assert found["susceptibilities"]["wr"].values.tolist() == heads
    assert whole["susceptibilities"]["wr"].values.tolist() == ["full", *heads]
    np.testing.assert_allclose(
        found["susceptibilities"]["sus"], whole["susceptibilities"]["sus"].sel(wr=heads), rtol=1e-6, atol=1e-12
    )


def test_devinterps_call_gives_devinterps_numbers(tmp_path):
    found = sltfast.susceptibilities(
        tiny_neox(), token_rows(), OBSERVABLES, {"full": None, "l0h0": "l0h0"}, sampling_task="pile",
        init_loss="init_batches", num_init_loss_batches=2, record="traces", output_path=tmp_path / "x.zarr", **SETTINGS,
    )  # fmt: skip
    from devinterp.slt.susceptibilities import compute_susceptibilities

    runs = {name: sltfast.open(tmp_path / f"x_{name}.zarr") for name in ("full", "l0h0")}
    expected = compute_susceptibilities(runs, "pile")["susceptibilities"]["sus"]
    # 12 products φ·ℓ in float32, |φ| < 1 and ℓ < 8 nats: 3 means of (2 + log₂ 12) roundings
    ours = found["susceptibilities"]["sus"].sel(wr=["l0h0"]).values
    np.testing.assert_allclose(ours, expected.values, rtol=0, atol=3 * 8 * 6 * 2.0**-24)
    assert np.abs(ours).max() > 1e-4


def test_a_complete_call_returns_what_it_wrote(tmp_path, monkeypatch):
    def call(**changes):
        keywords = {
            "sampling_task": "pile",
            "control": True,
            "output_path": tmp_path / "llm.zarr",
            **SETTINGS,
            **changes,
        }
        return sltfast.susceptibilities(tiny_neox(), token_rows(), OBSERVABLES, {"a": "l0h0"}, **keywords)

    first = call()
    stores = ["llm.susceptibilities.zarr", "llm_a.zarr", "llm_control_a.zarr", "llm_control_full.zarr", "llm_full.zarr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == stores
    with monkeypatch.context() as patched:
        patched.setattr("sltfast.estimators.susceptibility.run.compute_susceptibilities", None)
        again = call()
        with pytest.raises(TypeError):  # other settings are computed
            call(estimator="single_chain")
    for tree in (again, xr.open_datatree(tmp_path / stores[0], engine="zarr", consolidated=False)):
        assert tree.attrs == first.attrs
        assert tree["susceptibilities"].attrs == first["susceptibilities"].attrs
        for node in ("susceptibilities", "datasets", "components", "context", "control/susceptibilities"):
            xr.testing.assert_equal(tree[node].to_dataset().load(), first[node].to_dataset())
    other = call(estimator="single_chain")
    assert other.attrs["estimator"] == call(estimator="single_chain").attrs["estimator"] == "single_chain"
    np.testing.assert_array_equal(
        other["susceptibilities"]["sus"].values, first["susceptibilities"]["sus_single_chain"].sel(wr=["a"]).values
    )
    with pytest.raises(sltfast.OutputMismatch, match="lr"):
        call(lr=2e-3)


def test_a_result_that_could_not_be_written_whole_is_not_taken_for_one(tmp_path, monkeypatch):
    def call():
        return sltfast.susceptibilities(
            tiny_neox(), token_rows(), OBSERVABLES, ["l0h0"], sampling_task="pile", output_path=tmp_path / "llm.zarr",
            **SETTINGS,
        )  # fmt: skip

    written = xr.DataTree.to_zarr

    def breaks(tree, path, **keywords):
        written(tree, path, **keywords)
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(xr.DataTree, "to_zarr", breaks)
        with pytest.raises(OSError, match="disk full"):
            call()
    assert not (tmp_path / "llm.susceptibilities.zarr").exists()
    result = call()
    stored = xr.open_datatree(tmp_path / "llm.susceptibilities.zarr", engine="zarr", consolidated=False)
    np.testing.assert_array_equal(stored["susceptibilities"]["sus"].values, result["susceptibilities"]["sus"].values)
    assert not (tmp_path / "llm.susceptibilities.zarr.part").exists()


def test_what_stands_in_the_results_place_is_not_destroyed(tmp_path):
    (tmp_path / "llm.susceptibilities.zarr").mkdir()
    (tmp_path / "llm.susceptibilities.zarr" / "thesis.txt").write_text("mine")
    with pytest.raises(sltfast.OutputMismatch, match="holds something else"):
        sltfast.susceptibilities(
            tiny_neox(), token_rows(), OBSERVABLES, ["l0h0"], sampling_task="pile", output_path=tmp_path / "llm.zarr",
            **SETTINGS,
        )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["llm.susceptibilities.zarr"]


def test_the_control_is_the_same_without_a_loss():
    found = sltfast.susceptibilities(
        tiny_neox(), token_rows(), OBSERVABLES, ["l1 mlp"], sampling_task="pile", control=True, **SETTINGS
    )
    alone = sltfast.susceptibilities(
        tiny_neox(), token_rows(), OBSERVABLES, ["l1 mlp"], sampling_task="pile", **{**SETTINGS, "n_beta": 0.0}
    )
    for node in ("susceptibilities", "datasets"):
        xr.testing.assert_equal(found[f"control/{node}"].to_dataset(), alone[node].to_dataset())
    assert found["control"].attrs["n_beta"] == 0.0
    assert float(np.abs(found["susceptibilities"]["sus"] - alone["susceptibilities"]["sus"]).max()) > 0


def test_other_models_and_losses():
    data, probes = regression_data(), regression_data(rows=16, seed=4)
    found = sltfast.susceptibilities(
        Mlp(), data, {"all": (data, 4), "probes": (probes, 4)}, {"first": ["first.weight", "first.bias"]},
        sampling_task="all", loss_fn=regression_loss, include_sampling_task=True, **SETTINGS,
    )  # fmt: skip
    assert "context" not in found.children
    values = found["susceptibilities"].to_dataset()
    assert values.sizes == {"sus_flat": 32, "wr": 2}
    assert set(values["target_position"].values.tolist()) == {1}
    assert np.isfinite(values["se"]).all()
    assert abs(float(found["datasets"]["sus"].sel(wr="first", dataset="all"))) < 1e-12
    assert found.attrs["density_deviation"] < 1e-6


def test_signed_weights_make_up_a_data_sets_mean():
    x, y = regression_data()
    data = (x, y, torch.linspace(-0.5, 2.0, len(y)))

    def weighted(model, batch):
        x, y, weight = batch
        return (model(x) - y) ** 2, weight

    with pytest.raises(ValueError, match="weights"):  # a loss whose weights are negative is given as a signed loss
        sltfast.susceptibilities(
            Mlp(), data, {"all": (data, 4)}, ["first.weight"], sampling_task="all", loss_fn=weighted,
            include_sampling_task=True, **SETTINGS,
        )  # fmt: skip
    found = sltfast.susceptibilities(
        Mlp(), data, {"all": (data, 4), "o": (data, 3)}, ["first.weight"], sampling_task="all",
        loss_fn=lambda model, batch: batch[2] * (model(batch[0]) - batch[1]) ** 2, **SETTINGS,
    )  # fmt: skip
    assert found.attrs["density_deviation"] < 1e-6


def test_bad_calls_are_refused_before_the_first_step(monkeypatch):
    monkeypatch.setattr("sltfast.estimators.susceptibility.run.sample_restrictions", None)
    refused = [
        (ValueError, "sampling_task 'prose' is none of the observables", {"sampling_task": "prose"}),
        (ValueError, "no observable beside", {"observables": {"pile": token_rows()}}),
        (TypeError, "observables must be a mapping", {"observables": [token_rows()]}),
        (ValueError, "estimator must be one of", {"estimator": "both"}),
        (ValueError, "nothing holds the weights", {"control": True, "localization": 0.0}),
        (ValueError, "weight_restrictions is empty", {"weight_restrictions": []}),
    ]
    for kind, message, change in refused:
        keywords = {
            "observables": OBSERVABLES, "weight_restrictions": ["l0h0"], "sampling_task": "pile", **SETTINGS, **change
        }  # fmt: skip
        with pytest.raises(kind, match=message):
            sltfast.susceptibilities(tiny_neox(), token_rows(), **keywords)


def refused(message, **options):
    def never(model, batch):
        raise AssertionError("a step was made")

    observables = {"task": regression_data(), "other": regression_data(seed=2)}
    with pytest.raises(ValueError, match=message):
        sltfast.susceptibilities(
            Mlp(), regression_data(), observables, {"first": "first.*"}, sampling_task="task", loss_fn=never,
            **SETTINGS | options,
        )  # fmt: skip


def test_what_no_run_can_give_is_said_before_the_first_step():
    refused("num_blocks must be a whole number >= 1, got '8'", num_blocks="8")
    refused("record='covariances' keeps no φ: give record='moments' or 'traces'", record="covariances")
    refused("needs num_init_loss_batches > 0, got 0", init_loss="init_batches", num_init_loss_batches=0)


@pytest.mark.parametrize(("chains", "draws"), [(1, 2), (2, 1)])
def test_two_draws_tell_no_error(chains, draws):
    settings = SETTINGS | {"num_chains": chains, "num_draws": draws}
    observables = {"task": regression_data(), "other": regression_data(seed=2)}
    found = sltfast.susceptibilities(
        Mlp(), regression_data(), observables, {"first": "first.*"}, sampling_task="task", loss_fn=regression_loss,
        **settings,
    )  # fmt: skip
    for node in ("susceptibilities", "datasets"):
        assert np.isfinite(found[node]["sus"]).all()
        assert np.isnan(found[node]["se"]).all()
        assert np.isnan(found[node]["se_single_chain"]).all()


def kept(path, **options):
    observables = {"task": regression_data(), "other": regression_data(seed=2)}
    return sltfast.susceptibilities(
        Mlp(), regression_data(), observables, {"first": "first.*"}, sampling_task="task", loss_fn=regression_loss,
        output_path=path, **SETTINGS | options,
    )  # fmt: skip


def test_a_result_read_back_is_not_what_a_later_call_writes(tmp_path):
    expected = kept(tmp_path / "net.zarr")
    read = kept(tmp_path / "net.zarr")
    kept(tmp_path / "net.zarr", estimator="single_chain")
    assert read.attrs["estimator"] == "two_chain"
    np.testing.assert_array_equal(read["susceptibilities"]["sus"], expected["susceptibilities"]["sus"])


class Steep(torch.nn.Module):
    """A loss that is flat in one weight and blows up in the other."""

    def __init__(self):
        super().__init__()
        self.flat, self.steep = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))


def steep_loss(model, batch):
    return (model.flat**2 + 1e12 * model.steep**4) * (1 + batch[:, 0])


def with_dead_chains(restrictions, **options):
    rows = {seed: torch.rand(8, 1, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)}
    observables = {"task": rows[0], "other": rows[1]}
    settings = SETTINGS | {"lr": 1e-2, "num_draws": 9} | options
    return sltfast.susceptibilities(
        Steep(), rows[0], observables, restrictions, sampling_task="task", loss_fn=steep_loss, **settings
    )


@pytest.mark.filterwarnings("ignore::sltfast.errors.ChainDiverged")
def test_a_result_read_back_says_who_died(tmp_path):
    for message in ("all of 'steep'", r"chains that died are left out, of 2: \{'steep': 2\}"):
        with pytest.warns(sltfast.ChainDiverged, match=message):
            found = with_dead_chains({"full": "flat", "steep": "steep"}, output_path=tmp_path / "net.zarr")
        assert np.isnan(found["susceptibilities"]["sus"].sel(wr="steep")).all()
        assert np.isfinite(found["susceptibilities"]["sus"].sel(wr="full")).all()


@pytest.mark.filterwarnings("ignore::sltfast.errors.ChainDiverged")
def test_a_full_run_that_died_is_named():
    with pytest.raises(
        sltfast.AllChainsDied, match=r"no chain lived of the full run, which the two-chain .*: lower lr"
    ):
        with_dead_chains({"flat": "flat"})
