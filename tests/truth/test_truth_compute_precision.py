"""How much of λ̂ the precision of the model's products can move."""

import numpy as np
import pytest
import torch

import sltfast
from sltfast.theory import quadratic_llc_sgld

UNIT = {"tf32": 2.0**-11, "bf16": 2.0**-9}  # half a spacing: the relative error of one rounding


def squares(model, batch):
    x, y = batch
    return (model(x).float() - y).square().sum(-1) / 2


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_regression_moves_by_no_more_than_its_roundings(precision):
    """Around w* = 0 every rounding is relative: of x, of w, of x·w (bf16 only) in a residual, of x and of the residual
    in a gradient. A gradient is then off by a factor 1 ± 5u and a loss by 1 ± 2·3u; the posterior's variance follows
    the first and λ̂ = nβ·E[L] both: |Δλ̂| ≤ 11u·λ̂ at worst, with the chains' noise the same on both sides.
    """
    columns, outputs, rows = 24, 6, 512
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Linear(columns, outputs, bias=False)
    torch.nn.init.zeros_(model.weight)
    settings = {"lr": 1e-3, "n_beta": 50.0, "localization": 10.0}
    data = (x, torch.zeros(rows, outputs))

    def run(precision):
        return sltfast.llc(
            model, data, loss_fn=squares, batch_size=rows, num_chains=4, num_burnin_steps=200, num_draws=400,
            precision=precision, progress=False, **settings,
        )  # fmt: skip

    full, low = run("fp32"), run(precision)
    h = torch.linalg.eigvalsh((x.t() @ x / rows).double()).repeat(outputs)
    expected = quadratic_llc_sgld(h.tolist(), settings["n_beta"], lr=1e-3, localization=10.0)
    assert abs(float(full["llc_mean"]) - expected) < 4 * float(full["llc_se"])
    apart = float(low["llc_mean"]) - float(full["llc_mean"])
    assert apart != 0.0
    assert abs(apart) < 11 * UNIT[precision] * expected
    # and no common sign that grows along the chain: the last quarter is not further off than the whole bound
    quarter = np.asarray(low["excess_trace"] - full["excess_trace"])[:, -100:].mean() * settings["n_beta"]
    assert abs(quarter) < 11 * UNIT[precision] * expected


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_language_models_estimate_moves_by_less_than_its_error_bar(precision):
    from models import tiny_neox, token_rows

    settings = {
        "lr": 1e-3, "n_beta": 30.0, "localization": 100.0, "num_chains": 3, "num_draws": 60, "num_burnin_steps": 20,
        "batch_size": 8, "progress": False,
    }  # fmt: skip
    full, low = (sltfast.llc(tiny_neox(), token_rows(), precision=p, **settings) for p in ("fp32", precision))
    assert abs(float(low["llc_mean"] - full["llc_mean"])) < float(full["llc_se"])
