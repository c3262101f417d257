"""Runs whose numbers devinterp 1.3.2 gave; written anew by

python tests/compat/v1/recorded.py DIRECTORY      # where its wheel is unpacked
"""

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

FILE = Path(__file__).with_name("recorded.json")
CASES = ("callbacks", "masked", "online", "listed_seeds", "thermostat", "gradients")
SIZES = {"num_chains": 3, "num_draws": 5, "num_burnin_steps": 3, "num_steps_bw_draws": 2, "verbose": False}


def problem() -> tuple[nn.Module, DataLoader[Any]]:
    """A classifier of three weights a class and fifty points, shuffled, with a last batch of two."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x, y = torch.randn(50, 3, generator=generator), torch.randint(2, (50,), generator=generator)
    return model, DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)


def numbers(package: str, case: str, **keywords: Any) -> dict[str, list[float]]:
    """A case's results by name, flat."""
    sampler, utils, mala, norms = (
        import_module(f"{package}.{name}") for name in ("slt.sampler", "utils", "slt.mala", "slt.norms")
    )
    model, loader = problem()
    optimizer = {"lr": 1e-3, "localization": 10.0, "nbeta": 3.0}
    callbacks: list[Any] = []
    given: dict[str, Any] = {"seed": 7, **SIZES, **keywords}
    if case == "callbacks":
        callbacks = [mala.MalaAcceptanceRate(3, 5, 1e-3, nbeta=3.0)]
        callbacks += [kind(3, 5) for kind in (norms.WeightNorm, norms.GradientNorm, norms.NoiseNorm)]
        given["grad_accum_steps"] = 2
    if case == "masked":
        optimizer |= {"bounding_box_size": 0.02, "weight_decay": 5.0, "lr": 1e-2}
        given["optimize_over_per_model_param"] = {
            name: torch.arange(p.numel()).reshape(p.shape) % 2 == 0 for name, p in model.named_parameters()
        }
    if case == "online":
        given["online"] = True
    if case == "listed_seeds":
        given["seed"], given["init_loss"] = [11, 5, 8], 0.69
    if case == "thermostat":
        given["sampling_method"] = import_module(f"{package}.optim.sgnht").SGNHT
        optimizer = {"lr": 1e-3, "nbeta": 3.0, "bounding_box_size": 0.05}
    if case == "gradients":
        callbacks = [import_module(f"{package}.slt.gradient").GradientDistribution(3, 5, min_bins=6)]
    torch.manual_seed(5)
    results = sampler.estimate_learning_coeff_with_summary(
        model, loader, callbacks=callbacks, evaluate=utils.evaluate_ce, optimizer_kwargs=optimizer, **given
    )
    results.update(results.pop("gradient/distributions", {}))
    return {name: np.asarray(value, dtype=np.float64).ravel().tolist() for name, value in results.items()}


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    warnings.simplefilter("ignore")
    found = {case: numbers("devinterp", case) for case in CASES}
    FILE.write_text(json.dumps(found, indent=1) + "\n")
