"""Candidates are timed once a kind of call, on scratch, and only where there is something to time."""

import pytest
import torch
from grouped_cases import assert_same_step, make_grouped_case

from sltfast.triton_kernels import grouped_gradient_step, tuning

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_fastest", {})


def test_the_fastest_is_found_once_and_kept() -> None:
    launched: list[str] = []

    def timed(launch) -> float:
        launch()
        return {"slow": 3.0, "fast": 1.0, "middling": 2.0}[launched[-1]]

    candidates = ("slow", "fast", "middling")
    for _ in range(3):
        assert tuning.fastest("key", candidates, launched.append, CPU, timed) == "fast"
    assert launched == list(candidates)
    assert tuning.fastest("other", ("slow", "middling"), launched.append, CPU, timed) == "middling"


def test_the_first_is_taken_untimed_where_nothing_can_be_timed() -> None:
    launched: list[str] = []
    assert tuning.fastest("key", ("first", "second"), launched.append, CPU) == "first"
    assert launched == []


@pytest.mark.parametrize("index", range(len(grouped_gradient_step.SHAPES)))
@pytest.mark.parametrize("precision", ["ieee", "bf16"])
def test_every_shape_of_the_layer_step_takes_the_same_step(index: int, precision: str, monkeypatch) -> None:
    case = make_grouped_case((9, 70, 36), precision=precision)
    case.segment[2] = 8  # elements in fours
    seen = []

    def fastest(key, candidates, attempt, device):
        before = case.w.clone()
        attempt(candidates[index])
        assert torch.equal(case.w.nan_to_num(), before.nan_to_num())
        seen.append(key)
        return candidates[index]

    monkeypatch.setattr(grouped_gradient_step, "fastest", fastest)
    assert_same_step(case.run("triton"), case.run("reference"), case)
    assert len(seen) == 1
