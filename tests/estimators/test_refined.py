"""Every cell of refined_llc is a run of its own; bad input is refused before the first step."""

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

SHORT = {"lr": 1e-3, "n_beta": 10.0, "localization": 5.0, "num_chains": 2, "num_draws": 16, "progress": False}
DATA = {"train": regression_data(), "shifted": regression_data(rows=24, seed=5)}
PARTS = {"full": None, "first": "first.*"}


def refined(datasets=None, restrictions=None, **changes):
    kept = {"loss_fn": regression_loss, "batch_size": 8, **SHORT, **changes}
    return sltfast.refined_llc(Mlp(), datasets or DATA, restrictions or PARTS, **kept)


def test_each_cell_is_its_own_run():
    result = refined()
    assert result["llc_mean"].dims == ("dataset", "wr")
    assert result["excess_trace"].dims == ("dataset", "wr", "chain", "step")
    for dataset, rows in DATA.items():
        for wr, masks in PARTS.items():
            alone = sltfast.llc(Mlp(), rows, loss_fn=regression_loss, batch_size=8, param_masks=masks, **SHORT)
            cell = result.sel(dataset=dataset, wr=wr)
            for name in ("llc_mean", "llc_se", "llc_per_chain", "rhat", "ess", "init_loss"):
                # float32 products summed in another order, over 16 steps
                np.testing.assert_allclose(cell[name].values, alone[name].values, rtol=1e-4, atol=1e-3, err_msg=name)
            assert str(cell["verdict"].values) == alone.attrs["verdict"]
    assert result.attrs["n_beta"] == 10.0


def test_heads_of_a_language_model_on_two_texts():
    texts = {"prose": token_rows(), "code": token_rows(seed=9)}
    result = sltfast.refined_llc(tiny_neox(), texts, {"l0h1": "l0h1", "l1": "l1"}, batch_size=4, **SHORT)
    assert result["llc_mean"].shape == (2, 2)
    assert np.isfinite(result["llc_se"]).all()
    alone = sltfast.llc(tiny_neox(), texts["code"], param_masks="l0h1", batch_size=4, **SHORT)
    of_cell = result.sel(dataset="code", wr="l0h1")
    np.testing.assert_allclose(of_cell["loss_trace"].values, alone["loss_trace"].values, rtol=1e-5)


def test_without_restrictions_the_whole_model_moves():
    result = sltfast.refined_llc(Mlp(), DATA, loss_fn=regression_loss, batch_size=8, **SHORT)
    assert result["wr"].values.tolist() == ["full"]
    assert result["dataset"].values.tolist() == list(DATA)


def test_each_loader_keeps_its_batch_size():
    loaders = {
        name: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows), batch_size=size)
        for (name, rows), size in zip(DATA.items(), (10, 6), strict=True)
    }
    result = refined(loaders, {"full": None}, batch_size=None)
    for name, size in (("train", 10), ("shifted", 6)):
        alone = sltfast.llc(Mlp(), DATA[name], loss_fn=regression_loss, batch_size=size, **SHORT)
        np.testing.assert_allclose(result["loss_trace"].sel(dataset=name)[0].values, alone["loss_trace"], rtol=1e-5)


def test_cells_are_written_and_taken_up(tmp_path):
    path = tmp_path / "llm.zarr"
    first = refined(output_path=path)
    assert {p.name for p in tmp_path.glob("*.zarr")} == {f"llm_{dataset}_{wr}.zarr" for dataset in DATA for wr in PARTS}
    again = refined(output_path=path)
    np.testing.assert_array_equal(first["llc_mean"].values, again["llc_mean"].values)
    cell = sltfast.compute_llc(sltfast.open(tmp_path / "llm_shifted_first.zarr"))
    assert float(cell["llc_mean"]) == float(first["llc_mean"].sel(dataset="shifted", wr="first"))


@pytest.mark.filterwarnings("ignore::sltfast.ChainDiverged")
def test_a_cell_without_a_living_chain_is_reported():
    def scaled(model, batch):
        return quadratic_loss(model, batch) * batch[:, 0]

    model = Quadratic(torch.ones(3), dtype=torch.float64)
    settings = {**SHORT, "lr": 0.1, "num_draws": 2000, "batch_size": 4, "loss_fn": scaled}
    # ε nβ h = 0.1 · 10 · 1e3: every step multiplies w by about −500, and float64 ends after a hundred
    result = sltfast.refined_llc(model, {"calm": ONES + 1, "wild": ONES + 1e3}, {"full": None}, **settings)
    wild, calm = result.sel(dataset="wild", wr="full"), result.sel(dataset="calm", wr="full")
    assert str(wild["verdict"].values) == "diverged"
    assert np.isnan(wild["llc_mean"])
    assert int(wild["chains_alive"]) == 0
    assert np.isfinite(calm["llc_mean"])
    with pytest.raises(sltfast.AllChainsDied, match="all 1 cells diverged: lower lr"):
        sltfast.refined_llc(model, {"wild": ONES + 1e3}, {"full": None}, **settings)


@pytest.mark.parametrize(
    ("datasets", "restrictions", "changes", "error", "message"),
    [
        ([1], PARTS, {}, TypeError, "datasets must be a mapping from names, such as {'train': data}, got list"),
        ({"train": DATA["train"]}, 3, {}, TypeError, "weight_restrictions must be {name: param_masks} or a list"),
        ({"input_ids": token_rows()}, PARTS, {}, TypeError, "columns of one data set"),
        (DATA, PARTS, {"param_masks": None}, TypeError, "param_masks belongs in weight_restrictions"),
        (DATA, {"full": None, "none": "third.*"}, {}, ValueError, "names 'third"),
        (DATA, PARTS, {"batch_size": 30}, ValueError, "24 rows, fewer than one batch"),
        (DATA, PARTS, {"init_loss": "best"}, ValueError, "init_loss must be one of"),
        (DATA, {"a b": None, "a_b": None}, {"output_path": "x.zarr"}, ValueError, "written to one file: rename one"),
    ],
)
def test_bad_input_is_refused_before_the_first_step(monkeypatch, datasets, restrictions, changes, error, message):
    def never(*_):
        raise AssertionError("a step was taken")

    monkeypatch.setattr("sltfast.sampler.run.Run.chains", never)
    with pytest.raises(error, match=message):
        refined(datasets, restrictions, **changes)


def test_nothing_to_do_is_an_error():
    for datasets, restrictions in (({}, PARTS), (DATA, {})):
        with pytest.raises(ValueError, match="is empty: give at least one"):
            sltfast.refined_llc(Mlp(), datasets, restrictions, loss_fn=regression_loss, **SHORT)


def test_an_error_names_its_data_set():
    with pytest.raises(ValueError, match="fewer than one batch") as caught:
        refined(batch_size=30)
    assert caught.value.__notes__ == ["in data set 'shifted'"]
