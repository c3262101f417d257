"""The ops beside langevin_step_ on a GPU: every backend there against the reference on the CPU, in float64."""

import copy

import pytest
import torch
from grouped_cases import LAYOUTS, GroupedCase, assert_same_step, make_grouped_case
from torch import Tensor

from sltfast import ops

pytestmark = pytest.mark.gpu
BACKENDS = ("native", "triton")
DEVICE = "cuda"
HALF_ULP = 2.0**-24


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def to(case: GroupedCase, device: str) -> GroupedCase:
    """The same on `device`; the segment stays on the CPU."""
    out = copy.copy(case)
    for name in ("w", "left", "right", "anchor", "hyper", "step", "chains"):
        setattr(out, name, getattr(case, name).to(device))
    out.keywords = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in case.keywords.items()}
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 63, 5), (130, 65, 36)])
def test_layer_steps(backend: str, shape: tuple[int, int, int]) -> None:
    for layout in LAYOUTS:
        case = make_grouped_case(shape, layout, weighted=True)
        assert_same_step(to(to(case, DEVICE).run(backend), "cpu"), case.run("reference"), case)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3, 1, 5, 7), (4, 33, 65, 20), (2, 130, 70, 70)])
def test_inner_products_of_gradients(backend: str, shape: tuple[int, int, int, int]) -> None:
    b, t, r, k = shape
    left, right, v = normal(b, t, r), normal(b, t, k, seed=1), normal(r, k, seed=2)
    for dtype, unit in ((torch.float32, HALF_ULP), (torch.float64, 2.0**-53)):
        x, y, z = (a.to(dtype) for a in (left, right, v))
        gradients = torch.einsum("btr,btk->brk", x.double(), y.double())
        sizes = torch.einsum("btr,btk->brk", x.double().abs(), y.double().abs())
        # every entry of a tile is a sum of max(t, r, k) products in the dtype; what follows is float64
        roundings = 2 * max(t, r, k) * unit
        norms = ops.grouped_gradient_products(*(a.to(DEVICE) for a in (x, y, x, y)), backend=backend).cpu()
        assert ((norms - gradients.square().sum((1, 2))).abs() <= 2 * roundings * sizes.square().sum((1, 2))).all()
        inner = ops.grouped_gradient_inner(*(a.to(DEVICE) for a in (x, y, z)), backend=backend).cpu()
        truth = (gradients * z.double()).sum((1, 2))
        assert ((inner - truth).abs() <= roundings * (sizes * z.double().abs()).sum((1, 2))).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_losses_and_their_gradients(backend: str, dtype: torch.dtype) -> None:
    n, d, v = 70, 40, 333
    hidden, unembedding = (0.3 * normal(n, d)).to(dtype), (0.3 * normal(v, d, seed=1)).to(dtype)
    targets = torch.randint(0, v, (n,), generator=torch.Generator().manual_seed(2))
    targets[3] = -100
    exact = [t.double().requires_grad_() for t in (hidden, unembedding)]
    truth = torch.nn.functional.cross_entropy(exact[0] @ exact[1].T, targets, reduction="none")
    truth.sum().backward()
    ours = [t.to(DEVICE).requires_grad_() for t in (hidden, unembedding)]
    losses = ops.token_loss(*ours, targets.to(DEVICE), backend=backend)
    losses.sum().backward()
    # logits of d products, |z| below 20, then exp and ln in float32: (d + 20)·2⁻²⁴ of 20
    assert (losses.double().cpu() - truth).abs().max() < (d + 20) * 20 * HALF_ULP
    for mine, theirs in zip(ours, exact, strict=True):
        size = theirs.grad.abs().max()
        unit = 2.0**-8 if dtype == torch.bfloat16 else (v + d) * HALF_ULP
        assert (mine.grad.double().cpu() - theirs.grad).abs().max() < 2 * unit * size


@pytest.mark.parametrize("backend", BACKENDS)
def test_moments_correlations_and_ranks(backend: str) -> None:
    draws = 1e4 + normal(1, 100, 37)
    draws[0, :, 5] = 1e4  # a variable that does not vary
    state = ops.comoments(1, 37, device=DEVICE)
    valid = torch.ones(1, 100, dtype=torch.bool)
    valid[0, 7] = False
    for start in range(0, 100, 30):
        part = slice(start, start + 30)
        ops.comoment_(state, draws[:, part].to(DEVICE), valid=valid[:, part].to(DEVICE), backend=backend)
    kept = draws[0, valid[0]]
    covariance = ops.comoment_covariance(state)[0].cpu()
    # float64 throughout: 100 draws of size 1 around an offset of 1e4
    torch.testing.assert_close(covariance, torch.cov(kept.T), rtol=0, atol=100 * 1e4 * 2.0**-52)
    correlation = ops.comoment_correlation(state, backend=backend)[0].cpu()
    want = torch.corrcoef(kept.T)
    want[5], want[:, 5] = 0.0, 0.0
    torch.testing.assert_close(correlation, want, rtol=0, atol=1e4 * 2.0**-50)
    values, indices = (t.cpu() for t in ops.rank_draws(kept.to(DEVICE), k=4, backend=backend))
    values = values.double()
    close = {"rtol": 0, "atol": 103 * HALF_ULP}  # (k + 3)·2⁻²⁴: ranks come from float32 products of standardised draws
    want.fill_diagonal_(0.0)  # nobody is its own neighbour
    rows = [row for row in range(37) if row != 5]
    largest = want[rows].abs().topk(4).values
    torch.testing.assert_close(values[rows].abs(), largest, **close)
    torch.testing.assert_close(want[rows].gather(1, indices[rows]), values[rows], **close)
