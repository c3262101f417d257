"""Moments of blocks of draws from the stored traces of a run, two-pass in float64, and how closely others agree."""

import numpy as np

EPSILON = 2.0**-52


def two_pass(tree, task, names, blocks):
    """What ``record="moments"`` keeps, from stored traces in float64: draw d is in block d·K // D."""
    phi = tree[f"mean_loss_{task}"].values - tree[f"init_mean_loss_{task}"].values  # [C, D]
    chains, draws = phi.shape
    found = {}
    for block in range(blocks):
        members = [d for d in range(draws) if d * blocks // draws == block]
        part = phi[:, members]
        apart = part - part.mean(1, keepdims=True)
        kept = {"draws": np.full(chains, float(len(members))), "phi": part.mean(1), "phi_m2": (apart**2).sum(1)}
        for name in names:
            y = tree[f"loss_{name}"].values[:, members].astype(np.float64) - tree[f"init_loss_{name}"].values
            off = y - y.mean(1, keepdims=True)
            kept |= {f"mean_{name}": y.mean(1), f"m2_{name}": (off**2).sum(1)}
            kept[f"comoment_{name}"] = (apart[..., None, None] * off).sum(1)
        for name, values in kept.items():
            found.setdefault(f"moment_{name}", []).append(values)
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def assert_moments(tree, traces, task, names, blocks):
    """Both sides round in float64. A mean of n losses of size ℓ is off by e = (n + 3)·ε·ℓ; a centred value by as much,
    and a sum of n products of values of root sum of squares S by (n + 3)·ε·S² + 2·√n·e·S + n·e².
    """
    expected = two_pass(traces, task, names, blocks)
    size = max(float(np.nanmax(np.abs(traces[f"loss_{name}"].values))) for name in names)
    squares = [np.nanmax(values) for name, values in expected.items() if "m2" in name]
    n, spread = -(-traces.sizes["draw"] // blocks), float(np.sqrt(max(squares)))
    of_mean = (n + 3) * EPSILON * size
    of_sum = (n + 3) * EPSILON * spread**2 + 2 * np.sqrt(n) * of_mean * spread + n * of_mean**2
    for name, values in expected.items():
        bound = of_sum if "m2" in name or "comoment" in name else of_mean
        np.testing.assert_allclose(tree[name].values, values, rtol=0, atol=bound, err_msg=name)
    assert n == 1 or spread > 1e3 * of_mean  # the bounds tell apart what is compared


def pairs_of(tree, names, blocks):
    """What ``record="covariances"`` keeps, from stored traces in float64."""
    found = {"moment_draws": [], "moment_items_mean": [], "moment_items_comoment": []}
    rows = [np.nanmean(tree[f"loss_{name}"].values, axis=3, dtype=np.float64) for name in sorted(names)]
    levels = [np.nanmean(tree[f"init_loss_{name}"].values, axis=1) for name in sorted(names)]
    items = np.concatenate(rows, axis=2) - np.concatenate(levels)  # [C, D, N]
    chains, draws = items.shape[:2]
    for block in range(blocks):
        part = items[:, [d for d in range(draws) if d * blocks // draws == block]]
        off = part - part.mean(1, keepdims=True)
        found["moment_draws"].append(np.full(chains, float(part.shape[1])))
        found["moment_items_mean"].append(part.mean(1))
        found["moment_items_comoment"].append(np.einsum("cdi,cdj->cij", off, off))
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def assert_pairs(tree, traces, names, blocks):
    """As ``assert_moments``; a sequence's mean of T losses adds T roundings to each side."""
    expected = pairs_of(traces, names, blocks)
    size = max(float(np.nanmax(np.abs(traces[f"loss_{name}"].values))) for name in names)
    longest = max(traces[f"loss_{name}"].shape[3] for name in names)
    n, spread = -(-traces.sizes["draw"] // blocks), float(np.sqrt(np.nanmax(expected["moment_items_comoment"])))
    of_mean = (n + longest + 3) * EPSILON * size
    of_sum = (n + 3) * EPSILON * spread**2 + 2 * np.sqrt(n) * of_mean * spread + n * of_mean**2
    for name, values in expected.items():
        bound = of_sum if "comoment" in name else of_mean
        np.testing.assert_allclose(tree[name].values, values, rtol=0, atol=bound, err_msg=name)
    comoment = tree["moment_items_comoment"]
    assert comoment.dims == ("chain", "block", "item", "item_T")
    np.testing.assert_array_equal(comoment.values, comoment.values.swapaxes(2, 3))
    assert spread > 1e3 * of_mean
