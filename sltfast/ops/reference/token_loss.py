"""`token_loss`, its gradient, and both in one pass, in plain PyTorch.

Products and sums are in float32 (float64 for float64 inputs), some tokens at a time so that N·V logits never exist.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from sltfast.ops.token_loss_arguments import check_rows, check_token_loss, computed_dtype

_BLOCK = 1 << 22  # logits at a time


class _Problem:
    """Operands as they are multiplied: widened, or rounded to bfloat16's precision first."""

    def __init__(
        self,
        hidden: Tensor,
        unembedding: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        ignore_index: int,
        scale: float,
        softcap: float,
        precision: str,
    ) -> None:
        check_token_loss(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision)
        self.dtype = computed_dtype(hidden.dtype)
        self.rounds = precision == "bf16" and hidden.dtype == torch.float32
        self.hidden = self.operand(hidden.to(self.dtype))
        self.unembedding = self.operand(unembedding.to(self.dtype))
        self.bias = None if bias is None else bias.to(self.dtype)
        self.targets, self.counts = targets, targets != ignore_index
        self.scale, self.softcap = scale, softcap

    def operand(self, x: Tensor) -> Tensor:
        return x.bfloat16().to(self.dtype) if self.rounds else x

    def own(self, shared: Tensor, chain: int) -> Tensor:
        return shared[chain if shared.shape[0] > 1 else 0]

    def blocks(self) -> Iterator[tuple[int, slice, Tensor]]:
        """(chain, tokens, their logits [n, V])."""
        chains, tokens, _ = self.hidden.shape
        vocabulary = self.unembedding.shape[1]
        step = max(1, _BLOCK // max(1, vocabulary))
        for c in range(chains):
            for start in range(0, tokens, step):
                here = slice(start, min(start + step, tokens))
                z = self.hidden[c, here] @ self.own(self.unembedding, c).T
                if self.bias is not None:
                    z = z + self.own(self.bias, c)
                z = self.scale * z
                if self.softcap:
                    z = self.softcap * torch.tanh(z / self.softcap)
                yield c, here, z

    def losses(self, c: int, here: slice, z: Tensor) -> tuple[Tensor, Tensor]:
        """(ℓ, lse) of a block; 0 where ignored."""
        counts = self.counts[c, here]
        if z.shape[1] == 0:
            return z.new_zeros(len(z)), z.new_zeros(len(z), dtype=torch.float64)
        largest = z.amax(1)
        shift = torch.where(torch.isfinite(largest), largest, 0)
        logarithm = torch.log(torch.exp(z - shift[:, None]).sum(1))
        at_target = z.gather(1, torch.where(counts, self.targets[c, here], 0)[:, None])[:, 0]
        # the logits are subtracted first: their difference is exact where the size of lse would round
        loss = (shift - at_target) + logarithm
        return torch.where(counts, loss, 0), torch.where(counts, shift.double() + logarithm.double(), 0)

    def dlogits(self, c: int, here: slice, z: Tensor, lse: Tensor, weights: Tensor) -> Tensor:
        """D = ρ·(exp(z − lse) − 1{v = y})·dz/da, an operand of the products to come."""
        counts = self.counts[c, here]
        d = torch.exp((z.double() - lse[:, None]).to(self.dtype))
        if z.shape[1]:
            target = torch.where(counts, self.targets[c, here], 0)[:, None]
            d.scatter_add_(1, target, torch.full_like(target, -1, dtype=self.dtype))
        slope = self.scale * (1 - (z / self.softcap) ** 2) if self.softcap else self.scale
        rho = weights.to(self.dtype)[:, None]
        return self.operand(torch.where(counts[:, None] & (rho != 0), rho * d * slope, 0))


class _Gradients:
    """dH = D·W, dW = Dᵀ·H and db = Dᵀ·1, summed over blocks."""

    def __init__(self, problem: _Problem, needs: tuple[bool, bool, bool]) -> None:
        self.problem = problem
        given = (problem.hidden, problem.unembedding, problem.bias)
        self.sums = [
            torch.zeros_like(t, memory_format=torch.contiguous_format)
            if need and t is not None
            else problem.hidden.new_zeros(0)
            for t, need in zip(given, needs, strict=True)
        ]
        self.needs = needs

    def add(self, c: int, here: slice, d: Tensor) -> None:
        p, (hidden, unembedding, bias) = self.problem, self.sums
        if self.needs[0]:
            hidden[c, here] = d @ p.own(p.unembedding, c)
        if self.needs[1]:
            p.own(unembedding, c).add_(d.T @ p.hidden[c, here])
        if self.needs[2]:
            p.own(bias, c).add_(d.sum(0))

    def rounded(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        hidden, unembedding, bias = (t.to(dtype) for t in self.sums)
        return hidden, unembedding, bias


def token_loss(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """`sltfast::reference_token_loss`: (ℓ, lse), [C, N] each, lse in float64; the equation is in `ops.token_loss`."""
    p = _Problem(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision)
    loss = torch.zeros(targets.shape, dtype=p.dtype, device=hidden.device)
    lse = torch.zeros(targets.shape, dtype=torch.float64, device=hidden.device)
    for c, here, z in p.blocks():
        loss[c, here], lse[c, here] = p.losses(c, here, z)
    return loss, lse


def token_loss_backward(
    dloss: Tensor,
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    lse: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
    needs_hidden: bool,
    needs_unembedding: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`sltfast::reference_token_loss_backward`: gradients of Σ dloss·ℓ; of no values where not needed."""
    p = _Problem(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision)
    check_rows("dloss", dloss, targets, p.dtype)
    check_rows("lse", lse, targets, torch.float64)
    gradients = _Gradients(p, (needs_hidden, needs_unembedding, needs_bias and bias is not None))
    for c, here, z in p.blocks():
        gradients.add(c, here, p.dlogits(c, here, z, lse[c, here], dloss[c, here]))
    return gradients.rounded(hidden.dtype)


def token_loss_with_gradient(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
    needs_unembedding: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`sltfast::reference_token_loss_with_gradient`: Σ ρ·ℓ, ℓ, and the gradients of that sum."""
    p = _Problem(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision)
    check_rows("weights", weights, targets, p.dtype)
    gradients = _Gradients(p, (True, needs_unembedding, needs_bias and bias is not None))
    loss = torch.zeros(targets.shape, dtype=p.dtype, device=hidden.device)
    for c, here, z in p.blocks():
        loss[c, here], lse = p.losses(c, here, z)
        gradients.add(c, here, p.dlogits(c, here, z, lse, weights[c, here]))
    total = torch.where(weights != 0, weights.double() * loss.double(), 0).sum().to(p.dtype)
    return total, loss, *gradients.rounded(hidden.dtype)
