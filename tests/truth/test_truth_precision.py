"""λ̂ does not depend on the precision the model is stored in."""

import pytest
import torch
from potentials import Quadratic, potential_llc

from sltfast.theory import quadratic_llc_sgld


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_weights_give_the_right_answer(dtype):
    # At w* = 1 the drift of a step, ½ ε nβ δ ~ 3e-4, is a tenth of the spacing of bf16: a chain that rounds the drift
    # and then the noise into bf16 weights only diffuses, and λ̂ grows to several times the right 0.5004 a coordinate.
    d, settings = 4000, {"lr": 1e-4, "n_beta": 30.0}
    result = potential_llc(
        Quadratic(torch.ones(d), 1.0, dtype),
        **settings,
        init_noise=30.0**-0.5,  # the stationary spread, to 4e-4; δ² relaxes the rest in 1/(ε nβ) = 333 steps
        num_chains=2,
        num_draws=3000,
        num_burnin_steps=300,
    )
    expected = d * quadratic_llc_sgld([1.0], settings["n_beta"], lr=settings["lr"])
    # The copy that the model reads is rounded: Var grows by ulp²/12 ≤ 5e-6 (bf16 at 1 … 2) on 1/30, i.e. 1.5e-4.
    slack = 1.5e-4 * expected
    error = float(result["llc_se"])
    assert abs(float(result["llc_mean"]) - expected) < 4 * error + slack
    assert error < 0.015 * expected


def test_float64_weights_are_sampled_in_float64():
    # The spread 1/√(nβ) = 1e-7 is one spacing of fp32 at w* = 1: weights, anchors or losses held in fp32 anywhere would
    # be off by their own size.
    d, settings = 1000, {"lr": 2e-16, "n_beta": 1e14, "localization": 1e13}
    result = potential_llc(
        Quadratic(torch.ones(d), 1.0, torch.float64), **settings, num_chains=2, num_draws=1000, num_burnin_steps=600
    )  # δ² relaxes in 1/(ε a) = 45 steps
    expected = d * quadratic_llc_sgld([1.0], **settings)
    error = float(result["llc_se"])
    assert abs(float(result["llc_mean"]) - expected) < 4 * error
    assert error < 0.015 * expected


def test_float64_and_float32_walk_the_same_path():
    # The same counters draw the same normals, to the 2e-6 by which the two precisions' normals may differ; rounding
    # adds 2⁻²⁴ |w|/σ_w ~ 3e-7 a step over ~100 steps of memory. Losses then agree to 1e-4 relative; ten times that
    # leaves room for the small losses of the first steps.
    settings = {
        "lr": 1e-3, "n_beta": 30.0, "localization": 5.0, "num_chains": 2, "num_draws": 100, "num_burnin_steps": 0
    }  # fmt: skip
    h = torch.linspace(0.1, 2, 200)
    single = potential_llc(Quadratic(h, 0.5, torch.float32), **settings)
    double = potential_llc(Quadratic(h, 0.5, torch.float64), **settings)
    torch.testing.assert_close(
        torch.tensor(single["excess_trace"].values), torch.tensor(double["excess_trace"].values), rtol=1e-3, atol=1e-6
    )
