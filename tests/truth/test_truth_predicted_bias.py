"""λ̂ told from the Hessian's spectrum against λ̂ of chains, on a network at a minimum of its loss."""

import torch
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.diagnostics import curvature, predicted_bias


def test_chains_of_a_network_find_the_llc_that_its_curvature_tells():
    model = Mlp().double()
    x = regression_data()[0].double()
    with torch.no_grad():
        data = x, model(x)  # the loss is 0 at w*, and its Hessian positive
    # nβ so large that the posterior is narrow: anharmonic terms are of order d/nβ = 3e-4 of λ̂
    settings = {"n_beta": 1e5, "localization": 2e4, "lr": 7e-6}
    spectrum = curvature(
        model, data, loss_fn=regression_loss, num_probes=60, num_steps=26, batch_size=40, progress=False
    )
    told = predicted_bias(spectrum, **settings)
    # one batch is the whole data set, so that only γ and ε move λ̂; 2/(ε γ) = 14 steps forget the start
    result = sltfast.llc(
        model, data, loss_fn=regression_loss, **settings, batch_size=40, num_chains=3, num_draws=600,
        num_burnin_steps=200, progress=False,
    )  # fmt: skip
    error = (float(result["llc_se"]) ** 2 + float(told["llc_se"]) ** 2) ** 0.5
    assert abs(float(result["llc_mean"]) - float(told["llc"])) < 4 * error
    # both biases are seen: without either, the prediction is far off
    assert float(told["discretization_bias"]) > 4 * error
    assert float(told["localization_bias"]) < -8 * error
