"""A call of devinterp's ``sample``, resolved: checked, then run by the engine as one or many restrictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sltfast.chains import Wanted, run_chains
from sltfast.clone import unwrap
from sltfast.compat.devinterp.slt.config import SamplerConfig
from sltfast.compat.devinterp.slt.observables import DeterministicShuffledSampler, to_obs_id
from sltfast.compat.fast_run.before import Before, look
from sltfast.compat.fast_run.masks import ParamMasks, moving, scales
from sltfast.compat.fast_run.rows import row_length, row_orders, token_source
from sltfast.compat.fast_run.settings import engine_config, merged_rmsprop, metadata
from sltfast.contract import Contract
from sltfast.data import Source
from sltfast.devices import usable_device
from sltfast.errors import AllChainsDied
from sltfast.request import Record, Request

if TYPE_CHECKING:
    import xarray as xr

OF_CONFIG = set(SamplerConfig.model_fields) - {"sampling_method_kwargs", "epoch_mode"}


@dataclass(frozen=True)
class Job:
    """What is sampled, with which settings, and what is read at draws.

    Attributes:
        source: token rows of the sampling data set.
        observables: by name, token rows and batches per draw.
        loss_fn: the caller's, or None.
    """

    model: nn.Module
    source: Source
    observables: Mapping[str, tuple[Source, int]]
    config: SamplerConfig
    obs_seed: int
    device: torch.device
    loss_fn: Callable[[nn.Module, Tensor], Tensor] | None

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Job:
        """From the arguments of ``sample``, every one of them.

        Raises:
            ValueError, TypeError: an argument that cannot be sampled.
        """
        dataset, model = keywords["dataset"], keywords["model"]
        source = token_source(dataset)
        if len(source) == 0:
            raise ValueError("dataset has no rows: give at least one batch of sequences")
        tokens = row_length(source)
        if tokens < 2:
            raise ValueError(
                f"Sequences must have length >= 2 for next-token loss (got {tokens}): concatenate or re-tokenise"
            )
        given = {name: keywords[name] for name in OF_CONFIG}
        given["sampling_method_kwargs"] = merged_rmsprop(
            keywords["sampling_method"],
            keywords["sampling_method_kwargs"],
            keywords["rmsprop_eps"],
            keywords["rmsprop_alpha"],
        )
        config = SamplerConfig(**given)
        if len(source) < config.batch_size:
            raise ValueError(
                f"dataset has {len(source)} rows, fewer than one batch: give a batch_size of at most {len(source)}"
            )
        observables = {
            name: _observable(name, spec, keywords["batches_per_draw"], config.batch_size, tokens, keywords["obs_seed"])
            for name, spec in keywords["observables"].items()
        }
        device = keywords["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, source, observables, config, keywords["obs_seed"], usable_device(device), keywords["loss_fn"])

    @property
    def obs_ids(self) -> list[str]:
        """Observables as they stand in variable names, in the caller's order."""
        return [to_obs_id(name) for name in self.observables]

    @cached_property
    def before(self) -> Before:
        """What a first forward tells."""
        rows = self.source.fetch(self._orders[0][: self.config.batch_size])
        return look(unwrap(self.model), rows, self.loss_fn, self.config.init_seed, self.device)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The attribute of that name."""
        counts = {to_obs_id(name): count for name, (_, count) in self.observables.items()}
        return metadata(self.config, counts, row_length(self.source))

    @cached_property
    def _orders(self) -> list[Any]:
        config = self.config
        return row_orders(
            len(self.source),
            config.init_seed,
            config.num_chains,
            shuffle=config.shuffle,
            matched=config.match_sampling_input_ids_across_chains,
        )

    def batches(self, chain: int, count: int) -> Iterator[Tensor]:
        """The first batches of a chain, token ids [B, T + 1] on the device."""
        order = self._orders[chain % len(self._orders)]
        size = self.config.batch_size
        for k in range(count):
            at = k % (len(order) // size) * size
            yield self.source.fetch(order[at : at + size]).to(self.device)

    def only_exact(self, *masks: ParamMasks | None) -> str:
        """The row of ``DEFECTS`` for which the engine cannot keep devinterp's contract, "" where it can."""
        if any(scales(one) for one in masks if one is not None):
            return "masks between 0 and 1"
        return "train mode" if self.before.train_mode else ""

    def without_observables(self) -> Job:
        """The same chains, with nothing read at draws."""
        return replace(self, observables={})

    def run(
        self,
        wanted: Mapping[str, tuple[ParamMasks | None, Path | None]],
        *,
        record: Record = "traces",
        sampling_task: str | None = None,
        token_losses: bool = True,
    ) -> dict[str, xr.DataTree]:
        """Sample restrictions by name, given as masks and where their runs are written (None: in memory).

        Args:
            wanted: the restrictions.
            record: as ``sltfast.sample``.
            sampling_task: likewise.
            token_losses: whether losses and token ids of the sampling batches are kept.

        Returns:
            The engine's trees; of chains that all died, what was recorded.
        """
        config = engine_config(self.config)
        self._warn()
        request = Request(
            loss_fn=self.before.loss_fn,
            obs_seed=self.obs_seed,
            record=record,
            sampling_task=sampling_task,
            num_blocks=min(8, config.num_draws),
            device=self.device,
            save_token_losses=token_losses,
        )
        model = unwrap(self.model)
        places = {name: Wanted(moving(model, masks), path) for name, (masks, path) in wanted.items()}
        contract = Contract(self._orders, self.metadata)
        try:
            return run_chains(model, self.source, self.observables, places, config, request, contract)
        except AllChainsDied as died:
            if died.samples is None:
                raise
            return dict(died.samples) if len(wanted) > 1 else {next(iter(wanted)): died.samples}

    def _warn(self) -> None:
        if self.config.noise_level != 1.0:
            warnings.warn(
                "noise_level in SGLD is unequal to one, this removes SGLD posterior sampling guarantees: what is "
                "sampled is no posterior",
                UserWarning,
                stacklevel=4,
            )


def _observable(
    name: str, spec: Any, batches_per_draw: int, batch_size: int, tokens: int, seed: int
) -> tuple[Source, int]:
    """Rows and batches per draw of one observable, checked as devinterp checks them."""
    dataset, count = spec if isinstance(spec, tuple) else (spec, batches_per_draw)
    source = token_source(dataset, f"observable {name!r}")
    DeterministicShuffledSampler(source, batch_size * count, seed)
    width = row_length(source)
    if width != tokens:
        raise ValueError(
            f"observable {name!r} has rows of {width} tokens, the sampling data set's have {tokens}: pad or cut them "
            "to one length"
        )
    return source, count
