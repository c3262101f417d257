"""Many restrictions in few passes: each is the run that it would be alone."""

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 6, "num_burnin_steps": 2,
    "num_steps_bw_draws": 2, "batch_size": 4, "batches_per_draw": 2, "progress": False,
}  # fmt: skip
RESTRICTIONS = {
    "full": None,
    "head": "l0h1",
    "other": "l0h0",
    "last": "l1h0",
    "mlp": "l1 mlp",
    "union": ["l1h1", "unembed"],
    "norm": "gpt_neox.final_layer_norm.weight",
}
"""Heads that share a pass, blocks that share a prefix, and what shares nothing."""
PADDED = {"input_ids": token_rows(), "attention_mask": torch.ones(24, 9, dtype=torch.long)}
PADDED["attention_mask"][::3, 7:] = 0  # right
PADDED["attention_mask"][1::3, :2] = 0  # left


@pytest.mark.parametrize("data", [token_rows(), PADDED], ids=["whole", "padded"])
def test_each_is_the_run_that_it_would_be_alone(data):
    model = tiny_neox().double()
    together = sltfast.sample_restrictions(model, data, {"o": data}, RESTRICTIONS, **SETTINGS)
    assert list(together) == list(RESTRICTIONS)
    for name, masks in RESTRICTIONS.items():
        alone = sltfast.sample(model, data, {"o": data}, param_masks=masks, engine="sequential", **SETTINGS)
        for variable in alone.dataset.data_vars:
            if variable == "init_loss":
                continue
            # the same noise and batches: float64 sums in another order, over 14 steps; records are float32
            tolerance = 1e-10 if alone[variable].dtype == np.float64 else 1e-5
            np.testing.assert_allclose(
                together[name][variable].values, alone[variable].values, rtol=tolerance, err_msg=f"{name} {variable}"
            )
    plans = {name: tree.attrs["sltfast"]["plan"] for name, tree in together.items()}
    assert plans["head"]["restrictions_per_pass"] == plans["other"]["restrictions_per_pass"] == 2
    assert plans["head"]["heads"] == "lanes of their own"
    assert plans["mlp"]["lanes_part_at"] == "gpt_neox.layers.1"
    assert {plan["engine"] for plan in plans.values()} == {"stacked"}


