"""The answers of all restrictions, collected into one tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sltfast.estimators.block_errors import Estimate
from sltfast.estimators.blocks import Array, BlockReader
from sltfast.estimators.susceptibility.chi import Estimator
from sltfast.estimators.susceptibility.table import component_table, context_table, dataset_table, token_table

if TYPE_CHECKING:
    import xarray as xr

SETTINGS = ("n_beta", "lr", "localization", "num_chains", "num_draws", "num_steps_bw_draws", "num_burnin_steps")
UNIFORM = 1e-5  # of the mean loss: a weighted mean at w* further from the plain one has unequal weights


class Response:
    """χ by restriction, as it is computed.

    Args:
        wr: names of the restrictions, in the order of the result.
        shapes: (rows, positions) of each observable, in the order of the result.
        run: reader of the run that the others are held against.
        estimator: which one ``sus`` is.
    """

    def __init__(
        self, wr: Sequence[str], shapes: Mapping[str, Sequence[int]], run: BlockReader, estimator: Estimator
    ) -> None:
        self.wr, self.run, self.estimator = list(wr), run, estimator
        self.other: Estimator = next(name for name in get_args(Estimator) if name != estimator)
        self.shapes = {name: (int(rows), int(positions)) for name, (rows, positions) in shapes.items()}
        ends = np.cumsum([rows * positions for rows, positions in self.shapes.values()])
        self._slices = {
            name: slice(end - rows * positions, end)
            for end, (name, (rows, positions)) in zip(ends.tolist(), self.shapes.items(), strict=True)
        }
        variables = ("sus", "se", "se_chains", "se_batch_means", f"sus_{self.other}", f"se_{self.other}")
        self._items = {name: np.full((len(self.wr), int(ends[-1])), np.nan) for name in variables}
        shape = (len(self.wr), len(self.shapes))
        self._datasets = {name: np.full(shape, np.nan) for name in (*variables, "density_deviation")}
        self._facts: dict[str, dict[str, Any]] = {}

    def put_items(self, wr: str, observable: str, found: Mapping[Estimator, Estimate]) -> None:
        """χ of an observable's items, [rows, positions]."""
        for name, values in self._named(found).items():
            self._items[name][self.wr.index(wr), self._slices[observable]] = values.ravel()

    def put_dataset(self, wr: str, observable: str, found: Mapping[Estimator, Estimate]) -> None:
        """χ of an observable's mean loss, after that of its items."""
        at = self.wr.index(wr), list(self.shapes).index(observable)
        for name, value in self._named(found).items():
            self._datasets[name][at] = value
        self._datasets["density_deviation"][at] = self._deviation(observable, at)

    def put_component(self, wr: str, facts: Mapping[str, Any]) -> None:
        """What a restriction's run says of itself."""
        self._facts[wr] = dict(facts)

    def tree(self, settings: Mapping[str, Any]) -> xr.DataTree:
        """All of it."""
        import xarray as xr

        root = self.run.root
        sampler = root.attrs.get("metadata", {}).get("config", {}).get("sampler", {})
        deviations = self._datasets["density_deviation"]
        deviations = deviations[np.isfinite(deviations)]
        attrs = {
            "estimator": self.estimator,
            **settings,
            **{name: sampler[name] for name in SETTINGS if name in sampler},
            "density_deviation": float(deviations.max()) if len(deviations) else None,
        }
        facts = [self._facts[name] for name in self.wr]
        nodes = {
            "/": xr.Dataset(attrs=attrs),
            "/susceptibilities": token_table(self._items, self.shapes, self.wr),
            "/datasets": dataset_table(self._datasets, self.wr, list(self.shapes)),
            "/components": component_table({name: [one[name] for one in facts] for name in facts[0]}, self.wr),
        }
        ids = {name: root[f"input_ids_{name}"].values for name in self.shapes if f"input_ids_{name}" in root}
        if ids:
            # devinterp's have the same rows once for every draw, where they have draws
            rows = {name: values.reshape(-1, *values.shape[-2:])[0] for name, values in ids.items()}
            nodes["/context"] = context_table(rows, list(self.shapes))
        return xr.DataTree.from_dict(nodes)

    def _named(self, found: Mapping[Estimator, Estimate]) -> dict[str, Array]:
        asked = found[self.estimator]
        named = {
            "sus": asked.value,
            "se": asked.se,
            "se_chains": asked.se_chains,
            "se_batch_means": asked.se_batch_means,
        }
        if self.other in found:
            named |= {f"sus_{self.other}": found[self.other].value, f"se_{self.other}": found[self.other].se}
        return named

    def _deviation(self, observable: str, at: tuple[int, int]) -> float:
        items = self._items["sus"][at[0], self._slices[observable]]
        items = items[np.isfinite(items)]
        size = float(np.sqrt(np.mean(items**2))) if len(items) else 0.0
        if size == 0.0 or not self._uniform(observable):
            return float("nan") if len(items) == 0 or not self._uniform(observable) else 0.0
        return abs(float(items.mean()) - float(self._datasets["sus"][at])) / size

    def _uniform(self, observable: str) -> bool:
        """Whether all items that count have the same weight, as far as the losses at w* tell."""
        root = self.run.root
        if f"init_mean_loss_{observable}" not in root:
            return True
        items, mean = root[f"init_loss_{observable}"].values, float(root[f"init_mean_loss_{observable}"])
        return bool(abs(float(np.nanmean(items)) - mean) <= UNIFORM * float(np.nanmean(np.abs(items))))
