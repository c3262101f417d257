"""Trees of samples made of given losses, as ``sltfast.sample`` and devinterp would have recorded them."""

import numpy as np
import xarray as xr


def native_tree(losses, at_init, alive=None, dtype=np.float32):
    """A tree with losses [C, D, B, T] by observable and [B, T] at w*; NaN where nothing is read.

    Means are those of the losses as given, in float64; the traces have ``dtype``.
    """
    variables = {}
    for name, values in losses.items():
        batch = f"batch_{name}"
        variables[f"loss_{name}"] = (("chain", "draw", batch, "token_pos"), values.astype(dtype))
        variables[f"mean_loss_{name}"] = (("chain", "draw"), mean_of(values))
        variables[f"init_loss_{name}"] = ((batch, "token_pos"), at_init[name])
        variables[f"init_mean_loss_{name}"] = ((), np.nanmean(at_init[name]))
    chains = len(next(iter(losses.values())))
    variables["alive"] = ("chain", np.ones(chains, bool) if alive is None else np.asarray(alive))
    variables["init_loss"] = (
        ("chain", "token_pos"),
        np.full((chains, next(iter(at_init.values())).shape[1]), 1.5, np.float32),
    )
    return xr.DataTree(xr.Dataset(variables, attrs={"completed": 1}))


def devinterp_tree(tree, dtype=np.float64):
    """What devinterp has of a tree: losses, ids and ``init_loss``, cast to one precision."""
    theirs = [
        name for name in tree.dataset.data_vars if name.startswith(("loss_", "input_ids_")) or name == "init_loss"
    ]
    kept = tree.dataset[theirs]
    floats = {name: kept[name].astype(dtype) for name in theirs if kept[name].dtype.kind == "f"}
    return xr.DataTree(kept.assign(floats))


def mean_of(values):
    """[C, D] means over items, NaN where none is there."""
    present = ~np.isnan(values)
    counts = present.sum((2, 3))
    return np.where(counts > 0, np.where(present, values, 0).sum((2, 3)), np.nan) / np.maximum(counts, 1)


def drawn_losses(seed=0, chains=3, draws=24, sizes=None):
    """Losses around levels of 3, with a common part that makes them covary."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((chains, draws, 1, 1))
    levels = np.random.default_rng(9)  # w* is the same in every run
    losses, at_init = {}, {}
    for name, (rows, width) in (sizes or {"task": (4, 5), "other": (3, 5), "third": (2, 5)}).items():
        at_init[name] = 3 + levels.standard_normal((rows, width))
        slope = levels.standard_normal((rows, width))
        noise = 0.1 * rng.standard_normal((chains, draws, rows, width))
        losses[name] = at_init[name] + 0.1 + 0.2 * slope * common + noise
    return losses, at_init
