"""Tiny random models of many architectures, float64."""

from collections.abc import Callable

import torch
from torch import nn

VOCABULARY = 37
NAMES = [
    "GPTNeoX", "GPT2", "Llama", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Mistral", "Phi", "Phi3", "OPT", "Bloom", "GPTJ",
    "Mixtral", "Mamba",
]  # fmt: skip

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_ARGUMENTS: dict[str, dict[str, object]] = {
    "GPTNeoX": _COMMON,
    "GPT2": {
        "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "Llama": _GROUPED,
    "Qwen2": {**_GROUPED, "tie_word_embeddings": True},
    "Qwen3": {**_GROUPED, "head_dim": 4},
    "Gemma": {**_GROUPED, "head_dim": 4},
    "Gemma2": {**_GROUPED, "head_dim": 4, "sliding_window": 4},
    "Mistral": {**_GROUPED, "sliding_window": 4},
    "Phi": _COMMON,
    "Phi3": {**_GROUPED, "original_max_position_embeddings": 32},
    "OPT": {**_COMMON, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "Bloom": {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 2, "n_head": 4, "bos_token_id": 0},
    "GPTJ": {
        "vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "rotary_dim": 4,
        "bos_token_id": 0, "eos_token_id": 0,
    },
    "Mixtral": {**_GROUPED, "experts_implementation": "eager", "num_local_experts": 3, "num_experts_per_tok": 2},
    "Mamba": {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "pad_token_id": 1,
        "bos_token_id": 0, "eos_token_id": 0,
    },
}  # fmt: skip


_CLASSES = {"GPT2": "GPT2LMHeadModel"}
NO_EMPTY_ROWS = ("Bloom", "Gemma2")  # NaN on their own in float64 where a padded position may attend to nothing


def tiny(name: str, **changed: object) -> nn.Module:
    """The causal language model ``name`` with every weight random, gains and offsets too."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**{**_ARGUMENTS[name], **changed})
    build: Callable[..., nn.Module] = getattr(transformers, _CLASSES.get(name, f"{name}ForCausalLM"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build(config).eval().double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def padded(rows: int = 3, tokens: int = 7, left: bool = True) -> dict[str, torch.Tensor]:
    """Token ids with padding of another length in every row."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(2, VOCABULARY, (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        empty = slice(0, row) if left else slice(tokens - row, tokens)
        mask[row, empty], ids[row, empty] = 0, 1
    return {"input_ids": ids, "attention_mask": mask}
