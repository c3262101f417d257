"""Tiny random language models of many architectures, and where their heads write: known here, not read off."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

HEADS, WIDTH, LAYERS, VOCABULARY = 4, 8, 2, 32
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": HEADS * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}
NARROW = {**GROUPED, "head_dim": WIDTH}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": HEADS * WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": HEADS * WIDTH}
NEO = {"hidden_size": HEADS * WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "window_size": 3}
EXPERTS = {"experts_implementation": "eager", "num_local_experts": 2, "num_experts_per_tok": 1}


@dataclass(frozen=True)
class Architecture:
    """One model to be made.

    Attributes:
        kind: Hugging Face model type.
        settings: of its config.
        writes: name of the output projection of one block's attention.
        groups: sets of heads that share keys and values.
    """

    kind: str
    settings: dict
    writes: str
    groups: int = HEADS

    def make(self, seed: int = 3) -> nn.Module:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(self.kind, **self.settings)
        return seeded(lambda: AutoModelForCausalLM.from_config(config), seed)


def seeded(make, seed):
    """A float64 model with every parameter off its initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make().eval().double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


LLAMA = "model.layers.{}.self_attn.o_proj"
FALCON = "transformer.h.{}.self_attention.dense"
ARCHITECTURES = {
    "gpt_neox": Architecture("gpt_neox", SIZE, "gpt_neox.layers.{}.attention.dense"),
    "gpt2": Architecture("gpt2", {**GPT2, **ENDS}, "transformer.h.{}.attn.c_proj"),
    "llama": Architecture("llama", {**SIZE, "attention_bias": True}, LLAMA),
    "llama_gqa": Architecture("llama", GROUPED, LLAMA, 2),
    "llama_mqa": Architecture("llama", {**SIZE, "num_key_value_heads": 1}, LLAMA, 1),
    "qwen2": Architecture("qwen2", {**GROUPED, "tie_word_embeddings": True}, LLAMA, 2),
    "qwen3": Architecture("qwen3", NARROW, LLAMA, 2),
    "gemma": Architecture("gemma", NARROW, LLAMA, 2),
    "gemma2": Architecture("gemma2", NARROW, LLAMA, 2),
    "gemma3": Architecture("gemma3_text", NARROW, LLAMA, 2),
    "mistral": Architecture("mistral", {**NARROW, "sliding_window": 4}, LLAMA, 2),
    "phi": Architecture("phi", GROUPED, "model.layers.{}.self_attn.dense", 2),
    "phi3": Architecture("phi3", GROUPED, LLAMA, 2),
    "opt": Architecture("opt", {**SIZE, **OPT, "pad_token_id": 1}, "model.decoder.layers.{}.self_attn.out_proj"),
    "bloom": Architecture("bloom", {**GPT2, **ENDS, "hidden_size": HEADS * WIDTH}, FALCON),
    "gptj": Architecture("gptj", {**GPT2, **ENDS, "rotary_dim": 4}, "transformer.h.{}.attn.out_proj"),
    "gpt_neo": Architecture(
        "gpt_neo",
        {**ENDS, **NEO, "vocab_size": VOCABULARY, "attention_types": [[["global", "local"], 1]]},
        "transformer.h.{}.attn.attention.out_proj",
    ),
    "falcon": Architecture("falcon", {**SIZE, "multi_query": True}, FALCON, 1),
    "falcon_alibi": Architecture("falcon", {**SIZE, "multi_query": False, "alibi": True, "bias": True}, FALCON),
    "falcon_groups": Architecture("falcon", {**SIZE, "new_decoder_architecture": True, "num_kv_heads": 2}, FALCON, 2),
    "olmo2": Architecture("olmo2", GROUPED, LLAMA, 2),
    "granite": Architecture("granite", GROUPED, LLAMA, 2),
    "stablelm": Architecture("stablelm", {**GROUPED, "use_qkv_bias": True}, LLAMA, 2),
    "stablelm_norms": Architecture("stablelm", {**GROUPED, "qk_layernorm": True}, LLAMA, 2),
    "cohere": Architecture("cohere", {**GROUPED, "use_qk_norm": True}, LLAMA, 2),
    "gpt_bigcode": Architecture("gpt_bigcode", {**GPT2, **ENDS}, "transformer.h.{}.attn.c_proj", 1),
    "mpt": Architecture(
        "mpt",
        {"d_model": 32, "n_heads": HEADS, "n_layers": LAYERS, "vocab_size": VOCABULARY},
        "transformer.blocks.{}.attn.out_proj",
    ),
    "mixtral": Architecture("mixtral", {**GROUPED, **EXPERTS}, LLAMA, 2),
    "gpt_oss": Architecture("gpt_oss", {**NARROW, **EXPERTS}, LLAMA, 2),
    "codegen": Architecture("codegen", {**GPT2, **ENDS, "rotary_dim": 4}, "transformer.h.{}.attn.out_proj"),
}


def lens(groups: int = HEADS) -> nn.Module:
    """A TransformerLens model; its attention writes into ``blocks.{}.attn.hook_z``."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=HEADS * WIDTH,
        n_ctx=64,
        d_head=WIDTH,
        n_heads=HEADS,
        d_vocab=VOCABULARY,
        act_fn="gelu",
        n_key_value_heads=groups if groups < HEADS else None,
    )
    return seeded(lambda: HookedTransformer(config), 3)


def token_ids() -> Tensor:
    return torch.randint(2, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(5))
