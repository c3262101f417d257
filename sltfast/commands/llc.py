"""`sltfast llc MODEL DATA …`: the local learning coefficient of a language model."""

from __future__ import annotations

import argparse
import json
import time

from sltfast.commands import language_model
from sltfast.commands.language_model import ESTIMATE, INPUT, PLACES, SAMPLING
from sltfast.commands.settings import Setting, resolve

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

OUTPUT = (
    Setting("output_path", str, "zarr directory for the draws; makes the run resumable"),
    Setting("save_metrics", bool, "record nine norms and dot products of each step", False),
    Setting("save_token_losses", bool, "record the loss of each token of each step", False),
    Setting("figure", str, "write the traces to this file (.png, .pdf, .svg)"),
    Setting("json", bool, "print JSON instead of a table", False),
    Setting("quiet", bool, "no progress bars", False),
)
SETTINGS = (*PLACES, *INPUT, *SAMPLING, *ESTIMATE, *OUTPUT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    groups = (("input", INPUT), ("sampling", SAMPLING), ("estimate", ESTIMATE), ("output", OUTPUT))
    language_model.add_arguments(parser, groups)


def run(arguments: argparse.Namespace) -> int:
    """Load, sample, estimate, report."""
    if not getattr(arguments, "data", True):
        del arguments.data
    settings = resolve(SETTINGS, arguments, arguments.config)
    language_model.check(settings)
    started = time.monotonic()
    with language_model.silent_libraries():
        model, rows = language_model.load(settings)
    from sltfast.estimators.llc import llc

    with language_model.told_how_to_resume(settings):
        result = llc(model, rows, **language_model.keywords(settings, SAMPLING))
    facts = language_model.facts(model, rows, settings, time.monotonic() - started)
    if settings["figure"]:
        from sltfast import plotting

        plotting.save(plotting.plot_trace(result), settings["figure"])
    from sltfast.commands import report

    if settings["json"]:
        print(json.dumps(report.as_json(result, facts), indent=2, ensure_ascii=False))
    else:
        print(report.as_text(result, facts))
    return 0
