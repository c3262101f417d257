"""Small models and data that many tests share."""

import torch
from torch import Tensor, nn


class Quadratic(nn.Module):
    """L(w) = ½ Σ h_i (w_i − w*_i)², the same for every item: no mini-batch noise."""

    def __init__(self, curvature: Tensor, centre: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((len(curvature),), centre, dtype=dtype))
        self.register_buffer("curvature", curvature.to(torch.float64 if dtype == torch.float64 else torch.float32))
        self.register_buffer("centre", self.w.detach().clone())

    def forward(self) -> Tensor:
        apart = self.w.to(self.curvature.dtype) - self.centre.to(self.curvature.dtype)
        return 0.5 * (self.curvature * apart**2).sum()


def quadratic_loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model().expand(len(batch))


ONES = torch.zeros(8, 1)  # data for losses that look at none


class Mlp(nn.Module):
    """Two layers with dropout between them, for regression."""

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 1)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.dropout(torch.tanh(self.first(x)))).squeeze(-1)


def regression_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return (model(x) - y) ** 2


def regression_data(rows: int = 40, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=generator), torch.randn(rows, generator=generator)


def token_rows(rows: int = 24, tokens: int = 9, vocabulary: int = 32, seed: int = 2) -> Tensor:
    return torch.randint(0, vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def tiny_neox(vocabulary: int = 32) -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return GPTNeoXForCausalLM(config).eval()
