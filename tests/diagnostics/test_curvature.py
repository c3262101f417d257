"""The Hessian's spectrum and the biases told from it, against dense Hessians and closed forms."""

import math

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows

from sltfast.diagnostics import curvature, predicted_bias
from sltfast.diagnostics.lanczos import lanczos
from sltfast.theory import quadratic_llc, quadratic_llc_sgld, sgld_stability_limit

QUIET = {"progress": False}
H = (0.0, 0.01, 0.1, 1.0, 5.0)


def quadratic(h, dtype=torch.float64):
    return Quadratic(torch.tensor(h, dtype=dtype), dtype=dtype)


def of_quadratic(h, **settings):
    return curvature(quadratic(h), ONES, loss_fn=quadratic_loss, batch_size=8, **{**QUIET, **settings})


def dense_hessian(model, loss):
    """∇²L of a scalar function of the model, [d, d] float64, coordinate by coordinate."""
    parameters = list(model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        gradient = torch.autograd.grad(loss(model), parameters, create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in gradient])
        rows = [
            torch.cat(
                [
                    g.reshape(-1)
                    for g in torch.autograd.grad(
                        flat[k], parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                    )
                ]
            )
            for k in range(len(flat))
        ]
    return torch.stack(rows).double().numpy()


@pytest.mark.parametrize("products", ["auto", "double_backward", "finite_differences"])
def test_a_diagonal_quadratic_is_exact(products):
    """Signs see a diagonal matrix's trace without error, and five distinct eigenvalues are five nodes."""
    found = of_quadratic(H * 7, products=products, num_probes=2, num_steps=8)
    # differences of a linear function err by rounding alone: u^{2/3} = 4e-11 of the largest eigenvalue
    for probe in range(2):
        kept = found["weights"].values[probe] > 0
        assert kept.sum() == 5
        np.testing.assert_allclose(found["nodes"].values[probe, kept], H, atol=1e-8)
        np.testing.assert_allclose(found["weights"].values[probe, kept], 0.2, rtol=1e-7)
    assert float(found["trace"]) == pytest.approx(7 * sum(H), rel=1e-8)
    assert float(found["frobenius"]) == pytest.approx((7 * sum(h * h for h in H)) ** 0.5, rel=1e-8)
    assert float(found["largest"]) == pytest.approx(5.0, rel=1e-8)
    assert float(found["largest_residual"]) < 1e-6
    assert float(found["trace_se"]) < 1e-6
    assert found.attrs["numel"] == 35
    assert found.attrs["products"] == ("double_backward" if products == "auto" else products)


def test_predictions_on_a_quadratic_are_the_closed_forms():
    spectrum = of_quadratic(H * 7, num_steps=8)
    settings = {"n_beta": 100.0, "localization": 10.0}
    told = predicted_bias(spectrum, lr=2e-3, **settings)
    continuum, stepped = quadratic_llc(H * 7, **settings), quadratic_llc_sgld(H * 7, **settings, lr=2e-3)
    assert float(told["llc_continuum"]) == pytest.approx(continuum, rel=1e-8)
    assert float(told["llc"]) == pytest.approx(stepped, rel=1e-8)
    assert float(told["discretization_bias"]) == pytest.approx(stepped - continuum, rel=1e-7)
    assert float(told["llc_unlocalized"]) == pytest.approx(7 * 4 / 2)  # half the rank
    assert float(told["localization_bias"]) == pytest.approx(continuum - 14, rel=1e-8)
    assert float(told["stability_limit"]) == pytest.approx(sgld_stability_limit(H * 7, **settings), rel=1e-5)
    best = float(told["recommended_lr"])
    assert quadratic_llc_sgld(H * 7, **settings, lr=best) == pytest.approx(1.05 * continuum, rel=1e-6)
    assert (float(told["runaway"]), float(told["least_localization"])) == (0.0, 0.0)
    assert f"lower lr to {best:.2g}" in told.attrs["advice"]
    assert predicted_bias(spectrum, lr=best / 2, **settings).attrs["advice"] == "the step is small enough"
    wild = predicted_bias(spectrum, lr=0.1, **settings)
    assert math.isnan(float(wild["llc"]))
    assert "blows up" in wild.attrs["advice"]
    assert float(predicted_bias(spectrum, lr=2e-3, n_beta=0.0, localization=1.0)["llc"]) == 0.0
    decayed = predicted_bias(spectrum, lr=2e-3, n_beta=100.0, localization=6.0, llc_weight_decay=4.0)
    assert float(decayed["llc"]) == pytest.approx(stepped, rel=1e-8)


