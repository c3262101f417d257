"""The study of compressibility, small."""

from pathlib import Path

from running import run_here


def test_compressibility(tmp_path: Path) -> None:
    figure = tmp_path / "compressibility.png"
    said, status = run_here("compressibility.py", "--draws", 30, "--checkpoints", 6, "--steps", 700, "--figure", figure)
    assert status == 0, said
    assert "3 of 3 checks hold" in said
    assert figure.exists()
