"""Steps on a GPU: a captured run has the bits of one launch after another, and between draws the host never waits."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast
from sltfast.sampler.capture import CAPTURED, WARM_UP
from sltfast.sampler.flight import Flight

pytestmark = pytest.mark.gpu
SETTINGS = {
    "lr": 1e-4, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 4, "num_steps_bw_draws": 4,
    "batch_size": 4, "batches_per_draw": 1, "num_init_loss_batches": 1, "progress": False, "device": "cuda",
}  # fmt: skip
PADDED = {"input_ids": token_rows(), "attention_mask": torch.ones(24, 9, dtype=torch.long)}
PADDED["attention_mask"][::3, 7:] = 0
CASES = {
    "network": (Mlp, regression_data(), {"loss_fn": regression_loss}),
    "metrics": (Mlp, regression_data(), {"loss_fn": regression_loss, "save_metrics": True}),
    "rmsprop": (Mlp, regression_data(), {"loss_fn": regression_loss, "sampling_method": "rmsprop_sgld"}),
    "accumulation": (Mlp, regression_data(), {"loss_fn": regression_loss, "gradient_accumulation_steps": 3}),
    "rows of their own": (
        Mlp,
        regression_data(),
        {"loss_fn": regression_loss, "match_sampling_input_ids_across_chains": False},
    ),
    "language model": (tiny_neox, token_rows(), {}),
    "padded": (tiny_neox, PADDED, {}),
    "head": (tiny_neox, PADDED, {"param_masks": "l1h1"}),
    "moments": (tiny_neox, PADDED, {"record": "moments", "sampling_task": "o", "num_blocks": 2}),
    "covariances": (tiny_neox, token_rows(), {"record": "covariances", "num_blocks": 1}),
}


@pytest.mark.parametrize("engine", ["auto", "vmap", "sequential"])
@pytest.mark.parametrize("case", CASES)
def test_a_captured_run_has_the_bits_of_an_eager_one(case, engine):
    build, data, options = CASES[case]
    if engine != "auto":
        options = {**options, "engine": engine}
    model = build()
    runs = [
        sltfast.sample(model, data, {"o": data}, step_capture=capture, **SETTINGS, **options)
        for capture in (False, True)
    ]
    assert runs[1].attrs["sltfast"]["plan"]["step_capture"] == CAPTURED
    for name, values in runs[0].dataset.data_vars.items():
        np.testing.assert_array_equal(runs[1][name].values, values.values, err_msg=name)


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_host_never_waits_between_draws(case, capture):
    build, data, options = CASES[case]
    step = Flight.step

    def strict(flight: Flight, index: int) -> None:
        # recording a graph synchronises, once
        torch.cuda.set_sync_debug_mode("error" if index > WARM_UP else "default")
        try:
            step(flight, index)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with mock.patch.object(Flight, "step", strict):
        tree = sltfast.sample(build(), data, {"o": data}, step_capture=capture, **SETTINGS, **options)
    assert bool(tree["alive"].all())


def test_a_captured_step_is_one_launch():
    seen: list[list[str]] = []
    step = Flight._record

    def stop(flight: Flight, index: int, taken: object) -> None:
        if profile is not None:
            profile.__exit__(None, None, None)
            seen.append([event.key for event in profile.key_averages() if "Launch" in event.key])
        step(flight, index, taken)

    take = Flight.step
    profile: torch.profiler.profile | None = None

    def watched(flight: Flight, index: int) -> None:
        nonlocal profile
        profile = None
        if index == WARM_UP + 2:
            profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            profile.__enter__()
        take(flight, index)

    with mock.patch.object(Flight, "step", watched), mock.patch.object(Flight, "_record", stop):
        sltfast.sample(
            Mlp(), regression_data(), loss_fn=regression_loss, step_capture=True, save_token_losses=False, **SETTINGS
        )
    assert [key for key in seen[0] if "Graph" in key] == ["cudaGraphLaunch"]
