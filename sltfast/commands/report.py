"""`sltfast report RUN`: runs and what was estimated from them as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "write one self-contained HTML page about runs and results"
DESCRIPTION = """\
Write one HTML page that holds all it shows and loads nothing from anywhere: λ̂ with
errors and verdicts, loss traces, susceptibilities by data set and by token, the
plane of responses, influences and nearest neighbours, and how it was all made; each
where its data are there.

RUN  a run or a result on disk (.zarr), or a folder that holds several"""
EPILOG = """\
examples:
  sltfast report run.zarr
  sltfast report runs/ --tokenizer ./model -o report.html
  sltfast report llm.susceptibilities.zarr --tokenizer bytes"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="a .zarr store, or a folder of them")
    parser.add_argument("-o", "--output", metavar="FILE.html", help="the page (default: report.html beside or in RUN)")
    parser.add_argument(
        "--tokenizer",
        metavar="TEXT",
        help="'bytes', a directory, GGUF file or hub name (default: numbers are shown)",
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of the page (default: the name of RUN)")
    parser.add_argument(
        "--umap",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="embed the tokens with UMAP too, where umap-learn is installed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from sltfast.report.page import write_report

    output = arguments.output or default_output(Path(arguments.run))
    written = write_report(arguments.run, output, arguments.tokenizer, title=arguments.title, umap=arguments.umap)
    print(f"written: {written} ({written.stat().st_size / 1e6:.1f} MB)")
    return 0


def default_output(run: Path) -> Path:
    """``report.html`` in a folder of runs, ``NAME.html`` beside a single one."""
    return run.with_name(f"{run.stem}.html") if run.suffix == ".zarr" else run / "report.html"
