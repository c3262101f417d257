"""`sltfast susceptibilities MODEL DATA …`: how parts of a language model answer to kinds of text."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sltfast.commands import language_model, observed
from sltfast.commands.language_model import INPUT, PLACES
from sltfast.commands.settings import Setting

if TYPE_CHECKING:
    import xarray as xr

SUMMARY = "estimate how parts of a language model answer to kinds of text"
DESCRIPTION = """\
Estimate susceptibilities χ of parts of a model (its heads, layers, …) to the tokens of
texts: how the loss that a part's freedom costs changes when the data move towards a
text. One run of the whole model and one of every part, with shared batches and noise.

MODEL and DATA are those of `sltfast llc`; the chains see DATA."""
EPILOG = """\
examples:
  sltfast susceptibilities ./model corpus.txt --observable code=code.txt \\
      --observable prose=prose.txt --restrictions 'all heads' 'l0 mlp' \\
      --lr 1e-5 --localization 1000 --output-dir runs
  sltfast report runs --tokenizer ./model

The same command with the same --output-dir goes on where it was interrupted."""
RESPONSE = (
    Setting(
        "restrictions",
        list,
        "parts that move, a run each: l0, 'l0 mlp', l0h1, embed, …; 'all heads': each head, 'all': every component "
        "(default: all heads)",
        several=True,
    ),
    Setting("sampling_task", str, "observable whose mean loss is the part's (default: DATA, under its name data)"),
    Setting("include_sampling_task", bool, "χ of that observable's own tokens too", False),
    Setting("control", bool, "sample everything again at nβ = 0, where the loss has no say", False),
    Setting("estimator", str, "which χ comes first", "two_chain", ("two_chain", "single_chain")),
)
SETTINGS = (*PLACES, *INPUT, *observed.OBSERVED, *observed.CHAINS, *RESPONSE, *observed.OUTPUT)
EACH_HEAD = "all heads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    groups = (("input", INPUT), ("observables", observed.OBSERVED), ("sampling", observed.CHAINS))
    language_model.add_arguments(parser, (*groups, ("response", RESPONSE), ("output", observed.OUTPUT)))


def run(arguments: argparse.Namespace) -> int:
    """Load, sample, estimate, report."""
    settings, result, facts = language_model.estimated(arguments, SETTINGS, _estimate)
    if settings["json"]:
        print(json.dumps({"components": as_json(result), **facts}, indent=2, ensure_ascii=False))
        return 0
    from sltfast.report.plain_text import component_table

    print(component_table(result))
    print(f"\ntime      {facts['seconds']:g} s\n{observed.how_to_report(settings)}")
    return 0


def as_json(result: xr.DataTree) -> list[dict[str, Any]]:
    """Every component with its estimate and its χ by data set; null where a number is not finite."""
    from sltfast.commands.estimate import plain

    parts, datasets = result["components"].to_dataset(), result["datasets"].to_dataset()
    found = []
    for name in map(str, parts["wr"].values):
        part, here = parts.sel(wr=name), datasets.sel(wr=name)
        facts = {key: plain(part[key]) for key in ("llc_mean", "llc_se", "rhat", "ess")}
        chi = {
            str(dataset): {key: plain(here[key].sel(dataset=dataset)) for key in ("sus", "se")}
            for dataset in here["dataset"].values
        }
        found.append({"name": name, **facts, "datasets": chi})
    return found


def _estimate(model: Any, rows: Any, settings: dict[str, Any]) -> Any:
    from sltfast.estimators.susceptibility import susceptibilities

    return susceptibilities(
        model,
        rows,
        observed.observables(model, rows, settings),
        settings["restrictions"] or [EACH_HEAD],
        sampling_task=settings["sampling_task"] or observed.DATA,
        include_sampling_task=settings["include_sampling_task"],
        estimator=settings["estimator"],
        control=settings["control"],
        obs_seed=settings["obs_seed"],
        **language_model.keywords(settings, observed.CHAINS, ()),
    )