def test_negative_curvature_is_told_and_left_out():
    h = (-0.5, -0.05, 1.0, 2.0)
    spectrum = of_quadratic(h * 3, num_steps=8)
    assert float(spectrum["smallest"]) == pytest.approx(-0.5, rel=1e-8)
    assert float(spectrum["negative_trace"]) == pytest.approx(3 * -0.55, rel=1e-8)
    held = predicted_bias(spectrum, lr=1e-3, n_beta=10.0, localization=6.0)
    expected = 3 * 0.5 * sum(10 * x / (10 * x + 6) for x in h)
    assert float(held["llc_continuum"]) == pytest.approx(expected, rel=1e-8)
    assert float(held["runaway"]) == 0.0
    loose = predicted_bias(spectrum, lr=1e-3, n_beta=10.0, localization=2.0)
    assert float(loose["runaway"]) == pytest.approx(3.0, rel=1e-8)
    assert float(loose["least_localization"]) == pytest.approx(5.0, rel=1e-8)
    expected = 3 * 0.5 * sum(10 * x / (10 * x + 2) for x in h[1:])
    assert float(loose["llc_continuum"]) == pytest.approx(expected, rel=1e-8)
    assert "raise it above 5" in loose.attrs["advice"]


@pytest.mark.parametrize("products", ["double_backward", "finite_differences"])
def test_a_small_network_is_its_dense_hessian(products):
    data = tuple(part.double() for part in regression_data())
    exact = np.linalg.eigvalsh(dense_hessian(Mlp().double(), lambda m: regression_loss(m, data).mean()))
    # 26 coordinates: 26 steps see every eigenvalue
    found = curvature(
        Mlp().double(), data, loss_fn=regression_loss, num_probes=12, num_steps=26, batch_size=16, products=products,
        **QUIET,
    )  # fmt: skip
    assert float(found["largest"]) == pytest.approx(exact[-1], rel=1e-6)
    assert float(found["smallest"]) == pytest.approx(exact[0], abs=1e-6 * exact[-1])
    # unbiased over signs: within 4 of its standard errors, which 12 probes tell to 20 %
    for name, value in (("trace", exact.sum()), ("negative_trace", exact[exact < 0].sum())):
        assert abs(float(found[name]) - value) < 4 * float(found[f"{name}_se"])
        assert float(found[f"{name}_se"]) < 0.2 * np.abs(exact).sum()
    told = predicted_bias(found, lr=1e-4, n_beta=10.0, localization=15.0)
    a = 10 * exact + 15
    assert (a > 0).all()
    expected = 0.5 * (10 * exact / a).sum()
    assert abs(float(told["llc_continuum"]) - expected) < 4 * float(told["llc_continuum_se"])
    assert float(told["stability_limit"]) == pytest.approx(4 / a[-1], rel=1e-5)


@pytest.mark.parametrize("products", ["auto", "finite_differences"])
def test_a_small_transformer_is_its_dense_hessian(products):
    model, ids = tiny_neox().double(), token_rows(rows=6, tokens=5)
    parts = ["gpt_neox.final_layer_norm.weight", "gpt_neox.layers.1.attention.query_key_value.bias"]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in parts)

    def loss(m):
        logits = m(ids).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.reshape(-1, 32), ids[:, 1:].reshape(-1))

    moving = torch.nn.ParameterList([p for p in model.parameters() if p.requires_grad])
    exact = np.linalg.eigvalsh(dense_hessian(moving, lambda _: loss(model)))
    found = curvature(
        model, ids, param_masks=parts, num_probes=4, num_steps=40, batch_size=4, products=products, **QUIET
    )
    assert found.attrs["numel"] == len(exact)
    assert found.attrs["products"] == ("double_backward" if products == "auto" else products)
    assert float(found["largest"]) == pytest.approx(exact[-1], rel=1e-5)
    assert abs(float(found["smallest"]) - exact[0]) < 1e-4 * exact[-1]
    assert abs(float(found["trace"]) - exact.sum()) < 4 * float(found["trace_se"])


def test_only_what_moves_is_seen():
    mask = torch.zeros(6, dtype=torch.bool)
    mask[[0, 3]] = True
    model = quadratic([1.0, 9.0, 9.0, 4.0, 9.0, 9.0])
    found = curvature(model, ONES, loss_fn=quadratic_loss, param_masks={"w": mask}, **QUIET)
    assert found.attrs["numel"] == 2
    assert float(found["trace"]) == pytest.approx(5.0, rel=1e-8)
    assert float(found["largest"]) == pytest.approx(4.0, rel=1e-8)


