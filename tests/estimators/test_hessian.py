"""Products with the Hessian are those of the whole matrix, by either method, and touch nothing of the caller's."""

import copy

import numpy as np
import pytest
import torch
from models import Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows
from torch.func import functional_call

from sltfast.data import as_source
from sltfast.hessian import hessian_of

DATA = tuple(part.double() for part in regression_data(10))
SMALL = tuple(part[:7] for part in DATA)


def whole(model, data, loss=regression_loss):
    """[d, d] by autograd, of the mean loss as a function of the flat weights."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for _, p in model.named_parameters()]
    sizes = [shape.numel() for shape in shapes]

    def mean_loss(flat):
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]

        class Called(torch.nn.Module):
            def forward(self, x):
                return functional_call(model, dict(zip(names, parts, strict=True)), (x,))

        return loss(Called(), data).mean()

    start = torch.cat([p.detach().flatten() for _, p in model.named_parameters()])
    return torch.autograd.functional.hessian(mean_loss, start)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_both_methods_give_the_whole_matrix(batch_size):
    model = Mlp().double()
    expected = whole(model, DATA)
    with hessian_of(model, as_source(DATA), loss_fn=regression_loss, batch_size=batch_size) as hessian:
        # a few hundred float64 operations an entry
        torch.testing.assert_close(hessian.dense(rows=5), expected, rtol=1e-11, atol=1e-12)
        assert hessian.method == "double_backward"
    with hessian_of(
        model, as_source(DATA), loss_fn=regression_loss, batch_size=batch_size, products="finite_differences"
    ) as hessian:
        # third derivatives of order 10 at h = ε^⅓·|w*| = 1e-5: h²·10 = 1e-9, and rounding ε/h = 1e-11
        torch.testing.assert_close(hessian.dense(), expected, rtol=0, atol=1e-8)


def test_masks_take_rows_and_columns_of_it():
    model = Mlp().double()
    mask = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    every = whole(model, SMALL)
    first = torch.cat([mask.flatten(), torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)])
    kept = torch.cat([first, torch.zeros(1, dtype=torch.bool)])
    masks = {"first.weight": mask, "second.weight": None}
    with hessian_of(model, as_source(SMALL), loss_fn=regression_loss, param_masks=masks) as hessian:
        assert hessian.numel == int(kept.sum())
        torch.testing.assert_close(hessian.dense(), every[kept][:, kept], rtol=1e-11, atol=1e-12)
        vector = torch.arange(hessian.numel, dtype=torch.float64)
        assert torch.equal(hessian.flat(hessian.by_name(vector)), vector)


def test_a_quadratic_has_its_curvatures():
    curvature = torch.tensor([0.0, 0.3, 4.0], dtype=torch.float64)
    model = Quadratic(curvature, dtype=torch.float64)
    with hessian_of(model, as_source(torch.zeros(5, 1)), loss_fn=quadratic_loss) as hessian:
        torch.testing.assert_close(hessian.dense(), torch.diag(curvature), rtol=1e-14, atol=0)
        assert float(hessian.gradient().abs().max()) == 0


def test_a_loss_linear_in_the_weights_has_none():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(3))

    def linear(model, batch):
        return batch @ model.w

    with hessian_of(Sum(), as_source(torch.randn(4, 3)), loss_fn=linear) as hessian:
        assert float(hessian.dense().abs().max()) == 0


def test_items_count_by_their_weights():
    weights = torch.tensor([0.0, 2.0, 1.0, 0.0, 3.0, 1.0, 1.0], dtype=torch.float64)

    def weighted(model, batch):
        x, y, a = batch
        return (model(x) - y) ** 2, a

    model = Mlp().double()
    repeated = tuple(part.repeat_interleave(weights.long(), 0) for part in SMALL)
    with hessian_of(model, as_source((*SMALL, weights)), loss_fn=weighted, batch_size=2) as hessian:
        torch.testing.assert_close(hessian.dense(), whole(model, repeated), rtol=1e-11, atol=1e-12)
    with (
        pytest.raises(ValueError, match="no item counts"),
        hessian_of(model, as_source((*SMALL, torch.zeros(7, dtype=torch.float64))), loss_fn=weighted),
    ):
        pass


class Once(torch.autograd.Function):
    """tanh with a backward pass that cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(torch.tanh(x))
        return torch.tanh(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient * (1 - ctx.saved_tensors[0] ** 2)


def test_parts_without_a_second_derivative_are_differenced():
    class Opaque(Mlp):
        def forward(self, x):
            return self.second(Once.apply(self.first(x))).squeeze(-1)

    model = Opaque().double()
    with hessian_of(model, as_source(SMALL), loss_fn=regression_loss) as hessian:
        torch.testing.assert_close(hessian.dense(), whole(Mlp().double(), SMALL), rtol=0, atol=1e-8)
        assert hessian.method == "finite_differences"
        assert "away from differences of gradients" in hessian.because


class Refusal(torch.autograd.Function):
    """x whose backward pass raises when it is differentiated."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if torch.is_grad_enabled():
            raise RuntimeError("no second derivative of Refusal")
        return gradient


def test_functions_that_refuse_a_second_derivative_are_differenced():
    class Refusing(Mlp):
        def forward(self, x):
            return self.second(torch.tanh(Refusal.apply(self.first(x)))).squeeze(-1)

    model = Refusing().double()
    with hessian_of(model, as_source(SMALL), loss_fn=regression_loss) as hessian:
        torch.testing.assert_close(hessian.dense(), whole(Mlp().double(), SMALL), rtol=0, atol=1e-8)
        assert hessian.because == "no second derivative of Refusal"
    with (
        pytest.raises(RuntimeError, match="no second derivative"),
        hessian_of(model, as_source(SMALL), loss_fn=regression_loss, products="double_backward") as hessian,
    ):
        hessian.product(torch.ones(1, hessian.numel))


def test_a_language_model_through_its_fused_attention():
    model, ids = tiny_neox().double(), token_rows(6)
    vectors = torch.randn(2, sum(p.numel() for p in model.parameters()), generator=torch.Generator().manual_seed(0))
    vectors = vectors.double()
    with hessian_of(model, as_source(ids), batch_size=4) as hessian:
        exact = hessian.product(vectors)
        assert hessian.method == "double_backward"
    with hessian_of(model, as_source(ids), batch_size=4, products="finite_differences") as hessian:
        # |w*| ≈ 10, |v| ≈ 80: h = 6e-5 along the unit vector; h²·third derivatives, relative to |Hv|
        apart = (hessian.product(vectors) - exact).norm() / exact.norm()
    assert float(apart) < 1e-6
    first, second = (float(a @ b) for a, b in ((vectors[0], exact[1]), (vectors[1], exact[0])))
    assert np.isclose(first, second, rtol=1e-9)  # H is symmetric


@pytest.mark.parametrize("products", ["double_backward", "finite_differences"])
def test_the_model_stays(products):
    model = Mlp(dropout=0.5).train()
    before, memory = copy.deepcopy(model.state_dict()), [p.data_ptr() for p in model.parameters()]
    state = torch.get_rng_state()
    with hessian_of(model, as_source(regression_data(8)), loss_fn=regression_loss, products=products) as hessian:
        hessian.dense()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.data_ptr() for p in model.parameters()] == memory
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"products": "exact"}, "products must be one of auto, double_backward, finite_differences"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
    ],
)
def test_bad_arguments(change, message):
    with (
        pytest.raises(ValueError, match=message),
        hessian_of(Mlp(), as_source(regression_data(4)), loss_fn=regression_loss, **change),
    ):
        pass


def test_half_precision_is_refused():
    with (
        pytest.raises(ValueError, match=r"pass model.float\(\)"),
        hessian_of(Mlp().bfloat16(), as_source(regression_data(4)), loss_fn=regression_loss),
    ):
        pass
