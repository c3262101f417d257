"""The example of clusters, at a small size: its checks hold there too."""

from pathlib import Path

import pytest
from running import run_here


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_near_tokens_are_of_the_same_kind(tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    sizes = ("--training-steps", 120, "--rows", 12, "--draws", 8, "--no-control", "--plane", "pca")
    said, status = run_here("towards_spectroscopy.py", *sizes, "--figure", figure)
    assert status == 0, said
    assert "2 of 2 checks hold" in said
    assert figure.exists()
