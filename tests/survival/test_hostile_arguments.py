"""Arguments that no run can mean: refused before the first step, in words, with nothing written."""

import math

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

X, Y = regression_data()
GOOD = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 1, "num_draws": 2, "batch_size": 8, "progress": False}
POSITIVE = ("lr", "bounding_box_size")
NUMBERS = ("n_beta", "localization", "noise_level", "llc_weight_decay", "init_noise", *POSITIVE)
COUNTS = ("num_chains", "num_draws", "num_steps_bw_draws", "batch_size", "gradient_accumulation_steps", "num_blocks",
          "batches_per_draw", "chains_per_pass", "memory_budget", "buffer_size")  # fmt: skip
FROM_ZERO = ("num_burnin_steps", "num_init_loss_batches", "init_seed", "obs_seed")
SWITCHES = ("shuffle", "match_sampling_input_ids_across_chains", "save_metrics", "save_token_losses",
            "dataset_init_loss", "progress", "plan", "compile")  # fmt: skip


def refused(tmp_path, error, says, data=(X, Y), model=Mlp, **change):
    with pytest.raises(error, match=says) as caught:
        sltfast.sample(model(), data, **{"loss_fn": regression_loss, **GOOD, "output_path": tmp_path / "run", **change})
    assert not list(tmp_path.iterdir())
    return str(caught.value)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_none(name, tmp_path):
    for value in (math.nan, math.inf, -1.0, True, "1", 1 + 0j, [1.0], 10**400, torch.tensor(1.0)):
        assert len(refused(tmp_path, ValueError, f"{name} must be", **{name: value})) < 250
    if name in POSITIVE:
        refused(tmp_path, ValueError, f"{name} must be > 0", **{name: 0.0})


@pytest.mark.parametrize("name", [*COUNTS, *FROM_ZERO])
def test_counts_that_are_none(name, tmp_path):
    for value in (-1, 1.0, 2.5, True, "2", 1e9, torch.tensor(2), *([] if name in FROM_ZERO else [0])):
        refused(tmp_path, ValueError, f"{name} must be .*>= [01]", **{name: value})


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_that_are_none(name, tmp_path):
    for value in (1, 0, "yes", None):
        refused(tmp_path, ValueError, f"{name} must be True or False", **{name: value})


@pytest.mark.parametrize("name", ["engine", "record", "mode", "precision", "sampling_method", "step_capture", "device"])
def test_choices_that_are_none(name, tmp_path):
    for value in ("nope", 3.5, [], np.arange(3)):
        refused(tmp_path, ValueError, f"{name}", **{name: value})


def test_numpys_numbers_are_numbers():
    plain = sltfast.sample(Mlp(), (X, Y), {"o": (X, Y)}, loss_fn=regression_loss, **GOOD, batches_per_draw=1)
    scalars = {
        name: np.bool_(value)
        if isinstance(value, bool)
        else np.int32(value)
        if isinstance(value, int)
        else np.float64(value)
        for name, value in GOOD.items()
    }
    given = sltfast.sample(
        Mlp(), (X, Y), {"o": ((X, Y), np.int64(1))}, loss_fn=regression_loss, **scalars,
        obs_seed=np.int64(1337), num_blocks=np.int16(8), chains_per_pass=np.uint8(1), shuffle=np.bool_(True),
    )  # fmt: skip
    np.testing.assert_array_equal(given["loss"], plain["loss"])
    assert type(given.attrs["metadata"]["config"]["sampler"]["num_draws"]) is int


