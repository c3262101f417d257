"""Trees of susceptibilities as estimators leave them, made on the spot."""

import numpy as np
import xarray as xr


class Letters:
    """A tokenizer of 26 letters."""

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)


def flat(sizes, dims, name, first):
    """Coordinates of data sets of different sizes, one after another, as devinterp flattens them."""
    grids = [np.meshgrid(np.arange(b), np.arange(first, t + first), indexing="ij") for b, t in sizes]
    coords = {"dataset_id": np.concatenate([np.full(b * t, k) for k, (b, t) in enumerate(sizes)])}
    for axis, dim in enumerate(dims):
        coords[dim] = np.concatenate([grid[axis].ravel() for grid in grids])
    return {dim: (name, values) for dim, values in coords.items()}


def susceptibility_tree(sizes=((3, 5), (2, 4)), components=("l0h0", "l0h1", "l1h0", "l1h1"), seed=0, context=True):
    """Of data sets "code", "prose" … with [sequences, tokens] each; the last position is predicted from all before."""
    rng = np.random.default_rng(seed)
    names = ["code", "prose", "numbers"][: len(sizes)]
    targets = [(b, t - 1) for b, t in sizes]
    rows = sum(b * t for b, t in targets)
    sus = rng.standard_normal((rows, len(components))) * np.arange(1, len(components) + 1) + 3.0
    attrs = {"dataset_id_to_name": names}
    coords = flat(targets, ("batch", "target_position"), "sus_flat", 1) | {"wr": list(components)}
    nodes = {"/susceptibilities": xr.Dataset({"sus": (("sus_flat", "wr"), sus)}, coords, attrs)}
    if context:
        ids = rng.integers(0, 26, sum(b * t for b, t in sizes))
        where = flat(sizes, ("batch", "position"), "ctx_flat", 0)
        nodes["/context"] = xr.Dataset({"input_ids": ("ctx_flat", ids)}, where, attrs)
    return xr.DataTree.from_dict(nodes)
