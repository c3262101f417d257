"""The study of known learning coefficients, small."""

from pathlib import Path

from running import run_here


def test_foundations(tmp_path: Path) -> None:
    figure = tmp_path / "foundations.png"
    said, status = run_here("foundations.py", "--draws", 500, "--networks", 1, "--samples", 200_000, "--figure", figure)
    assert status == 0, said
    assert "holds: λ rises from the first" in said
    assert said.count("holds: ") == 9
    assert figure.exists()
