"""`sltfast llc MODEL DATA …`: the local learning coefficient of a language model."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sltfast.commands import language_model
from sltfast.commands.language_model import ESTIMATE, INPUT, PLACES, SAMPLING

SUMMARY = "estimate the local learning coefficient of a language model"
DESCRIPTION = """\
Estimate λ̂ = nβ·(E[L(w)] − L(w*)) around a model's weights w*, with SGLD chains
held near w* by the localisation γ.

MODEL  a Hugging Face model directory, a hub name, or a GGUF file
DATA   text files, folders of text, .jsonl, .parquet, a Hugging Face data set
       saved to disk, or one name on the hub"""
EPILOG = """\
examples:
  sltfast llc ./model corpus.txt --lr 1e-5 --localization 1000 --num-draws 300
  sltfast llc EleutherAI/pythia-14m data.jsonl --revision step1000 \\
      --lr 1e-5 --n-beta 30 --localization 300 --restriction '*.layers.3.mlp.*'
  sltfast llc --config run.toml --output-path run.zarr --figure trace.png

A run with --output-path that was interrupted goes on where it stopped when the
same command is given again."""

OUTPUT = language_model.output(
    "zarr directory for the draws; makes the run resumable", "write the traces to this file (.png, .pdf, .svg)"
)
SETTINGS = (*PLACES, *INPUT, *SAMPLING, *ESTIMATE, *OUTPUT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    groups = (("input", INPUT), ("sampling", SAMPLING), ("estimate", ESTIMATE), ("output", OUTPUT))
    language_model.add_arguments(parser, groups)


def run(arguments: argparse.Namespace) -> int:
    """Load, sample, estimate, report."""
    settings, result, facts = language_model.estimated(arguments, SETTINGS, _estimate)
    if settings["figure"]:
        from sltfast import plotting

        plotting.save(plotting.plot_trace(result), settings["figure"])
    from sltfast.commands import estimate

    if settings["json"]:
        print(json.dumps(estimate.as_json(result, facts), indent=2, ensure_ascii=False))
    else:
        print(estimate.as_text(result, facts))
    return 0


def _estimate(model: Any, rows: Any, settings: dict[str, Any]) -> Any:
    from sltfast.estimators.llc import llc

    return llc(model, rows, **language_model.keywords(settings, SAMPLING))
