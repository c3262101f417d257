"""Small trees in the shapes that runs and results have."""

from typing import Any

import numpy as np
import xarray as xr

COMPONENTS = np.array(["full", "l0h0", "l0h1", "l1h0"], object)  # zarr has no stable form of fixed-length text
NASTY = "<script>window.hacked = 1</script>"
TEXTS = {"code": [f"def f{k}(x):\n\treturn x" for k in range(5)], "prose": [f"A sentence, {k}." for k in range(4)]}


def token_ids(text: str, length: int = 20) -> list[int]:
    return [*text.encode(), *[0] * length][:length]


def susceptibilities() -> xr.DataTree:
    """χ of each token, standard normal, errors of a half, and the data sets' means."""
    generator = np.random.default_rng(5)
    sus: dict[str, list[Any]] = {name: [] for name in ("dataset_id", "batch", "target_position")}
    context: dict[str, list[Any]] = {name: [] for name in ("dataset_id", "batch", "position", "input_ids")}
    for key, texts in enumerate(TEXTS.values()):
        for batch, text in enumerate(texts):
            for position, token in enumerate(token_ids(text)):
                for name, value in zip(context, (key, batch, position, token), strict=True):
                    context[name].append(value)
                if position:
                    for name, value in zip(sus, (key, batch, position), strict=True):
                        sus[name].append(value)
    size = len(sus["batch"])
    values = generator.standard_normal((size, len(COMPONENTS)))
    values[3] = np.nan
    names = {"dataset_id_to_name": list(TEXTS)}
    flat = xr.Dataset(
        {"sus": (("sus_flat", "wr"), values), "se": (("sus_flat", "wr"), np.full(values.shape, 0.5))},
        coords={"wr": COMPONENTS, **{name: ("sus_flat", np.array(found)) for name, found in sus.items()}},
        attrs=names,
    )
    ids = np.array(context.pop("input_ids"))
    seen = xr.Dataset(
        {"input_ids": ("ctx_flat", ids)},
        coords={name: ("ctx_flat", np.array(found)) for name, found in context.items()},
        attrs=names,
    )
    means = np.stack([np.nanmean(values[np.array(sus["dataset_id"]) == key], axis=0) for key in range(len(TEXTS))], -1)
    summary = xr.Dataset(
        {"sus": (("wr", "dataset"), means), "se": (("wr", "dataset"), np.full(means.shape, 0.1))},
        coords={"wr": COMPONENTS, "dataset": np.array(list(TEXTS), object)},
    )
    chains = {"llc_mean": 1.5, "llc_se": 0.25, "rhat": 1.2, "ess": 50.0}
    parts = xr.Dataset(
        {name: ("wr", np.full(len(COMPONENTS), value)) for name, value in chains.items()}, coords={"wr": COMPONENTS}
    )
    nodes = {"/susceptibilities": flat, "/context": seen, "/datasets": summary, "/components": parts}
    return xr.DataTree.from_dict(nodes)


def influences(count: int = 6) -> xr.Dataset:
    """Influences of which row k's are k·count + column, less the middle, errors of 0.5; the first passage is nasty."""
    value = np.arange(count * count, dtype=float).reshape(count, count) - count * count / 2
    texts = [NASTY, *[f"passage {k}" for k in range(count - 1)]]
    ids = np.array([token_ids(text, 40) for text in texts])
    return xr.Dataset(
        {
            "influences": (("batch_1", "batch_2"), value),
            "influences_se": (("batch_1", "batch_2"), np.full(value.shape, 0.5)),
            "input_ids": (("batch", "position"), ids),
        },
        attrs={"definition": NASTY, "sign": 1},
    )


def estimate(*, dead: bool = False) -> xr.Dataset:
    """As ``compute_llc`` gives it, of two chains of 40 steps; with ``dead`` the second died at step 20."""
    trace = 0.1 * np.random.default_rng(2).standard_normal((2, 40)) + 0.2
    if dead:
        trace[1, 20:] = np.nan
    values: dict[str, Any] = {
        "llc_mean": 2.0, "llc_se": 0.25, "llc_mcse": 0.2, "llc_std": 0.1, "rhat": 1.01, "ess": 60.0, "drift": 0.1,
        "init_loss": 3.25, "llc_per_chain": ("chain", [1.9, np.nan if dead else 2.1]),
        "llc_ci": ("bound", [1.5, 2.5]), "excess_trace": (("chain", "step"), trace),
        "loss_trace": (("chain", "step"), trace + 3), "alive": ("chain", [True, not dead]),
        "death_step": ("chain", [-1, 20 if dead else -1]),
    }  # fmt: skip
    word = "diverged" if dead else "converged"
    return xr.Dataset(values, attrs={"verdict": word, "advice": "lower lr first", "num_burnin_steps": 10, "lr": 1e-4})
