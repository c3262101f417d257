"""Tiny causal language models by architecture, restrictions to their heads, and lanes' forwards one at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from sltfast.clone import structural_clone
from sltfast.restriction import Restriction

VOCABULARY = 29
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
ROPE = {"rope_type": "default", "rope_theta": 100.0}
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "neox": ("GPTNeoX", {**SIZES, "rope_parameters": {**ROPE, "partial_rotary_factor": 2 / 3}}),
    "neox_sequential": ("GPTNeoX", {**SIZES, "use_parallel_residual": False}),
    "gpt2": ("GPT2", GPT2_SIZES),
    "gptj": ("GPTJ", {**GPT2_SIZES, "rotary_dim": 4}),
    "llama": ("Llama", {**GROUPED, "attention_bias": True}),
    "qwen2": ("Qwen2", GROUPED),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}),
    "mistral": ("Mistral", {**GROUPED, "head_dim": 6, "sliding_window": 3}),
    "phi": ("Phi", {**SIZES, "rope_parameters": {**ROPE, "partial_rotary_factor": 2 / 3}}),
    "phi3": ("Phi3", GROUPED),
    "gemma2": ("Gemma2", {**GROUPED, "head_dim": 6, "sliding_window": 3, "query_pre_attn_scalar": 6}),
    "opt": (
        "OPT",
        {**{k: v for k, v in SIZES.items() if k != "intermediate_size"}, "ffn_dim": 36, "word_embed_proj_dim": 24},
    ),
    "gpt_neo": (
        "GPTNeo",
        {
            **{k: v for k, v in SIZES.items() if not k.startswith("num")},
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1], [["global"], 1]],
            "window_size": 3,
        },
    ),
    "falcon": ("Falcon", {**SIZES, "parallel_attn": True, "multi_query": False, "alibi": False, "bias": True}),
    "falcon_grouped": ("Falcon", {**SIZES, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    "olmo2": ("Olmo2", GROUPED),
    "granite": ("Granite", {**GROUPED, "residual_multiplier": 0.5}),
    "bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 24, "n_layer": 3, "n_head": 4}),
}


EAGER_ONLY = ("gemma2", "gpt_neo")


def model_of(name: str, implementation: str = "sdpa") -> nn.Module:
    family, sizes = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**sizes)
    config._attn_implementation = implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
        model = getattr(transformers, family + head)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()


def attention_name(model: nn.Module, layer: int) -> str:
    inputs = ("q_proj", "c_attn", "query_key_value", "qkv_proj")
    holders = [n for n, m in model.named_modules() if any(hasattr(m, name) for name in inputs)]
    return next(n for n in holders if f".{layer}." in n)


def head_masks(model: nn.Module, layer: int, head: int, kind: str = "head") -> dict[str, Tensor]:
    """The rows and columns of one "head", of one "group" of heads that share keys, or of a "head and keys"."""
    name = attention_name(model, layer)
    attention = model.get_submodule(name)
    config = model.config
    heads = getattr(config, "num_attention_heads", None) or config.num_heads
    family = type(config).__name__
    keys = heads
    if family == "FalconConfig":
        keys = config.num_kv_heads if config.new_decoder_architecture else heads
    elif getattr(config, "num_key_value_heads", None):
        keys = config.num_key_value_heads
    per = heads // keys
    size = getattr(attention, "head_dim", None) or attention.head_size
    queries = range(head * per, (head + 1) * per) if kind == "group" else range(head, head + 1)
    moves_keys = kind != "head" or per == 1
    key = head if kind == "group" else head // per
    masks = {}
    for local, parameter in attention.named_parameters():
        module, _, tensor = local.rpartition(".")
        role = module[0] if module[:2] in ("q_", "k_", "v_") and not module.endswith("norm") else ""
        output = module in ("o_proj", "out_proj", "dense", "c_proj")
        fused = module in ("query_key_value", "c_attn", "qkv_proj")
        if not role and not output and not fused:
            continue
        if (output and tensor == "bias") or (role in ("k", "v") and not moves_keys):
            continue
        if fused and family in ("GPTNeoXConfig", "FalconConfig", "BloomConfig"):
            start = key * (per + 2) * size
            features = [start + q % per * size + i for q in queries for i in range(size)]
            features += [start + per * size + i for i in range(2 * size * moves_keys)]
        elif fused:
            features = [h * size + i for h in queries for i in range(size)]
            if moves_keys:
                features += [(heads + s * keys + key) * size + i for s in (0, 1) for i in range(size)]
        elif role in ("k", "v"):
            features = [key * size + i for i in range(size)]
        else:
            features = [h * size + i for h in queries for i in range(size)]
        mask = torch.zeros_like(parameter, dtype=torch.bool)
        conv = type(attention.get_submodule(module)).__name__ == "Conv1D"
        if tensor == "bias" or conv == output:
            mask[features] = True
        else:
            mask[:, features] = True
        masks[f"{name}.{local}"] = mask
    return masks


def restrictions_of(model: nn.Module, layer: int, heads: list[int], kind: str = "head") -> list[Restriction]:
    return [Restriction.of(model, head_masks(model, layer, head, kind)) for head in heads]


def leaves_of(restrictions: list[Restriction], chains: int, scale: float = 0.3, seed: int = 7) -> list[Tensor]:
    """Other weights in every lane: w* + noise."""
    generator = torch.Generator().manual_seed(seed)
    leaves = []
    for index, segment in enumerate(restrictions[0].segments):
        anchor = torch.stack([r.segments[index].anchor() for r in restrictions]).repeat_interleave(chains, dim=0)
        leaf = anchor + scale * torch.randn(anchor.shape, generator=generator, dtype=anchor.dtype)
        leaves.append(leaf.view(-1, *segment.shape).requires_grad_())
    return leaves


def batch_of(rows: int, tokens: int, padding: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)
    batch = {"input_ids": torch.randint(0, VOCABULARY, (rows, tokens), generator=generator)}
    if padding:
        mask = torch.ones(rows, tokens, dtype=torch.long)
        for row in range(rows):
            count = row % (tokens // 2)
            if count:
                mask[row, :count] = 0 if padding == "left" else 1
                mask[row, tokens - count :] = 0 if padding == "right" else 1
        batch["attention_mask"] = mask
        batch["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return batch


@contextmanager
def expanded_behind(model: nn.Module, block: str, rows: int, lanes: int) -> Iterator[None]:
    """Masks and position embeddings of every later block repeated for the lanes."""
    holder, _, number = block.rpartition(".")

    def repeat(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and value.shape[0] == rows:
            return value.repeat(lanes, *[1] * (value.ndim - 1))
        if isinstance(value, tuple):
            return tuple(repeat(v) for v in value)
        return value

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return (args[0], *[repeat(a) for a in args[1:]]), {k: repeat(v) for k, v in kwargs.items()}

    blocks = list(model.get_submodule(holder))[int(number) + 1 :]
    handles = [b.register_forward_pre_hook(hook, with_kwargs=True) for b in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def frozen(model: nn.Module) -> nn.Module:
    return structural_clone(model, torch.device("cpu"))


def one_at_a_time(
    model: nn.Module,
    restrictions: list[Restriction],
    leaves: list[Tensor],
    chains: int,
    forward: Callable[[nn.Module], Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Outputs [L·B, …] of plain copies of the model, a lane's weights in each; and gradients of Σ output · noise."""
    outputs, gradients = [], [torch.zeros_like(leaf) for leaf in leaves]
    generator = torch.Generator().manual_seed(13)
    for lane in range(len(restrictions) * chains):
        alone = copy.deepcopy(model)
        parameters = dict(alone.named_parameters())
        segments = restrictions[lane // chains].segments
        with torch.no_grad():
            for segment, leaf in zip(segments, leaves, strict=True):
                block = segment.of(parameters[segment.name].data)
                block.copy_(leaf[lane].reshape(block.shape))
        output = forward(alone)
        (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum().backward()
        outputs.append(output.detach())
        for segment, gradient in zip(segments, gradients, strict=True):
            gradient[lane] = segment.of(parameters[segment.name].grad).reshape(gradient[lane].shape)
    return torch.cat(outputs), gradients
