"""The example of the loss kernel's blocks, at a small size: its checks hold there too."""

from pathlib import Path

from running import run_here


def test_blocks_and_classes(tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    said, status = run_here("loss_kernel_blocks.py", "--draws", 40, "--images", 100, "--figure", figure)
    assert status == 0, said
    assert "4 of 4 checks hold" in said
    assert figure.exists()
