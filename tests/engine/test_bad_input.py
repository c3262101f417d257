"""Bad input is one clear error before the first step, and writes nothing."""

import warnings

import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast

GOOD = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 1, "num_draws": 2, "batch_size": 8, "progress": False}
DATA = regression_data()


def nan_weights():
    model = Mlp()
    model.first.weight.data[0, 0] = float("nan")
    return model


def detached(model, batch):
    return regression_loss(model, batch).detach()


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather see it gone; models on disk stay
        return torch.jit.script(torch.nn.Linear(3, 2))


OUTSIDE = Mlp()


@pytest.mark.parametrize(
    ("model", "data", "change", "error", "says"),
    [
        (Mlp, DATA, {"batch_size": 41}, ValueError, "40 rows.*batch_size 41"),
        (Mlp, DATA, {"lr": 0.0}, ValueError, "lr must be > 0"),
        (Mlp, DATA, {"param_masks": {"nope": None}}, ValueError, "no such parameter"),
        (Mlp, DATA, {"param_masks": {"first.bias": torch.ones(4, dtype=torch.bool)}}, ValueError, "shape"),
        (Mlp, DATA, {"param_masks": {}}, ValueError, "selects no coordinate"),
        (nan_weights, DATA, {}, ValueError, "NaN"),
        (Mlp, (DATA[0] * float("inf"), DATA[1]), {}, ValueError, "the loss at w. is nan"),
        (Mlp, DATA, {"observables": {"o": (DATA, 6)}}, ValueError, "'o' has 40 rows.*k <= 5"),
        (Mlp, DATA, {"observables": [DATA]}, TypeError, "observables must be a mapping"),
        (Mlp, DATA, {"observables": {"a b": DATA, "a_b": DATA}, "batches_per_draw": 1}, ValueError, "rename one"),
        (Mlp, DATA, {"observables": {"a": (DATA, 0)}}, ValueError, "batches_per_draw"),
        (scripted, DATA, {}, TypeError, "compiled by torch.jit.*that was scripted"),
        (Mlp, DATA, {"loss_fn": None}, TypeError, "not recognised as a causal language model"),
        (Mlp, DATA, {"loss_fn": detached}, ValueError, "without a gradient"),
        (Mlp, DATA, {"loss_fn": lambda m, b: regression_loss(OUTSIDE, b)}, ValueError, "no gradient.*passed to it"),
        (Mlp, DATA, {"loss_fn": lambda m, b: regression_loss(m, b).mean()}, ValueError, "one loss per item"),
        (tiny_neox, token_rows(vocabulary=40), {"loss_fn": None}, ValueError, "vocabulary is 0..31"),
        (
            tiny_neox,
            token_rows(),
            {"loss_fn": None, "observables": {"o": token_rows(vocabulary=40)}},
            ValueError,
            "0..31",
        ),
        (
            tiny_neox,
            {"input_ids": token_rows(), "attention_mask": torch.zeros(24, 9)},
            {"loss_fn": None},
            ValueError,
            "no to",
        ),
        (Mlp, DATA, {"loss_fn": lambda m, b: (regression_loss(m, b), torch.zeros(8))}, ValueError, "all 0"),
        (Mlp, DATA, {"loss_fn": lambda m, b: (regression_loss(m, b), -torch.ones(8))}, ValueError, "negative"),
        (Mlp, DATA, {"loss_fn": lambda m, b: (regression_loss(m, b), 1.0)}, TypeError, "weights as a tensor"),
        (Mlp, DATA, {"device": "cuda:97"}, ValueError, "device 'cuda:97' cannot be used"),
        (Mlp, DATA, {"device": "here"}, ValueError, "device 'here' cannot be used"),
        (Mlp, DATA, {"observables": {1: DATA}}, TypeError, "named by strings"),
        (tiny_neox, torch.rand(24, 9), {"loss_fn": None}, ValueError, "whole numbers"),
    ],
)
def test_refused_before_the_first_step(model, data, change, error, says, tmp_path):
    arguments = {**GOOD, "loss_fn": regression_loss, **change}
    with pytest.raises(error, match=says):
        sltfast.sample(model(), data, output_path=tmp_path / "run", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_row_that_is_not_finite_is_named():
    x, y = regression_data()
    x[33] = float("nan")
    with pytest.raises(ValueError, match=r"rows \[33\]|first batch"):
        sltfast.sample(Mlp(), (x, y), loss_fn=regression_loss, **{**GOOD, "num_draws": 10})


def test_an_error_of_the_callers_loss_says_what_it_was_called_with():
    data = {"input_ids": token_rows(), "attention_mask": torch.ones(24, 9)}
    with pytest.raises(AttributeError) as caught:
        sltfast.sample(tiny_neox(), data, loss_fn=lambda model, ids: ids.size(0), **GOOD)
    assert "was called with a batch of columns {'input_ids': (8, 9)" in caught.value.__notes__[0]


def test_rows_padded_to_different_lengths_are_refused_only_where_their_losses_are_recorded():
    rows = [torch.arange(2 + k % 4) for k in range(16)]

    def collate(items):
        ids = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)
        return {
            "input_ids": ids,
            "attention_mask": torch.nn.utils.rnn.pad_sequence(
                [torch.ones(len(item)) for item in items], batch_first=True
            ),
        }

    loader = torch.utils.data.DataLoader(rows, batch_size=2, collate_fn=collate)
    with pytest.raises(ValueError, match="pad all rows to one length"):
        sltfast.sample(tiny_neox(), loader, **{**GOOD, "batch_size": None, "num_draws": 8})
    result = sltfast.llc(tiny_neox(), loader, **{**GOOD, "batch_size": None, "num_draws": 8})
    assert bool(result["alive"].all())


def test_models_that_cannot_be_copied_are_named():
    import threading

    model = Mlp()
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"Mlp cannot be copied.*locks"):
        sltfast.sample(model, DATA, loss_fn=regression_loss, **GOOD)
