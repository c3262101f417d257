"""The models and the rows of tokens of a campaign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sltfast.campaign.cells import Group
from sltfast.campaign.configuration import CELL, Campaign
from sltfast.commands import language_model, observed

if TYPE_CHECKING:
    from torch import nn


class Models:
    """Gives the model of a group: loaded once, or filled with the weights of its checkpoint.

    What a call returns is good until the next one.
    """

    def __init__(self, campaign: Campaign) -> None:
        from sltfast.inputs.skeleton import Skeleton

        self._place = campaign.place
        self._skeleton = Skeleton(None, campaign.place["dtype"])
        self._model: nn.Module | None = None

    def of(self, group: Group) -> nn.Module:
        """The model that a group samples.

        Raises:
            ValueError, FileNotFoundError: as ``load_model`` and ``sltfast.over_checkpoints``.
        """
        if group.checkpoint is not None:
            return self._skeleton.filled(group.checkpoint)
        if self._model is None:
            from sltfast.inputs.pretrained import load_model

            place = self._place
            self._model = load_model(place["model"], dtype=place["dtype"], revision=place["revision"])
        return self._model


def rows_of(model: nn.Module, campaign: Campaign, first: Group) -> dict[str, Any]:
    """The rows of every data set, checked against every variant's batches.

    Args:
        model: any of the campaign's; it says how long a row may be.
        campaign: names the files.
        first: a group, whose checkpoint lends its tokenizer where no other is named.

    Raises:
        FileNotFoundError, ValueError: files that cannot be read, or fewer rows than one batch; a note names them.
    """
    from sltfast.batches import BatchStream
    from sltfast.data import as_source

    place = {**campaign.place, "model": campaign.place["model"] or str(first.checkpoint and first.checkpoint.content)}
    read = language_model.reader(model, place)
    rows = {}
    for name, files in campaign.data.items():
        try:
            rows[name] = read(files)
            for settings in campaign.variants.values():
                BatchStream(as_source(rows[name]), settings["batch_size"], settings["init_seed"])
        except (ValueError, TypeError, OSError) as error:
            raise type(error)(f"data set {name!r}: {error}") from error
    return rows


def keywords(campaign: Campaign, variant: str) -> dict[str, Any]:
    """What ``sltfast.sample_restrictions`` takes of a variant's settings.

    Raises:
        ValueError: a value that is not allowed.
    """
    from sltfast.request import resolve

    settings = {**campaign.variants[variant], "quiet": True}
    found = language_model.keywords(settings, CELL, ())
    resolve(None, found)
    return found


def observables_of(campaign: Campaign, rows: Mapping[str, Any], batch_size: int) -> dict[str, tuple[Any, int]]:
    """Every data set with the batches that are read of it at a draw.

    Raises:
        ValueError: one with fewer rows than a batch.
    """
    wanted = campaign.response["batches_per_draw"]
    return {name: observed.batches_of(name, data, wanted, batch_size) for name, data in rows.items()}
