"""The models whose items' gradients are compared with the truth: tiny, random, in float64 where asked."""

import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows
from torch import nn

SIZE = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
}


def seeded(make, seed=4):
    """A model with every parameter off its initial value, so that no bias or gain has a special one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def gpt2(**settings):
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
    return seeded(lambda: GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **size, **settings)))


def neox():
    return seeded(tiny_neox)


def llama(**settings):
    from transformers import LlamaConfig, LlamaForCausalLM

    return seeded(lambda: LlamaForCausalLM(LlamaConfig(**SIZE, **settings)))


def gemma():
    from transformers import GemmaConfig, GemmaForCausalLM

    return seeded(lambda: GemmaForCausalLM(GemmaConfig(head_dim=8, **SIZE)))


def gemma2():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return seeded(lambda: Gemma2ForCausalLM(Gemma2Config(head_dim=8, **SIZE)))


def qwen2():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return seeded(lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE)))


def qwen3():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return seeded(lambda: Qwen3ForCausalLM(Qwen3Config(head_dim=8, **SIZE)))


LANGUAGE_MODELS = {
    "gpt2": gpt2,
    "gpt2 untied": lambda: gpt2(tie_word_embeddings=False),
    "neox": neox,
    "llama": llama,
    "llama tied": lambda: llama(tie_word_embeddings=True),
    "gemma": gemma,
    "gemma2": gemma2,
    "qwen2": qwen2,
    "qwen3": qwen3,
}


class Cnn(nn.Module):
    """Convolutions with stride, padding, dilation and groups; norms by group and by running statistics."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.GroupNorm(2, 6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, (3, 2), stride=(2, 1), groups=2, dilation=(1, 2), bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 4, 3, padding="same", padding_mode="circular"),
        )
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def cnn():
    model = seeded(Cnn)
    model.body[4].running_mean.add_(0.3)
    model.body[4].running_var.mul_(1.7)
    return model


def images(rows=5, seed=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, 9, 8, generator=generator), torch.randint(0, 5, (rows,), generator=generator)


def classification_loss(model, batch):
    x, y = batch
    return nn.functional.cross_entropy(model(x), y, reduction="none")


VISION_AND_REGRESSION = {
    "mlp": (lambda: seeded(Mlp), lambda: regression_data(7), regression_loss),
    "cnn": (cnn, images, classification_loss),
}


def padded_rows():
    """Sequences of different lengths: right padding, left padding, labels to ignore, one row with nothing to learn."""
    ids = token_rows(4, tokens=8)
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    mask[1, :3] = 0
    labels = ids.clone()
    labels[2, :4] = -100
    labels[3] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
