"""The fast mode's λ̂, χ and influences are distributed as devinterp's, and a sampler 20 % off is found out."""

from functools import cache
from typing import Any

import pytest

from benchmarks.parity_cases import CASES, SETTINGS, chains
from benchmarks.two_samples import p_values

# Each comparison takes the smallest of 15 exact p-values 15-fold, so equal samplers fall below this with a chance of
# 10⁻⁴ at most; the three comparisons of a run of the tests together with 3·10⁻⁴.
LEVEL = 1e-4
THEIRS, OURS = 60, 1500


@cache
def theirs(case: str) -> Any:
    return chains("devinterp", THEIRS, case)


@pytest.mark.parametrize("case", CASES)
def test_distributed_alike(case: str) -> None:
    found = p_values(theirs(case), chains("fast", OURS, case))
    assert len(found) == 15
    assert min(found.values()) > LEVEL, found


@pytest.mark.parametrize("setting", ["n_beta", "localization"])
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_sampler_that_is_off_is_found_out(setting: str, factor: float) -> None:
    """λ̂ tells a temperature or a localisation that is a fifth too low or too high: the comparison can fail."""
    found = p_values(theirs("sgld"), chains("fast", OURS, "sgld", **{setting: factor * SETTINGS[setting]}))
    assert found["λ̂"] < LEVEL


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES)
def test_distributed_alike_at_length(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = p_values(chains("devinterp", 500, case), chains("fast", 8000, case))
    with capsys.disabled():
        print(f"\n{case}: 500 against 8000 chains, p-values 15-fold")
        print(*(f"  {name}: {p:.3g}" for name, p in found.items()), sep="\n")
    assert min(found.values()) > LEVEL, found