def test_runs_on_disk_are_resumed_one_by_one(tmp_path, monkeypatch):
    from sltfast.sampler import flight

    model, data = tiny_neox(), token_rows()
    names = {"a": "l0h0", "b": "l0h1", "c": "l1 mlp"}
    whole = sltfast.sample_restrictions(model, data, {"o": data}, names, output_path=tmp_path / "x.zarr", **SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x_a.zarr", "x_b.zarr", "x_c.zarr"]

    class Interrupt(Exception):
        pass

    made, step = [], flight.Flight.step

    def stopping(self, t):
        if len(made) == 15:
            raise Interrupt
        made.append(t)
        step(self, t)

    monkeypatch.setattr(flight, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(flight, "STATE_COST", 0)
    arguments = (model, data, {"o": data}, names)
    with monkeypatch.context() as patch:
        patch.setattr(flight.Flight, "step", stopping)
        with pytest.raises(Interrupt):
            sltfast.sample_restrictions(*arguments, output_path=tmp_path / "y.zarr", **SETTINGS)
    resumed = sltfast.sample_restrictions(*arguments, output_path=tmp_path / "y.zarr", **SETTINGS)
    for name in names:
        for variable in whole[name].dataset.data_vars:
            np.testing.assert_array_equal(resumed[name][variable], whole[name][variable], err_msg=f"{name} {variable}")


def test_models_and_losses_of_any_kind():
    data = regression_data()
    wanted = {"first": "first.*", "second": "second.weight", "all": None}
    together = sltfast.sample_restrictions(Mlp(), data, {}, wanted, loss_fn=regression_loss, **SETTINGS)
    for name, masks in wanted.items():
        alone = sltfast.sample(Mlp(), data, {}, param_masks=masks, loss_fn=regression_loss, **SETTINGS)
        np.testing.assert_allclose(together[name]["loss"], alone["loss"], rtol=1e-5)


def test_names_of_parts_stand_for_restrictions():
    model, data = tiny_neox(), token_rows()
    by_name = sltfast.sample_restrictions(model, data, {}, ["l1 mlp", "all heads"], **SETTINGS)
    heads = sltfast.head_names(model)
    mapped = sltfast.sample_restrictions(model, data, {}, {name: name for name in ["l1 mlp", *heads]}, **SETTINGS)
    assert list(by_name) == list(mapped) == ["l1 mlp", *heads]
    for name, tree in mapped.items():
        np.testing.assert_array_equal(by_name[name]["loss"], tree["loss"], err_msg=name)
    (whole,) = sltfast.sample_restrictions(torch.nn.DataParallel(model), data, {}, "full", **SETTINGS).values()
    np.testing.assert_array_equal(whole["loss"], sltfast.sample(model, data, **SETTINGS)["loss"])


@pytest.mark.parametrize(
    ("restrictions", "changes", "error", "says"),
    [
        ({}, {}, ValueError, "weight_restrictions is empty"),
        ([b"l0h0"], {}, TypeError, "a list of names of parts"),
        (["l9h0"], {}, ValueError, "l9h0"),
        ({"a": "l9h0"}, {}, ValueError, "l9h0"),
        ({"a": None}, {"param_masks": None}, TypeError, "param_masks belongs in weight_restrictions"),
        ({"a": None}, {"num_drawz": 3}, TypeError, "did you mean 'num_draws'"),
        ({"a": None, "b": None}, {"engine": "fast"}, ValueError, "engine must be one of"),
        ({"a": None}, {"chains_per_pass": 0}, ValueError, "chains_per_pass must be None or a number of chains"),
    ],
)
def test_bad_input_is_refused_before_the_first_step(restrictions, changes, error, says):
    with pytest.raises(error, match=says):
        sltfast.sample_restrictions(tiny_neox(), token_rows(), {}, restrictions, **{**SETTINGS, **changes})


def test_names_that_would_share_a_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="written to one file"):
        sltfast.sample_restrictions(
            tiny_neox(), token_rows(), {}, {"a b": None, "a_b": None}, output_path=tmp_path / "x.zarr", **SETTINGS
        )


@pytest.mark.parametrize("chains", [{"num_chains": 1}, {"num_chains": 3, "chains_per_pass": 1}], ids=str)
def test_a_head_that_goes_alone_forgets_the_observable_before_it(chains):
    model, data = tiny_neox().double(), token_rows()
    settings = {**SETTINGS, **chains, "param_masks": "l1h0", "num_steps_bw_draws": 1}
    one = sltfast.sample(model, data, {"o": data}, engine="stacked", **settings)
    assert one.attrs["sltfast"]["plan"]["heads"] == "lanes of their own"
    settings.pop("chains_per_pass", None)
    alone = sltfast.sample(model, data, {"o": data}, engine="sequential", **settings)
    np.testing.assert_allclose(one["loss"], alone["loss"], rtol=1e-10)  # float64, eight steps


@pytest.mark.parametrize(
    ("data", "observed"), [(PADDED, token_rows()), (token_rows(), PADDED)], ids=["without", "with"]
)
def test_observables_with_other_columns_than_the_data_set(data, observed):
    model, settings = tiny_neox().double(), {**SETTINGS, "num_draws": 3}
    names = {"head": "l1h0", "mlp": "l1 mlp", "full": None}
    together = sltfast.sample_restrictions(model, data, {"o": observed, "p": data}, names, **settings)
    for name, masks in names.items():
        arguments = (model, data, {"o": observed, "p": data})
        alone = sltfast.sample(*arguments, param_masks=masks, engine="sequential", **settings)
        np.testing.assert_allclose(together[name]["loss"], alone["loss"], rtol=1e-10)  # float64, eight steps
        np.testing.assert_allclose(together[name]["loss_o"], alone["loss_o"], rtol=1e-5)  # records are float32
        assert together[name].attrs["sltfast"]["plan"]["engine"] == "stacked"
    assert "other batches are of another kind" in together["mlp"].attrs["sltfast"]["plan"]["lanes_part_at"]


def test_a_shared_pass_is_not_taken_up_where_one_of_its_runs_was_begun_anew(tmp_path, monkeypatch):
    from sltfast.sampler import flight

    class Interrupt(Exception):
        pass

    step = flight.Flight.step

    def until(last):
        def stopping(self, t):
            if t == last:
                raise Interrupt
            step(self, t)

        return stopping

    monkeypatch.setattr(flight, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(flight, "STATE_COST", 0)
    model, data = tiny_neox(), token_rows()
    both, one = {"a": "l0h0", "b": "l0h1"}, {"b": "l0h1"}
    whole = sltfast.sample_restrictions(model, data, None, both, **SETTINGS)
    for names, last in ((both, 9), (one, 4)):
        with monkeypatch.context() as patch:
            patch.setattr(flight.Flight, "step", until(last))
            with pytest.raises(Interrupt):
                sltfast.sample_restrictions(model, data, None, names, output_path=tmp_path / "x.zarr", **SETTINGS)
    resumed = sltfast.sample_restrictions(model, data, None, both, output_path=tmp_path / "x.zarr", **SETTINGS)
    for name in both:
        for variable in whole[name].dataset.data_vars:
            np.testing.assert_array_equal(resumed[name][variable], whole[name][variable], err_msg=f"{name} {variable}")
