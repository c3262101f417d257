"""Tiny language models whose logits come from their hidden states in every way that models have."""

import torch

SIZE = {
    "vocab_size": 37,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GROUPED = {**SIZE, "num_key_value_heads": 1}
GPT2 = {"vocab_size": 37, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
ENDS = {"bos_token_id": 0, "eos_token_id": 0}


def neox():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZE))


def gpt2_tied():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(**GPT2, **ENDS))


def gptj_with_bias():
    from transformers import GPTJConfig, GPTJForCausalLM

    return GPTJForCausalLM(GPTJConfig(**GPT2, **ENDS, rotary_dim=4))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**GROUPED))


def gemma2_capped():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**GROUPED, head_dim=8, final_logit_softcapping=3.0))


def cohere_scaled():
    from transformers import CohereConfig, CohereForCausalLM

    return CohereForCausalLM(CohereConfig(**GROUPED, logit_scale=0.3))


def granite_scaled():
    from transformers import GraniteConfig, GraniteForCausalLM

    return GraniteForCausalLM(GraniteConfig(**GROUPED, logits_scaling=7.0))


def opt():
    from transformers import OPTConfig, OPTForCausalLM

    size = {"vocab_size": 37, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24}
    config = OPTConfig(**size, **ENDS, max_position_embeddings=32, word_embed_proj_dim=16, pad_token_id=1)
    return OPTForCausalLM(config)


def transformer_lens(**settings):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    size = {"n_layers": 1, "d_model": 16, "n_ctx": 32, "d_head": 8, "d_vocab": 37, "act_fn": "gelu", "seed": 0}
    return HookedTransformer(HookedTransformerConfig(**size, **settings))


def transformer_lens_capped():
    return transformer_lens(output_logits_soft_cap=5.0)


FAMILIES = {
    make.__name__: make
    for make in (
        neox,
        gpt2_tied,
        gptj_with_bias,
        llama,
        gemma2_capped,
        cohere_scaled,
        granite_scaled,
        opt,
        transformer_lens,
        transformer_lens_capped,
    )
}


def made(family: str, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    """A model with every parameter off its initial value, large enough logits for a cap to matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = FAMILIES[family]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)
    return model.requires_grad_()


def batches() -> dict[str, object]:
    """Tokens plain, padded on either side, and with labels."""
    ids = torch.randint(2, 37, (6, 9), generator=torch.Generator().manual_seed(7))
    right, left = torch.ones(6, 9).long(), torch.ones(6, 9).long()
    right[0, 5:], right[3, 7:], left[1, :4], left[2, :1] = 0, 0, 0, 0
    labels = ids.clone()
    labels[:, :3], labels[4] = -100, -100
    return {
        "plain": ids,
        "padded right": {"input_ids": ids, "attention_mask": right},
        "padded left": {"input_ids": ids, "attention_mask": left},
        "labels": {"input_ids": ids, "labels": labels},
    }
