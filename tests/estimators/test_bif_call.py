"""`bif`: one call from a model to influences, what it records, and what it leaves on disk."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import sltfast
from sltfast.errors import OutputMismatch

SETTINGS = {"lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 12, "batch_size": 4}


def data(rows, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=random), torch.randn(rows, generator=random)


def squared(model, batch):
    x, y = batch
    return 0.5 * (model(x)[:, 0] - y) ** 2


def call(**options):
    torch.manual_seed(0)
    observables = {"queries": (data(4, 1), 1), "train items": (data(8, 2), 2)}
    return sltfast.bif(nn.Linear(3, 1), data(16), observables, loss_fn=squared, progress=False, **SETTINGS, **options)


def test_is_compute_bif_of_a_sample():
    torch.manual_seed(0)
    samples = sltfast.sample(
        nn.Linear(3, 1),
        data(16),
        {"queries": (data(4, 1), 1), "train items": (data(8, 2), 2)},
        loss_fn=squared,
        progress=False,
        num_init_loss_batches=0,
        **SETTINGS,
    )
    xr.testing.assert_identical(
        call(correlation_method="sequence"), sltfast.compute_bif(samples, correlation_method="sequence")
    )


def test_queries_against_training_items_by_the_names_given():
    result = call(correlation_method="sequence", loss_keys_1=["queries"], loss_keys_2=["train items"])
    assert result["influences"].shape == (4, 8)
    assert "input_ids" not in result


def test_says_which_row_of_its_data_set_an_item_is():
    torch.manual_seed(0)
    model, (x, y) = nn.Linear(3, 1), data(8, 2)
    samples = sltfast.sample(model, data(16), {"train items": ((x, y), 2)}, loss_fn=squared, progress=False, **SETTINGS)
    result = sltfast.compute_bif(samples, correlation_method="sequence")
    rows = result["row"].values
    assert sorted(rows.tolist()) == list(range(8))
    with torch.no_grad():
        at_start = squared(model, (x, y)).numpy()
    np.testing.assert_allclose(samples["init_loss_train_items"].values[:, 0], at_start[rows], rtol=1e-5)


def test_records_losses_of_observables_only_and_keeps_the_result(tmp_path):
    path = tmp_path / "net.zarr"
    result = call(output_path=path, correlation_method="sequence")
    run = sltfast.open(path)
    assert not {"sampling_loss", "sampling_loss_micro", "init_loss"} & set(run.dataset.data_vars)
    kept = xr.open_datatree(tmp_path / "net.bif.zarr", engine="zarr", consolidated=False)
    xr.testing.assert_equal(kept.to_dataset(), result)
    assert kept.attrs["definition"] == result.attrs["definition"]
    again = call(output_path=path, correlation_method="sequence", normalize=True)  # the run is not sampled again
    kept = xr.open_datatree(tmp_path / "net.bif.zarr", engine="zarr", consolidated=False)
    xr.testing.assert_equal(kept.to_dataset(), again)


def test_nothing_of_others_is_written_over(tmp_path):
    (tmp_path / "net.bif.zarr").mkdir()
    (tmp_path / "net.bif.zarr" / "note").write_text("mine")
    with pytest.raises(OutputMismatch, match="holds something else"):
        call(output_path=tmp_path / "net.zarr")
    assert not (tmp_path / "net.zarr").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_keys_1": ["training"]}, r"loss_keys_1 must be a list of the observables \['queries', 'train items'\]"),
        ({"top_k": -1}, "top_k must be a whole number"),
        ({"correlation_method": "tokens"}, "correlation_method must be one of"),
    ],
)
def test_bad_arguments_are_told_before_the_first_step(options, message, monkeypatch):
    monkeypatch.setattr("sltfast.sampling.sample", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(ValueError, match=message):
        call(**options)


def test_needs_observables():
    with pytest.raises(ValueError, match="bif needs observables"):
        sltfast.bif(nn.Linear(3, 1), data(16), {}, loss_fn=squared, **SETTINGS)
