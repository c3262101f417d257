"""Refined λ̂ of a quadratic whose curvature the data decide, against the exact law of SGLD."""

import numpy as np
import torch
from potentials import Potential

import sltfast
from sltfast.theory import quadratic_llc_sgld

D, COPIES = 6, 60
CURVATURES = {"train": (0.0, 0.0, 0.5, 1.0, 2.0, 4.0), "code": (3.0, 1.0, 0.2, 0.0, 0.0, 0.1)}
PARTS = {"full": range(D), "front": range(3), "back": range(3, D)}
SETTINGS = {"n_beta": 40.0, "localization": 15.0, "lr": 4e-3}


def rows(h):
    return torch.tensor(h, dtype=torch.float64).repeat(4, 1)


def curved_by_its_rows(model, batch):
    """½ Σ h (w − w*)² with the row's own h, w* = 0.3: rows are alike, so mini-batches have no noise."""
    return 0.5 * (batch[:, None] * (model.w - 0.3) ** 2).sum((-2, -1))


def moving(part):
    mask = torch.zeros(COPIES, D, dtype=torch.bool)
    mask[:, list(part)] = True
    return {"w": mask}


def test_each_part_on_each_data_set_follows_its_own_law():
    model = Potential(torch.full((COPIES, D), 0.3, dtype=torch.float64), lambda w: w.sum())
    result = sltfast.refined_llc(
        model,
        {name: rows(h) for name, h in CURVATURES.items()},
        {name: None if name == "full" else moving(part) for name, part in PARTS.items()},
        loss_fn=curved_by_its_rows,
        **SETTINGS,
        batch_size=4,
        num_chains=3,
        num_draws=600,
        num_burnin_steps=200,  # 2/(ε γ) = 33 steps
        progress=False,
    )
    assert result["llc_mean"].dims == ("dataset", "wr")
    law = {"n_beta": SETTINGS["n_beta"], "localization": SETTINGS["localization"], "lr": SETTINGS["lr"]}
    for dataset, h in CURVATURES.items():
        for name, part in PARTS.items():
            expected = COPIES * quadratic_llc_sgld([h[i] for i in part], **law)
            cell = result.sel(dataset=dataset, wr=name)
            # 4 standard errors: six cells, each beyond it once in 16 000
            assert abs(float(cell["llc_mean"]) - expected) < 4 * float(cell["llc_se"])
            # Guard: the smallest cell has one soft direction; its error still tells it from its neighbours' values.
            assert 0 < float(cell["llc_se"]) < 0.03 * expected
            assert str(cell["verdict"].values) == "converged"
    other = result["llc_mean"].sel(dataset="code").values - result["llc_mean"].sel(dataset="train").values
    assert (np.abs(other) > 8 * result["llc_se"].values.max(axis=0)).all()