@pytest.mark.parametrize(
    "change",
    [
        {"num_chains": 10**9},
        {"num_chains": 10**30},
        {"num_draws": 10**12},
        {"num_draws": 10**11, "num_chains": 4},
        {"num_burnin_steps": 10**12},
        {"num_steps_bw_draws": 10**12},
        {"gradient_accumulation_steps": 10**12},
    ],
    ids=str,
)
def test_sizes_that_nothing_holds_are_refused_at_once(change, tmp_path):
    for path in (tmp_path / "run", None):
        says = refused(
            tmp_path, ValueError, "are free: give", output_path=path, **{**change, "save_token_losses": True}
        )
        assert len(says) < 350


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (None, TypeError, "dataset is a NoneType; give tensors"),
        ("train.txt", TypeError, "dataset is 'train.txt'; give tensors"),
        (b"bytes", TypeError, "give tensors"),
        (dict, TypeError, "the class dict itself"),
        ((X[:0], Y[:0]), ValueError, "no rows"),
        ((X[:, :0], Y), ValueError, "rows are empty"),
        ((X, Y.tolist()), TypeError, "tuple of tensors and list"),
        ({"a": ["x"] * 40}, ValueError, "not numbers"),
        (np.array([object()] * 40), ValueError, "a column holds object"),
        (np.array(["2020-01-01"] * 40, dtype="datetime64[D]"), ValueError, "not numbers"),
        (np.zeros(40, dtype=np.longdouble), ValueError, "not numbers that torch has"),
        ({"a": [[1.0], [2.0, 3.0]] * 20}, ValueError, "rectangular.*pad the rows"),
        ([[1.0, 2.0], [3.0]] * 20, ValueError, "do not stack.*pad the rows"),
        (torch.tensor(1.0), ValueError, "scalar"),
        ((X.to("meta"), Y), ValueError, "meta device"),
        ((X, Y * math.nan), ValueError, "loss at w. is nan"),
        ((X, Y[:30]), ValueError, "different numbers of rows"),
    ],
)
def test_data_that_is_none(data, error, says, tmp_path):
    refused(tmp_path, error, says, data)
    if data is not None:
        refused(tmp_path, error, says if "w." not in says else "NaN", observables={"o": data}, batches_per_draw=1)


class Items:
    """A data set whose behaviour is given."""

    def __init__(self, item, length=40):
        self.item, self.length = item, length

    def __len__(self):
        return self.length

    def __getitem__(self, row):
        return self.item(row)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (Items(lambda row: {}[row]), ValueError, r"row 0 of the data set \(Items, 40 rows\).*KeyError"),
        (Items(lambda row: (X[row], Y[row]) if row != 7 else {}[row]), ValueError, "row 7"),
        (Items(lambda row: None), ValueError, "do not stack"),
        (Items(lambda row: "text"), TypeError, "hold no numbers"),
        (Items(lambda row: 0, length=-1), ValueError, "length of the data set.*cannot be told"),
        (Items(lambda row: 0, length=10**400), ValueError, "length of the data set.*cannot be told"),
        (Items(lambda row: 0, length=2.5), ValueError, "length of the data set.*cannot be told"),
        (Items(lambda row: X[row][: 1 + row % 3]), ValueError, "do not stack|different shapes|different numbers"),
    ],
    ids=["no key", "one row", "none", "text", "negative", "huge", "half", "ragged"],
)
def test_data_sets_that_cannot_be_read(data, error, says, tmp_path):
    refused(tmp_path, error, says, data, num_draws=10)


def cross_entropy(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def test_labels_outside_the_classes_name_the_rows(tmp_path):
    labels = torch.arange(40) % 4
    for wrong in (9, -1):
        labels[20] = wrong
        with pytest.raises(IndexError) as caught:
            sltfast.sample(torch.nn.Linear(3, 4), (X, labels), loss_fn=cross_entropy, **{**GOOD, "num_draws": 5})
        assert "20" in caught.value.__notes__[0]
        assert "of the data set: check its labels" in caught.value.__notes__[0]
    good = torch.arange(40) % 4
    with pytest.raises(IndexError) as caught:
        sltfast.sample(
            torch.nn.Linear(3, 4), (X, good), {"o": (X, labels)}, loss_fn=cross_entropy, batches_per_draw=5, **GOOD
        )
    assert caught.value.__notes__


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attention_mask": torch.full((24, 9), math.nan)}, "attention_mask must be 1"),
        ({"attention_mask": -torch.ones(24, 9)}, "attention_mask must be 1"),
        ({"labels": torch.ones(24, 9)}, "labels must be whole numbers"),
        ({"labels": torch.ones(24, 9, dtype=torch.bool)}, "labels must be whole numbers"),
        ({"labels": torch.full((24, 9), 32)}, "labels span 32..32"),
        ({"labels": torch.full((24, 9), -100)}, "no token is left to predict"),
        ({"labels": torch.ones(24, 8, dtype=torch.long)}, "labels has shape"),
        ({"input_ids": token_rows()[:, :1]}, "at least 2 tokens a row"),
        ({"input_ids": token_rows()[:, 0]}, "at least 2 tokens a row"),
        ({"input_ids": token_rows() - 40}, "vocabulary is 0..31"),
        ({"input_ids": token_rows() > 3}, "whole numbers"),
    ],
    ids=range(11),
)
def test_token_data_that_is_none(change, says, tmp_path):
    refused(tmp_path, ValueError, says, {"input_ids": token_rows(), **change}, tiny_neox, loss_fn=None)
    refused(
        tmp_path, ValueError, says, token_rows(), tiny_neox, loss_fn=None,
        observables={"o": {"input_ids": token_rows(), **change}},
    )  # fmt: skip
