"""`sltfast bif MODEL DATA …`: the Bayesian influence of passages on each other."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sltfast.commands import language_model, observed
from sltfast.commands.language_model import INPUT, PLACES, SAMPLING
from sltfast.commands.settings import Setting

if TYPE_CHECKING:
    import xarray as xr

SUMMARY = "estimate the Bayesian influence of passages on each other"
DESCRIPTION = """\
Estimate BIF(i, j) = −Cov[ℓ_i, ℓ_j] of the losses of passages over SGLD chains around
a model's weights: how passage j's loss answers to more weight on passage i.

MODEL and DATA are those of `sltfast llc`; passages are rows of DATA and of every
--observable."""
EPILOG = """\
examples:
  sltfast bif ./model corpus.txt --lr 1e-5 --localization 1000 --output-dir runs
  sltfast bif ./model corpus.txt --observable code=code.txt --observable prose=prose.txt \\
      --queries code prose --normalize --lr 1e-5 --localization 1000 --output-dir runs
  sltfast report runs --tokenizer ./model"""
INFLUENCE = (
    Setting("correlation_method", str, "of whole sequences or of tokens", "sequence", ("sequence", "token")),
    Setting("normalize", bool, "correlations in place of covariances", False),
    Setting("queries", list, "observables whose rows are queries (default: all)", several=True),
    Setting("top_k", int, "keep the k largest of each row, and no matrix"),
)
SETTINGS = (*PLACES, *INPUT, *observed.OBSERVED, *SAMPLING, *INFLUENCE, *observed.OUTPUT)
LISTED, LETTERS = 12, 40  # pairs in the table, and of each passage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    groups = (("input", INPUT), ("observables", observed.OBSERVED), ("sampling", SAMPLING))
    language_model.add_arguments(parser, (*groups, ("influence", INFLUENCE), ("output", observed.OUTPUT)))


def run(arguments: argparse.Namespace) -> int:
    """Load, sample, estimate, report."""
    settings, result, facts = language_model.estimated(arguments, SETTINGS, _estimate)
    pairs = strongest(result)
    if settings["json"]:
        told = {"pairs": pairs, "definition": result.attrs["definition"], **facts}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    print(_as_text(result, pairs, settings))
    print(f"time      {facts['seconds']:g} s\n{observed.how_to_report(settings)}")
    return 0


def strongest(result: xr.Dataset) -> list[dict[str, Any]]:
    """The pairs of passages with the largest influence, each pair once.

    Args:
        result: from ``sltfast.bif``, of sequences or tokens, a matrix or neighbours.
    """
    from sltfast.commands.estimate import plain
    from sltfast.report.neighbours import influence_of

    influence = influence_of(result)
    names = [str(name) for name in result["observable"].values]
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row, item in enumerate(influence.rows):
        for one in (neighbour for side in influence.nearest(row, LISTED) for neighbour in side):
            pair = (min(item, one.item), max(item, one.item))
            sets = [str(names[at]) for at in pair]
            found.setdefault(
                pair, {"items": list(pair), "observables": sets, "influence": one.value, "se": plain(one.se)}
            )
    return sorted(found.values(), key=lambda pair: -abs(pair["influence"]))[:LISTED]


def _as_text(result: xr.Dataset, pairs: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    from sltfast.report.tokens import Vocabulary, piece_of
    from sltfast.tables import plus_minus, table

    vocabulary = Vocabulary(piece_of(settings["tokenizer"] or settings["model"]))
    ids = result["input_ids"].values

    def opening(item: int) -> str:
        return " ".join(vocabulary.text(ids[item], 4 * LETTERS).split())[:LETTERS]

    rows = [
        [
            plus_minus(pair["influence"], float("nan") if pair["se"] is None else pair["se"]),
            " × ".join(pair["observables"]),
            *map(opening, pair["items"]),
        ]
        for pair in pairs
    ]
    attrs = result.attrs
    counted = f"{attrs['chains']} chains, {attrs['draws']} draws, {len(ids)} passages"
    header = ["BIF ± SE", "observables", "passage", "passage"]
    return f"{attrs['definition']}, the largest ({counted})\n{table(header, rows)}\n"


def _estimate(model: Any, rows: Any, settings: dict[str, Any]) -> Any:
    from sltfast.estimators.bif import bif

    queries = settings["queries"]
    return bif(
        model,
        rows,
        observed.observables(model, rows, settings),
        correlation_method=settings["correlation_method"],
        normalize=settings["normalize"],
        loss_keys_1=queries,
        loss_keys_2=None,
        top_k=settings["top_k"],
        obs_seed=settings["obs_seed"],
        **language_model.keywords(settings, SAMPLING, ()),
    )
