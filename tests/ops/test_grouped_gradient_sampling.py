"""An MLP whose layers move in the backward pass, where their gradients are formed: the chain of the ordinary path."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sltfast import ops

WIDTHS = (5, 16, 7, 1)
N_BETA, CHAINS, SAMPLES = 200.0, 2, 40


class LayerThatMoves(torch.autograd.Function):
    """Y = X Wᵀ of C chains; its backward gives dX, then moves W: nobody reads a gradient of W."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, move: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.move = weight, move
        return torch.baddbmm(x.new_zeros(1, 1, 1), x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx, d: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        dx = d @ ctx.weight
        ctx.move(d, x)
        return dx, None, None


class Sampler:
    """C chains of an MLP on one flat buffer; a layer is W [out, in], or [in, out] as a Conv1D."""

    def __init__(self, dtype: torch.dtype, transposed: bool, **sampler: object) -> None:
        random = torch.Generator().manual_seed(3)
        self.transposed = transposed
        sizes = [a * b for a, b in itertools.pairwise(WIDTHS)]
        self.anchor = torch.randn(sum(sizes), generator=random, dtype=torch.float64).to(dtype) / 3
        self.w = self.anchor.repeat(CHAINS, 1)
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        runs = [b if transposed else a for a, b in itertools.pairwise(WIDTHS)]
        self.segments = torch.tensor([[o, n, o, run, run] for o, n, run in zip(offsets, sizes, runs, strict=True)])
        self.x = torch.randn(SAMPLES, WIDTHS[0], generator=random, dtype=torch.float64).to(dtype)
        self.y = torch.sin(self.x.sum(1))
        self.hyper = torch.tensor(
            [[1e-3 * (c + 1), N_BETA, 2.0, 0.1, 1.0, math.inf] for c in range(CHAINS)], dtype=torch.float64
        )
        self.step, self.chains = torch.tensor(0), torch.arange(CHAINS)
        self.alive = torch.ones(CHAINS, dtype=torch.bool)
        self.refusal = ops.epilogue_refusal(method="sgld", micro_batches=1, **sampler)

    def layer(self, s: int) -> Tensor:
        """[C, out, in], a view of w."""
        offset, n = self.segments[s, :2].tolist()
        a, b = WIDTHS[s], WIDTHS[s + 1]
        rows = self.w[:, offset : offset + n]
        return rows.view(CHAINS, a, b).transpose(1, 2) if self.transposed else rows.view(CHAINS, b, a)

    def common(self) -> tuple[Tensor, ...]:
        return self.hyper, self.step, self.chains

    def fused_step(self, **options: object) -> Tensor:
        assert not self.refusal
        hidden = self.x.expand(CHAINS, -1, -1).clone().requires_grad_()
        for s in range(len(self.segments)):

            def move(d: Tensor, x: Tensor, s: int = s) -> None:
                left, right = (x, d) if self.transposed else (d, x)
                offset, n = self.segments[s, :2].tolist()
                ops.grouped_gradient_step_(
                    self.w, left, right, self.anchor[offset : offset + n], self.segments[s], *self.common(), seed=1,
                    alive=self.alive, **options,
                )  # fmt: skip

            hidden = LayerThatMoves.apply(hidden, self.layer(s), move)
            hidden = torch.tanh(hidden) if s + 1 < len(self.segments) else hidden
        loss = (hidden[..., 0] - self.y).square().mean(1)
        loss.sum().backward()
        self.step += 1
        return loss.detach()

    def ordinary_step(self, **options: object) -> Tensor:
        weights = [self.layer(s).detach().clone().requires_grad_() for s in range(len(self.segments))]
        hidden = self.x.expand(CHAINS, -1, -1)
        for s, weight in enumerate(weights):
            hidden = hidden @ weight.transpose(1, 2)
            hidden = torch.tanh(hidden) if s + 1 < len(weights) else hidden
        loss = (hidden[..., 0] - self.y).square().mean(1)
        grads = torch.autograd.grad(loss.sum(), weights)
        if self.transposed:
            grads = [g.transpose(1, 2) for g in grads]
        anchors = list(self.anchor.split(self.segments[:, 1].tolist()))
        ops.langevin_step_(
            self.w, [g.contiguous() for g in grads], anchors, self.segments, *self.common(), seed=1, alive=self.alive,
            **options,
        )  # fmt: skip
        self.step += 1
        return loss.detach()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_chain_of_the_ordinary_path(transposed, backend) -> None:
    fused, ordinary = (Sampler(torch.float64, transposed, uses=1) for _ in range(2))
    first, *_ = losses = [fused.fused_step(backend=backend) for _ in range(60)]
    for t, loss in enumerate(losses):
        # the paths differ by the order of sums in float64; 60 steps amplify that by far less than 1e6
        assert torch.allclose(loss, ordinary.ordinary_step(backend=backend), rtol=1e-9), t
    assert torch.allclose(fused.w, ordinary.w, rtol=0, atol=1e-10)
    assert (torch.stack(losses[30:]).mean(0) < first).all()
    assert not torch.equal(fused.w[0], fused.w[1])


def test_float32_follows_float64_as_the_ordinary_path_does() -> None:
    fused, ordinary, truth = (Sampler(d, False, uses=1) for d in (torch.float32, torch.float32, torch.float64))
    for _ in range(20):
        fused.fused_step(), ordinary.ordinary_step(), truth.ordinary_step()
    errors = [(x.w.double() - truth.w).norm() for x in (fused, ordinary)]
    assert errors[0] <= 2 * errors[1]


@pytest.mark.parametrize(
    "sampler", [{"uses": 2}, {"uses": 1, "recomputed": True}, {"uses": 1, "metrics": True}, {"uses": 1, "exact": True}]
)
def test_where_the_epilogue_is_refused_the_ordinary_path_runs(sampler) -> None:
    refused, ordinary = Sampler(torch.float64, False, **sampler), Sampler(torch.float64, False, uses=1)
    assert refused.refusal
    for _ in range(3):
        step = refused.ordinary_step if refused.refusal else refused.fused_step
        step(), ordinary.ordinary_step()
    assert torch.equal(refused.w, ordinary.w)


def test_why_a_weight_used_twice_is_refused() -> None:
    """The sum of two uses is one step; two epilogues would be two, the second from where the first went."""
    sampler = Sampler(torch.float64, False, uses=2)
    assert "uses the weight 2 times" in sampler.refusal
    d, x = torch.randn(CHAINS, 6, 16, dtype=torch.float64), torch.randn(CHAINS, 6, 5, dtype=torch.float64)
    common = (sampler.anchor[:80], sampler.segments[0], *sampler.common())
    uses = [(d[:, :3], x[:, :3]), (d[:, 3:], x[:, 3:])]
    once, twice = sampler.w.clone(), sampler.w.clone()
    grad = sum(ops.grouped_gradient(*use, dtype=torch.float64) for use in uses)
    ops.langevin_step_(once, [grad], [common[0]], common[1][None], *common[2:], seed=1)
    together = sampler.w.clone()
    ops.grouped_gradient_step_(together, d, x, *common, seed=1)
    for use in uses:
        ops.grouped_gradient_step_(twice, *use, *common, seed=1)
    assert torch.allclose(together, once, rtol=1e-12)
    assert not torch.allclose(twice, once, rtol=1e-3)
