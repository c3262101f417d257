"""Steps by replay are the same chains; what cannot be recorded is taken as it comes, and says why."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows
from torch import Tensor
from torch.utils import _pytree as pytree

import sltfast
from sltfast.sampler import run as runs
from sltfast.sampler.capture import WARM_UP, StepCapture, capture_refusal
from sltfast.sampler.config import SamplerConfig

SETTINGS = {
    "lr": 1e-4, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 8, "num_steps_bw_draws": 2,
    "batch_size": 4, "batches_per_draw": 1, "num_init_loss_batches": 1, "progress": False, "device": "cpu",
}  # fmt: skip


class Replayed:
    """A graph that runs its work anew and puts the results where the first recording had them.

    Recording does nothing that lasts, as on a device: what the run writes in place is put back.
    """

    def __init__(self, state: list[Tensor] | None = None, refuse: str = "") -> None:
        self.state, self.refuse = state or [], refuse
        self.warmed = self.recorded = self.replays = 0

    def warm(self, run: Any) -> Any:
        self.warmed += 1
        return run()

    def record(self, run: Any) -> tuple[Any, Any]:
        if self.refuse:
            raise RuntimeError(f"{self.refuse}\nand more lines")
        self.recorded += 1
        before = [tensor.detach().clone() for tensor in self.state]
        outputs = run()
        for tensor, old in zip(self.state, before, strict=True):
            tensor.detach().copy_(old)

        def replay() -> None:
            self.replays += 1
            for place, fresh in zip(pytree.tree_leaves(outputs), pytree.tree_leaves(run()), strict=True):
                if isinstance(place, Tensor):
                    place.copy_(fresh)

        return replay, outputs


def captured(made: list[Replayed], refuse: str = "") -> Any:
    """Runs of the CPU take their steps by replay."""

    class Captured(runs.Flight):
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            if self.steps.graphs is None and self.steps not in seen:
                moved = self.transition
                state = [t for block in self.engine.arena.blocks for t in (*block.state.values(), *block.low)]
                state += [moved.step_index, moved.alive, moved.death_step, *moved._metrics]
                self.steps.graphs = Replayed(state, refuse)
                made.append(self.steps.graphs)
                seen.append(self.steps)

    seen: list[StepCapture] = []
    return mock.patch.object(runs, "Flight", Captured)


@pytest.mark.parametrize("engine", ["stacked", "vmap", "sequential"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampling_method": "rmsprop_sgld", "save_metrics": True},
        {"gradient_accumulation_steps": 2},
        {"match_sampling_input_ids_across_chains": False},
    ],
    ids=["sgld", "rmsprop", "accumulation", "rows of their own"],
)
def test_captured_chains_are_the_same_chains(engine, options):
    data = regression_data()
    arguments = {**SETTINGS, **options, "loss_fn": regression_loss, "engine": engine}
    plain = sltfast.sample(Mlp(), data, {"o": data}, **arguments)
    made: list[Replayed] = []
    with captured(made):
        replayed = sltfast.sample(Mlp(), data, {"o": data}, **arguments)
    for name, values in plain.dataset.data_vars.items():
        np.testing.assert_array_equal(replayed[name].values, values.values, err_msg=name)
    steps = 16 * (2 if engine == "sequential" else 1)  # two passes share an engine and its graph
    assert [(g.warmed, g.recorded, g.replays) for g in made] == [(WARM_UP, 1, steps - WARM_UP)]


def test_a_language_model_with_token_ids():
    ids = token_rows()
    plain = sltfast.sample(tiny_neox(), ids, {"o": ids}, **SETTINGS)
    with captured([]):
        replayed = sltfast.sample(tiny_neox(), ids, {"o": ids}, **SETTINGS)
    for name, values in plain.dataset.data_vars.items():
        np.testing.assert_array_equal(replayed[name].values, values.values, err_msg=name)


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_cannot_be_recorded_goes_on_and_says_why(on_disk, tmp_path):
    path = tmp_path / "run.zarr" if on_disk else None
    arguments = {**SETTINGS, "loss_fn": regression_loss}
    plain = sltfast.sample(Mlp(), regression_data(), **arguments)
    with captured([], refuse="operation not permitted when stream is capturing"):
        tree = sltfast.sample(Mlp(), regression_data(), output_path=path, **arguments)
    np.testing.assert_array_equal(tree["loss"].values, plain["loss"].values)
    reason = tree.attrs["sltfast"]["plan"]["step_capture"]
    assert reason == ("a step cannot be recorded (RuntimeError: operation not permitted when stream is capturing)")


def test_a_graph_a_shape_and_outputs_of_their_own():
    graphs = Replayed()
    steps = StepCapture(graphs)

    def run(given: dict[str, Tensor]) -> list[Tensor | None]:
        return [given["x"] * 2, None, given["x"]]

    shapes = [3, 5] * (WARM_UP + 3)
    results = [steps(run, {"x": torch.full((n,), float(k))}) for k, n in enumerate(shapes)]
    for k, (result, n) in enumerate(zip(results, shapes, strict=True)):  # none of them is written to by a later step
        assert torch.equal(result[0], torch.full((n,), 2.0 * k))
        assert result[1] is None
        assert torch.equal(result[2], torch.full((n,), float(k)))
    assert (graphs.warmed, graphs.recorded, graphs.replays) == (2 * WARM_UP, 2, 2 * 3)


def config(**changed: Any) -> SamplerConfig:
    return SamplerConfig(lr=1e-3, n_beta=1.0, batch_size=2, **changed)


def test_who_is_refused():
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert capture_refusal("auto", config(), cuda, alone=True) == ""
    assert capture_refusal(True, config(), cuda, alone=True) == ""
    assert capture_refusal(False, config(), cuda, alone=True) == "not asked for"
    for arguments, word in (
        ((config(), cpu, True), "cpu"),
        ((config(mode="train"), cuda, True), "seeds random numbers"),
        ((config(), cuda, False), "each other's memory"),
    ):
        *first, alone = arguments
        assert word in capture_refusal("auto", *first, alone=alone)
        with pytest.raises(ValueError, match="step_capture=True is impossible here"):
            capture_refusal(True, *first, alone=alone)


def test_keywords_are_checked():
    arguments = {**SETTINGS, "loss_fn": regression_loss}
    with pytest.raises(ValueError, match="step_capture must be 'auto', True or False, got 'yes'"):
        sltfast.sample(Mlp(), regression_data(), step_capture="yes", **arguments)
    with pytest.raises(ValueError, match="compile=True compiles the vmap engine, got engine='stacked'"):
        sltfast.sample(Mlp(), regression_data(), compile=True, engine="stacked", **arguments)
    with pytest.raises(ValueError, match="step_capture=True is impossible here: graphs are CUDA's"):
        sltfast.sample(Mlp(), regression_data(), step_capture=True, **arguments)
