"""The example of influence over training, at a small size: its checks hold there too."""

from pathlib import Path

from running import run_here


def test_peaks_and_sign_change(tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    sizes = ("--draws", 60, "--steps", 40, "--text-draws", 4, "--rows", 32)
    said, status = run_here("influence_dynamics.py", *sizes, "--figure", figure)
    assert status == 0, said
    assert "7 of 7 checks hold" in said
    assert figure.exists()
