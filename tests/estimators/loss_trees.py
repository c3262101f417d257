"""Trees of recorded losses, made on the spot."""

import numpy as np
import xarray as xr


def loss_tree(observables, *, chains=3, draws=40, positions=5, seed=0, dtype="float32", **attrs):
    """Correlated losses with a level of their own in each chain; `observables`: {name: rows}."""
    random = np.random.default_rng(seed)
    variables = {}
    common = random.normal(size=(chains, draws, 1, 1)) + random.normal(size=(chains, 1, 1, 1))
    for name, rows in observables.items():
        weights = random.normal(size=(rows, positions))
        losses = 3 + common * weights + random.normal(size=(chains, draws, rows, positions))
        variables[f"loss_{name}"] = (("chain", "draw", f"batch_{name}", "token_pos"), losses.astype(dtype))
        ids = random.integers(0, 50, size=(rows, positions + 1))
        variables[f"input_ids_{name}"] = ((f"batch_{name}", "token"), ids)
    return xr.DataTree(xr.Dataset(variables, attrs=attrs))


def pooled(tree, name):
    """Losses [chain·draw, rows, positions] in float64."""
    losses = tree[f"loss_{name}"].values.astype(np.float64)
    return losses.reshape(-1, *losses.shape[2:])
