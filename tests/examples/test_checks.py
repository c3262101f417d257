"""A study's claims, and the exit status they give."""

import math

import pytest

from sltfast.demo.checks import Checks


def test_claims_that_hold_end_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    checks = Checks()
    checks.within("λ", 0.52, 0.5, 0.03)
    checks.holds("order", True, "1 < 2")
    checks.finish()
    said = capsys.readouterr().out.splitlines()
    assert said == ["holds: λ: 0.52, expected 0.5 ± 0.03", "holds: order: 1 < 2", "2 of 2 checks hold"]


@pytest.mark.parametrize("value", [0.54, math.nan])
def test_one_that_does_not_fails_the_run(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    checks = Checks()
    checks.within("λ", value, 0.5, 0.03)
    with pytest.raises(SystemExit) as end:
        checks.finish()
    assert end.value.code == 1
    assert checks.failed == ["λ"]
    assert "FAILS: λ" in capsys.readouterr().out
