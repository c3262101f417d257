"""Steps of devinterp 1.3.2's SGMCMC; written anew by

python tests/compat/v1/recorded_steps.py DIRECTORY      # where its wheel is unpacked
"""

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

FILE = Path(__file__).with_name("recorded_steps.json")
ALL = ["grad_norm", "weight_norm", "noise_norm", "distance", "localization_loss", "noise", "dws"]
CASES: dict[str, dict[str, Any]] = {
    "sgld": {"method": "sgld", "localization": 3.0, "metrics": ALL},
    "sgld decayed": {"method": "sgld", "localization": 3.0, "weight_decay": 0.4, "metrics": ALL},
    "sgld free": {"method": "sgld", "bounding_box_size": 0.05},
    "rmsprop": {"method": "rmsprop_sgld", "localization": 2.0, "weight_decay": 0.1, "metrics": ["noise_norm", "dws"]},
    "sgnht": {"method": "sgnht", "bounding_box_size": 0.1},
    "masked": {"method": "sgld", "localization": 3.0, "masked": True, "metrics": ["noise", "grad_norm"]},
    "plain": {"method": None, "prior": "initial", "localization": 2.0, "weight_decay": 0.3, "metrics": ["distance"]},
}


def numbers(package: str, case: str) -> dict[str, list[float]]:
    """Weights after five steps, what is kept of the last, and what the generator gives next."""
    settings = dict(CASES[case])
    method, masked = settings.pop("method"), settings.pop("masked", False)
    optimiser = import_module(f"{package}.optim.sgmcmc").SGMCMC
    generator = torch.Generator().manual_seed(2)
    params = [nn.Parameter(torch.randn(size, generator=generator)) for size in ((3, 2), (4,))]
    if masked:
        settings["optimize_over"] = [torch.rand(p.shape, generator=generator) > 0.5 for p in params]
    with torch.random.fork_rng():
        torch.manual_seed(4)
        made = (getattr(optimiser, method) if method else optimiser)(params, lr=0.01, nbeta=6.0, **settings)
        for _ in range(5):
            made.zero_grad()
            for param in params:
                param.grad = torch.randn(param.shape, generator=generator)
            made.step()
        found = {f"w{place}": param for place, param in enumerate(params)} | {"next": torch.randn(2)}
    for name, value in made.metrics.items():
        found |= {f"{name} {n}": one for n, one in enumerate(value if isinstance(value, list) else [value])}
    return {name: value.detach().double().flatten().tolist() for name, value in found.items()}


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    warnings.simplefilter("ignore")
    FILE.write_text(json.dumps({case: numbers("devinterp", case) for case in CASES}, indent=1) + "\n")
