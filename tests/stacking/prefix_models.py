"""Tiny models for prefix sharing, three blocks each, in float64; lanes with weights of their own, and alone."""

import torch
from architectures import seeded
from torch import nn
from torch.func import functional_call

from sltfast.clone import structural_clone
from sltfast.losses import item_loss

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}
GROUPED = {"num_key_value_heads": 1, "intermediate_size": 24}
# family: further settings, a weight of the middle block
FAMILIES = {
    "gpt_neox": ({"intermediate_size": 24}, "gpt_neox.layers.1.attention.query_key_value.weight"),
    "gpt2": ({}, "transformer.h.1.attn.c_attn.weight"),
    "llama": (GROUPED, "model.layers.1.self_attn.k_proj.weight"),
    "qwen2": (GROUPED, "model.layers.1.self_attn.q_proj.bias"),
    "qwen3": (GROUPED | {"head_dim": 8}, "model.layers.1.self_attn.q_norm.weight"),
    "gemma": (GROUPED | {"head_dim": 8}, "model.layers.1.mlp.up_proj.weight"),
    "gemma2": (GROUPED | {"head_dim": 8, "sliding_window": 3}, "model.layers.1.post_attention_layernorm.weight"),
    "mistral": (GROUPED | {"sliding_window": 3}, "model.layers.1.self_attn.o_proj.weight"),
    "phi": (GROUPED, "model.layers.1.self_attn.v_proj.weight"),
    "opt": ({"ffn_dim": 24, "word_embed_proj_dim": 16}, "model.decoder.layers.1.fc1.weight"),
    "bloom": ({}, "transformer.h.1.self_attention.query_key_value.weight"),
    "gptj": ({"rotary_dim": 4}, "transformer.h.1.attn.q_proj.weight"),
    "olmo2": (GROUPED, "model.layers.1.self_attn.v_proj.weight"),
}


def language_model(family):
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[family](**SIZES, **FAMILIES[family][0])
    return seeded(lambda: AutoModelForCausalLM.from_config(config)).double()


def lens():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=3, d_model=16, n_ctx=16, d_head=8, n_heads=2, d_mlp=24, d_vocab=32, act_fn="gelu", seed=0
    )
    return seeded(lambda: HookedTransformer(config)).double()


class Residual(nn.Module):
    """A small residual net: a stem, three stages with shortcuts, a head on pooled features."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.GroupNorm(2, 6)
        self.first, self.second, self.third = (_Shortcut(6) for _ in range(3))
        self.activation, self.head = nn.ReLU(inplace=True), nn.Linear(6, 5)

    def forward(self, x):
        x = self.activation(self.norm(self.stem(x)))
        x = self.activation(self.third(self.second(self.first(x))))
        return self.head(x.mean((2, 3)))


class _Shortcut(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner, self.outer = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x):
        return x + self.outer(torch.relu(self.inner(x)))


def mlp():
    layers = [nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 1), nn.Flatten(0)]
    return seeded(lambda: nn.Sequential(*layers)).double()


def cloned(model):
    return structural_clone(model, torch.device("cpu"))


def next_token(model):
    loss = item_loss(model, None)
    return lambda module, batch: loss(module, batch).values


def each_lane(batch, lanes):
    return {name: column.repeat(lanes, 1) for name, column in batch.items()}


def lane_weights(model, name, lanes, seed=5):
    """[L, *shape]: the weight, moved by something else in every lane."""
    weight = model.get_parameter(name).detach()
    noise = torch.randn(lanes, *weight.shape, generator=torch.Generator().manual_seed(seed), dtype=weight.dtype)
    return (weight + 0.3 * noise).requires_grad_()


class PerLane:
    """One module's forward run lane by lane, each with its own weight: slow, plain, and right."""

    def __init__(self, model, name, weights):
        owner, _, self.leaf = name.rpartition(".")
        self.module, self.weights = model.get_submodule(owner), weights
        self.original = self.module.forward

    def __enter__(self):
        self.module.forward = self.forward
        return self

    def __exit__(self, *_):
        del self.module.forward

    def forward(self, *args, **kwargs):
        lanes = len(self.weights)
        rows = max(len(x) for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))

        def of(lane, x):
            return x.chunk(lanes)[lane] if isinstance(x, torch.Tensor) and len(x) == rows else x

        own = self.module.__dict__.pop("forward")
        try:
            return torch.cat(
                [
                    functional_call(
                        self.module,
                        {self.leaf: weight},
                        tuple(of(lane, x) for x in args),
                        {key: of(lane, x) for key, x in kwargs.items()},
                    )
                    for lane, weight in enumerate(self.weights)
                ]
            )
        finally:
            self.module.forward = own


def alone(model, name, weights, loss, batch):
    """(losses [L, B, …], gradients [L, *shape]) of every lane by itself, the whole model run for each."""
    losses, gradients = [], []
    for weight in weights.detach():
        leaf = weight.clone().requires_grad_()
        values = functional_call(_Called(model, loss), {f"model.{name}": leaf}, (batch,))
        gradients.append(torch.autograd.grad(values.mean(), leaf)[0])
        losses.append(values.detach())
    return torch.stack(losses), torch.stack(gradients)


class _Called(nn.Module):
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch):
        return self.loss(self.model, batch)
