"""Measuring the cells of a campaign, group by group."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.campaign.cells import Group, groups, restrictions_of
from sltfast.campaign.configuration import Campaign
from sltfast.campaign.loading import Models, keywords, observables_of, rows_of
from sltfast.errors import AllChainsDied, ChainDiverged

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.restriction import ParamMasks


@dataclass(frozen=True)
class Measured:
    """A group with what was estimated.

    Attributes:
        group: the cells.
        estimates: of learning coefficients: ``compute_llc`` of each restriction, NaN where no chain lived.
        response: of susceptibilities: the tree of ``sltfast.susceptibilities``; None where no chain lived.
    """

    group: Group
    estimates: Mapping[str, xr.Dataset]
    response: xr.DataTree | None = None


class Runner:
    """Everything that a campaign needs, loaded and checked before the first step.

    Args:
        campaign: what to measure.

    Raises:
        ValueError, TypeError, FileNotFoundError: a model, checkpoint, data set, restriction or setting that cannot be.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.groups = groups(campaign)
        self._models = Models(campaign)
        model = self._models.of(self.groups[0])
        self.restrictions = restrictions_of(model, campaign)
        self._keywords = {variant: keywords(campaign, variant) for variant in campaign.variants}
        self._rows = rows_of(model, campaign, self.groups[0])
        if campaign.measure == "susceptibilities":
            for one in self._keywords.values():
                observables_of(campaign, self._rows, one["batch_size"])

    def measured(self) -> Iterator[Measured]:
        """Measure group after group; what is finished is read, and what was begun goes on where it stopped.

        Raises:
            OutputMismatch: a run in the folder that other settings, data or weights have made; a note names the group.
        """
        self.campaign.output_dir.mkdir(parents=True, exist_ok=True)
        for group in self.groups:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ChainDiverged)  # the verdict of each cell says so
                    yield self._measure(self._models.of(group), group)
            except (ValueError, TypeError, OSError) as error:
                error.add_note(f"at {group.name}")
                raise

    def tried(self, group: Group, restrictions: Mapping[str, ParamMasks], place: Path, **changes: Any) -> None:
        """Run some restrictions of a group elsewhere, with other settings: what a cost is measured with.

        Raises:
            AllChainsDied: no chain lived.
        """
        self._sample(self._models.of(group), group, restrictions, output_path=place, overwrite=False, **changes)

    def _measure(self, model: nn.Module, group: Group) -> Measured:
        from sltfast.estimators.collection import estimate_of

        try:
            found = self._sample(model, group, self.restrictions, output_path=group.output_path)
        except AllChainsDied as error:
            if self.campaign.measure == "susceptibilities":
                return Measured(group, {})
            found = error.samples
        if self.campaign.measure == "susceptibilities":
            return Measured(group, {}, found)
        trees = found if isinstance(found, dict) else dict.fromkeys(self.restrictions, found)
        return Measured(
            group, {name: estimate_of(tree, include_burnin=False, init_loss="paired") for name, tree in trees.items()}
        )

    def _sample(self, model: nn.Module, group: Group, restrictions: Mapping[str, ParamMasks], **changes: Any) -> Any:
        from sltfast.estimators.llc import needed_for
        from sltfast.estimators.susceptibility import susceptibilities
        from sltfast.restricted import sample_restrictions

        given = {**self._keywords[group.variant], **changes}
        if self.campaign.measure == "llc":
            rows = self._rows[group.dataset]
            return sample_restrictions(model, rows, None, restrictions, **needed_for("paired", given))
        response = dict(self.campaign.response)
        seen = observables_of(self.campaign, self._rows, given["batch_size"])
        response.pop("batches_per_draw")
        task = response["sampling_task"]
        return susceptibilities(model, self._rows[task], seen, restrictions, **response, **given)