class Constant(torch.autograd.Function):
    """½·w² whose gradient counts as a constant: a second derivative that is silently 0."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return 0.5 * w**2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].detach()


class Once(torch.autograd.Function):
    """The identity, which can be differentiated once."""

    @staticmethod
    def forward(ctx, w):
        return w.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient.clone()


def test_second_derivatives_that_are_missing_or_wrong_are_found():
    class Wrong(Quadratic):
        def forward(self):
            return (self.curvature * Constant.apply(self.w)).sum() + 0.01 * (self.w**3).sum()

    class Missing(Quadratic):
        def forward(self):
            return 0.5 * (self.curvature * Once.apply(self.w) ** 2).sum()

    for kind, why in ((Wrong, "away from differences"), (Missing, "second derivative")):
        model = kind(torch.tensor([1.0, 2.0], dtype=torch.float64), dtype=torch.float64)
        found = curvature(model, ONES, loss_fn=quadratic_loss, **QUIET)
        assert found.attrs["products"] == "finite_differences"
        assert why in found.attrs["products_because"]
        assert float(found["trace"]) == pytest.approx(3.0, rel=1e-6)
    with pytest.raises(RuntimeError, match="no second derivative"):
        curvature(model, ONES, loss_fn=quadratic_loss, products="double_backward", **QUIET)


def test_single_precision_and_less():
    data = regression_data()
    exact = curvature(Mlp().double(), tuple(p.double() for p in data), loss_fn=regression_loss, num_steps=26, **QUIET)
    for products in ("double_backward", "finite_differences"):
        found = curvature(Mlp(), data, loss_fn=regression_loss, num_steps=26, products=products, **QUIET)
        # float32's differences: u^{2/3} = 2.4e-5 of third derivatives and gradients
        assert float(found["largest"]) == pytest.approx(float(exact["largest"]), rel=1e-3)
        assert float(found["trace"]) == pytest.approx(float(exact["trace"]), rel=1e-3)
    ids = token_rows()
    model = tiny_neox()
    model.gpt_neox.embed_in.weight.requires_grad_(False)
    settings = {"num_probes": 1, "num_steps": 4, "num_items": 8, **QUIET}
    whole, low = curvature(model, ids, **settings), curvature(model.bfloat16(), ids, **settings)
    assert low.attrs["numel"] == whole.attrs["numel"]
    # weights rounded to 8 bits
    assert float(low["largest"]) == pytest.approx(float(whole["largest"]), rel=0.1)


def test_a_basis_that_is_not_kept_finds_the_same_spectrum(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(60, 60, generator=generator, dtype=torch.float64)
    matrix = matrix @ matrix.T
    start = torch.ones(60, dtype=torch.float64)
    kept = lanczos(lambda v: matrix @ v, start, 20)
    monkeypatch.setattr("sltfast.diagnostics.lanczos.KEPT_BYTES", 0)
    loose = lanczos(lambda v: matrix @ v, start, 20)
    for power in (1, 2, 3):
        moment = float(start @ torch.linalg.matrix_power(matrix, power) @ start / 60)
        for found in (kept, loose):
            assert (found.weights * found.nodes**power).sum() == pytest.approx(moment, rel=1e-9)
    assert loose.nodes[-1] == pytest.approx(kept.nodes[-1], rel=1e-6)
    largest = float(torch.linalg.eigvalsh(matrix)[-1])
    assert abs(kept.nodes[-1] - largest) <= kept.residuals[-1] + 1e-9


def test_a_loss_without_curvature():
    found = curvature(quadratic([0.0, 0.0]), ONES, loss_fn=quadratic_loss, num_probes=2, **QUIET)
    assert (float(found["trace"]), float(found["largest"])) == (0.0, 0.0)
    told = predicted_bias(found, lr=0.1, n_beta=10.0)
    assert (float(told["llc"]), float(told["stability_limit"])) == (0.0, math.inf)


def test_the_model_is_left_alone_and_bad_settings_are_refused():
    model = Mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for products in ("double_backward", "finite_differences"):
        curvature(model, regression_data(), loss_fn=regression_loss, num_steps=3, products=products, **QUIET)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())
    for wrong, says in (
        ({"num_probes": 0}, "num_probes must be a whole number >= 1, got 0"),
        ({"num_items": 2.5}, "num_items must be a whole number"),
        ({"products": "exact"}, "products must be one of auto, double_backward"),
    ):
        with pytest.raises(ValueError, match=says):
            curvature(model, regression_data(), loss_fn=regression_loss, **wrong, **QUIET)
    spectrum = of_quadratic(H)
    with pytest.raises(ValueError, match="lr must be finite and > 0"):
        predicted_bias(spectrum, lr=0.0, n_beta=1.0)
    with pytest.raises(ValueError, match="spectrum must be what"):
        predicted_bias(spectrum[["nodes"]], lr=1.0, n_beta=1.0)
