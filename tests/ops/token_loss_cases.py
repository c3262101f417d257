"""Inputs of `token_loss`, its float64 truth, and what eager PyTorch makes of them."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sltfast import ops

UNIT = 2.0**-24  # rounding of float32, relative


@dataclass
class Case:
    hidden: Tensor  # [C, N, d]
    unembedding: Tensor  # [K, V, d]
    targets: Tensor  # [C, N]
    bias: Tensor | None = None
    weights: Tensor | None = None  # of the losses in the scalar that is differentiated
    options: dict = field(default_factory=dict)

    def to(self, dtype: torch.dtype) -> "Case":
        return replace(
            self,
            hidden=self.hidden.to(dtype),
            unembedding=self.unembedding.to(dtype),
            bias=None if self.bias is None else self.bias.to(dtype),
        )

    def parameters(self) -> list[Tensor]:
        return [t for t in (self.hidden, self.unembedding, self.bias) if t is not None]

    def loss(self, backend: str = "native", **more) -> Tensor:
        return ops.token_loss(
            self.hidden, self.unembedding, self.targets, bias=self.bias, backend=backend, **self.options, **more
        )

    def eager(self) -> Tensor:
        z = self.hidden @ self.unembedding.transpose(1, 2)
        if self.bias is not None:
            z = z + self.bias[:, None]
        z = self.options.get("scale", 1.0) * z
        cap = self.options.get("softcap")
        if cap:
            z = cap * torch.tanh(z / cap)
        ignored = self.options.get("ignore_index", -100)
        flat = F.cross_entropy(z.flatten(0, 1), self.targets.flatten(), ignore_index=ignored, reduction="none")
        return flat.view(self.targets.shape)

    def with_gradient(self, kind: str) -> tuple[Tensor, ...]:
        """(ℓ, gradients by hidden, unembedding and bias) of "eager", of a backend, or of "BACKEND, weighted"."""
        leaf = replace(
            self,
            hidden=self.hidden.detach().clone().requires_grad_(),
            unembedding=self.unembedding.detach().clone().requires_grad_(),
            bias=None if self.bias is None else self.bias.detach().clone().requires_grad_(),
        )
        backend, _, weighted = kind.partition(", ")
        if weighted:
            total, loss = leaf.loss(backend, token_weights=self.weights)
        else:
            loss = leaf.eager() if kind == "eager" else leaf.loss(backend)
            total = (loss * self.weights.to(loss.dtype)).sum()
        total.backward()
        return loss.detach(), *(t.grad for t in leaf.parameters())


def make_case(
    tokens: int,
    depth: int,
    vocabulary: int,
    *,
    chains: int = 1,
    own_weights: bool = False,
    bias: bool = False,
    seed: int = 0,
    size: float = 1.0,
    **options,
) -> Case:
    g = torch.Generator().manual_seed(seed)
    own = chains if own_weights else 1
    case = Case(
        size * torch.randn(chains, tokens, depth, generator=g),
        torch.randn(own, vocabulary, depth, generator=g),
        torch.randint(0, max(vocabulary, 1), (chains, tokens), generator=g),
        torch.randn(own, vocabulary, generator=g) if bias else None,
        torch.rand(chains, tokens, generator=g) / max(tokens, 1),
        options,
    )
    case.targets[:, 1::5] = options.get("ignore_index", -100)
    return case


def errors(got: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> list[float]:
    """‖got − truth‖₂ of each."""
    return [float((g.double() - t).norm()) for g, t in zip(got, truth, strict=True)]
