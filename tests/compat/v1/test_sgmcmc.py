"""SGMCMC of 1.3.2's face against the steps that devinterp 1.3.2 took."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from sltfast.compat.devinterp_v1.optim import SGMCMC
from sltfast.compat.devinterp_v1.optim.prior import CompositePrior, GaussianPrior, UniformPrior
from sltfast.compat.devinterp_v1.slt.norms import NoiseNorm
from sltfast.compat.devinterp_v1.slt.sampler import sample
from sltfast.compat.devinterp_v1.utils import evaluate_ce
from tests.compat.v1 import recorded, recorded_steps

RECORDED = json.loads(recorded_steps.FILE.read_text())


@pytest.mark.filterwarnings("ignore::sltfast.compat.defects.CompatWarning")
@pytest.mark.parametrize("case", recorded_steps.CASES)
def test_steps_are_theirs(case):
    found = recorded_steps.numbers("sltfast.compat.devinterp_v1", case)
    assert found.keys() == RECORDED[case].keys()
    for name, values in found.items():  # normal variates of another vector width may differ in their last bits
        np.testing.assert_allclose(values, RECORDED[case][name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_what_is_kept_is_forgotten_with_the_gradients():
    param = nn.Parameter(torch.ones(3))
    made = SGMCMC.sgld([param], nbeta=2.0, metrics=["noise_norm", "dws"])
    param.grad = torch.ones(3)
    made.step()
    assert made.noise_norm > 0
    assert len(made.dws) == 1
    made.zero_grad()
    assert made.noise_norm == 0
    assert made.dws == []
    assert param.grad is None


def test_what_is_not_known_is_refused():
    param = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="Invalid metrics"):
        SGMCMC([param], metrics=["speed"])
    with pytest.raises(AttributeError, match="speed"):
        SGMCMC([param]).speed
    with pytest.raises(ValueError, match="Mask shape"):
        SGMCMC([param], optimize_over=torch.ones(2))


def test_one_prior_alone_is_itself():
    one = GaussianPrior(2.0)
    assert CompositePrior([one, UniformPrior()]) is one
    assert one.key == "prior_center"
    assert isinstance(CompositePrior([]), UniformPrior)
    both = CompositePrior([GaussianPrior(1.0, center=None), GaussianPrior(3.0)])
    assert both.localization == 3.0  # what it does not have is the last one's


def test_chains_take_it_as_their_method():
    model, loader = recorded.problem()
    norms = NoiseNorm(2, 3)
    sample(
        model,
        loader,
        [norms],
        evaluate=evaluate_ce,
        sampling_method=SGMCMC.sgld,
        optimizer_kwargs={"lr": 1e-3, "nbeta": 3.0, "metrics": ["noise"]},
        num_chains=2,
        num_draws=3,
        num_burnin_steps=3,
        seed=1,
        verbose=False,
    )
    assert norms.get_results()["noise_norm/trace"].shape == (2, 3)
    assert (norms.get_results()["noise_norm/trace"] > 0).all()
