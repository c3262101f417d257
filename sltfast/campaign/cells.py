"""What a campaign measures: its cells, where each is kept, and which of them are there already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sltfast.campaign.configuration import Campaign, named
from sltfast.inputs.checkpoints import Checkpoint, list_checkpoints
from sltfast.restricted import path_of

if TYPE_CHECKING:
    from torch import nn

    from sltfast.restriction import ParamMasks

State = Literal["finished", "begun", "to do"]


@dataclass(frozen=True)
class Group:
    """Cells that are sampled together: one model, one setting and one data set, many restrictions.

    Attributes:
        checkpoint: None where the campaign is about one model.
        variant: its name, "" where there is one setting.
        dataset: whose batches the chains see; "" for susceptibilities, which see one and answer to all.
        output_path: what ``sltfast.sample_restrictions`` or ``sltfast.susceptibilities`` takes.
    """

    checkpoint: Checkpoint | None
    variant: str
    dataset: str
    output_path: Path

    @property
    def name(self) -> str:
        """For people."""
        step = "" if self.checkpoint is None else f"step {self.checkpoint.step}"
        return named([step, self.variant, self.dataset]) or "model"

    def store(self, restriction: str) -> Path:
        """Where the run of a restriction is kept."""
        found = path_of(self.output_path, restriction)
        assert found is not None
        return found


def groups(campaign: Campaign) -> list[Group]:
    """The groups of a campaign, in the order in which they are measured.

    Raises:
        ValueError, FileNotFoundError: checkpoints that are not there, or two groups that would share their files.
    """
    given = campaign.place["checkpoints"]
    checkpoints: Sequence[Checkpoint | None] = [None] if given is None else list_checkpoints(given)
    datasets = list(campaign.data) if campaign.measure == "llc" else [""]
    found = [
        Group(checkpoint, variant, dataset, campaign.output_dir / f"{_stem(checkpoint, variant, dataset)}.zarr")
        for checkpoint in checkpoints
        for variant in campaign.variants
        for dataset in datasets
    ]
    places = [_plain(group.output_path.stem) for group in found]
    if len(set(places)) < len(places):
        raise ValueError(
            f"two of the variants {', '.join(campaign.variants)} and data sets {', '.join(datasets)} would be written "
            "to one file: rename one"
        )
    return found


def _stem(checkpoint: Checkpoint | None, variant: str, dataset: str) -> str:
    from sltfast.estimators.over_checkpoints import run_name

    step = "" if checkpoint is None else run_name(checkpoint.step)
    return _plain("_".join(part for part in (step, variant, dataset) if part) or "model")


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)


def restrictions_of(model: nn.Module, campaign: Campaign) -> dict[str, ParamMasks]:
    """The restrictions of a campaign by name, as the model understands them.

    Raises:
        ValueError: one that selects nothing in this model, or two that would be written to one file.
    """
    from sltfast.restriction import Restriction
    from sltfast.restriction.components import components

    two_chain = campaign.measure == "susceptibilities" and campaign.response["estimator"] == "two_chain"
    found = components(model, campaign.restrictions, full=two_chain)
    for masks in found.values():
        Restriction.of(model, masks)
    places = [path_of("run.zarr", name) for name in found]
    if len(set(places)) < len(places):
        raise ValueError(f"two of the restrictions {', '.join(found)} would be written to one file: remove one")
    return found


def states(campaign: Campaign, restrictions: Sequence[str]) -> Iterator[tuple[Group, dict[str, State]]]:
    """Every group with the state of its cells, by restriction."""
    for group in groups(campaign):
        yield group, {name: state_of(group.store(name)) for name in restrictions}


def state_of(store: Path) -> State:
    """Whether a run is there, and whether it is complete.

    Raises:
        OutputMismatch: what is there is no run, or one that lost some of its files.
    """
    from sltfast.results.tree import open_run

    try:
        return "finished" if open_run(store).attrs["completed"] else "begun"
    except FileNotFoundError:
        return "to do"


def counted(of: Mapping[str, State]) -> dict[State, int]:
    """How many cells are in each state."""
    kinds: tuple[State, ...] = ("finished", "begun", "to do")
    return {kind: list(of.values()).count(kind) for kind in kinds}
