"""Steps and draws wait for nothing: the host is never stopped for a value, and an update is one launch a dtype."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from hugging_face import tiny
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows
from pretended_device import PRETENDED, pretended

import sltfast
from sltfast.sampler.flight import Flight

SETTINGS = {
    "lr": 1e-4, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 2, "num_steps_bw_draws": 2,
    "batch_size": 4, "batches_per_draw": 1, "num_init_loss_batches": 1, "progress": False,
}  # fmt: skip
SETTLED = 2  # earlier steps may still look at what their first batch looks like
PADDED = {"input_ids": token_rows(), "attention_mask": torch.ones(24, 9, dtype=torch.long)}
PADDED["attention_mask"][::3, 7:] = 0
PADDED["attention_mask"][1::3, :2] = 0
RIGHT = {"input_ids": token_rows(), "attention_mask": torch.ones(24, 9, dtype=torch.long)}
RIGHT["attention_mask"][::3, 7:] = 0
LABELLED = {**PADDED, "labels": torch.where(PADDED["attention_mask"] == 1, PADDED["input_ids"], -100)}


def steps_of(run, *args, **keywords):
    """(the run's result, waits of its settled steps, launches of its last step of every pass)."""
    step, last = Flight.step, {}

    def counted(flight: Flight, index: int) -> None:
        device.launches.clear()
        device.counting = index >= SETTLED
        try:
            step(flight, index)
        finally:
            device.counting = False
        last[flight] = Counter(device.launches)

    with pretended() as device, mock.patch.object(Flight, "step", counted):
        result = run(*args, **{**SETTINGS, **keywords})
    return result, device.waits, last


def updates(launches: Counter[str]) -> int:
    return sum(count for name, count in launches.items() if name.endswith("langevin_step_"))


ON_A_DEVICE = {
    "a list as index": lambda x: x[[0, 1]],
    "a mask as index": lambda x: x[x > 0],
    "a number": lambda x: float(x[0, 0]),
    "a condition": lambda x: bool((x > 1).all()),
    "a list": lambda x: x.tolist(),
    "a copy to the host": lambda x: x.cpu(),
    "a copy into a tensor of the host": lambda x: torch.empty(4, 3).copy_(x),
    "a copy from the host": lambda x: torch.ones(3).to(x.device),
    "a tensor of numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "indices": lambda x: x.nonzero(),
    "a size": lambda x: x.repeat_interleave(x[:, 0].long().clamp(0, 2), dim=0),
}


@pytest.mark.parametrize("name", ON_A_DEVICE)
def test_what_waits_is_seen(name):
    with pretended() as device:
        x = torch.randn(4, 3, device=PRETENDED)
        device.counting = True
        ON_A_DEVICE[name](x)
        assert len(device.waits) == 1


def test_what_does_not_wait_is_a_launch():
    with pretended() as device:
        x = torch.ones(4, 3, device=PRETENDED)
        device.counting = True
        y = (x + torch.tensor(2.0)).view(12)[3:].repeat_interleave(2) @ torch.arange(18.0, device=x.device)
        y.add_(torch.ones(()).to(x.device, non_blocking=True))
        assert not device.waits
        assert device.launches == dict.fromkeys(["add", "clone", "arange", "dot", "_to_copy", "add_"], 1)
    assert float(y.held) == pytest.approx(3 * sum(range(18)) + 1)


def test_the_pretended_device_computes_what_the_cpu_does():
    there, _, _ = steps_of(sltfast.sample, Mlp(), regression_data(), loss_fn=regression_loss)
    here = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, device="cpu", **SETTINGS)
    np.testing.assert_allclose(there["loss"].values, here["loss"].values, rtol=1e-5)  # another backend of one step


@pytest.mark.parametrize("engine", ["stacked", "vmap", "sequential"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling_method": "rmsprop_sgld"},
        {"sampling_method": "sgnht"},
        {"save_metrics": True},
        {"gradient_accumulation_steps": 3},
        {"match_sampling_input_ids_across_chains": False},
        {"bounding_box_size": 0.1, "save_token_losses": False},
        {"record": "moments", "sampling_task": "o", "num_blocks": 2},
    ],
    ids=["sgld", "rmsprop", "sgnht", "metrics", "accumulation", "rows of their own", "box", "moments"],
)
def test_a_step_of_a_network(engine, options):
    data = regression_data()
    _, waits, steps = steps_of(
        sltfast.sample, Mlp(), data, {"o": data}, loss_fn=regression_loss, engine=engine, **options
    )
    assert waits == []
    assert [updates(launches) for launches in steps.values()] == [1] * (2 if engine == "sequential" else 1)


@pytest.mark.parametrize("engine", ["stacked", "vmap", "sequential"])
@pytest.mark.parametrize("data", [token_rows(), PADDED, LABELLED], ids=["whole", "padded", "labelled"])
def test_a_step_of_a_language_model(engine, data):
    tree, waits, steps = steps_of(sltfast.sample, tiny_neox(), data, {"o": data}, engine=engine)
    assert waits == []
    assert {updates(launches) for launches in steps.values()} == {1}
    assert tree.attrs["sltfast"]["plan"]["engine"] == engine


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["GPT2", "Llama", "Gemma2", "Mistral", "Phi"])
def test_a_step_of_other_architectures(name, padded):
    data = RIGHT if padded else token_rows()
    tree, waits, _ = steps_of(sltfast.sample, tiny(name), data, {"o": data}, param_masks="*.1.*")
    assert waits == []
    assert tree.attrs["sltfast"]["plan"]["engine"] == "stacked"


def test_a_step_of_a_model_in_two_precisions():
    model = Mlp()
    model.second.double()
    model.second.forward = lambda x: torch.nn.functional.linear(x.double(), model.second.weight, model.second.bias)
    _, waits, steps = steps_of(sltfast.sample, model, regression_data(), loss_fn=regression_loss, engine="sequential")
    assert waits == []
    assert {updates(launches) for launches in steps.values()} == {2}


def test_a_step_of_heads_that_share_a_pass_and_a_memo():
    names = {"a": "l0h0", "b": "l0h1", "c": "l1 mlp", "d": "unembed"}
    trees, waits, steps = steps_of(sltfast.sample_restrictions, tiny_neox(), PADDED, {"o": PADDED}, names)
    assert waits == []
    assert sorted(updates(launches) for launches in steps.values()) == [1, 1, 2]  # heads share a pass
    plans = {name: tree.attrs["sltfast"]["plan"] for name, tree in trees.items()}
    assert plans["a"]["heads"] == "lanes of their own"
