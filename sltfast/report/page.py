"""``write_report``: sections into one page that needs nothing beside itself."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from sltfast.extras import require
from sltfast.report import facts, influences, plane, runs, susceptibilities, traces
from sltfast.report.found import Found, gather
from sltfast.report.limits import Limits
from sltfast.report.packing import as_json
from sltfast.report.response import response_of
from sltfast.report.section import Section
from sltfast.report.tokens import Vocabulary, piece_of

STYLES = ("colours", "layout", "tables", "figures", "text")
SCRIPTS = (
    *("data", "numbers", "theme", "tip", "shades", "heat_map", "passages", "profile", "plane"),
    *("neighbours", "influences", "start"),
)


def write_report(
    path_or_trees: Any, output: str | Path, tokenizer: Any = None, *, title: str | None = None, umap: bool = True
) -> Path:
    """Write one HTML page about runs and what was estimated from them.

    The page holds its data, styles and scripts, and asks no network for anything: facts of the runs, λ̂ with errors and
    verdicts, loss traces, χ of components by data set and by token, the plane of responses, influences and neighbours;
    each where its data are there.

    Args:
        path_or_trees: a run or a result on disk (``.zarr``), a folder of them, a tree or data set as
            ``sltfast.sample``, ``sltfast.llc``, ``sltfast.susceptibilities`` and ``sltfast.bif`` return them, or a
            mapping from names to such trees.
        output: the file to write.
        tokenizer: how token ids are decoded: "bytes", a Hugging Face directory, GGUF file or hub name, an object with
            ``decode``, a function from id to text; None shows numbers.
        title: heading of the page; by default the name of the folder or file.
        umap: also embed the responses with UMAP where umap-learn is installed (half a minute, most of it compiling).

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: nothing is at the path, no folder for ``output``, or no such tokenizer.
        ValueError: a tree that holds nothing to report.
        TypeError: a tokenizer that decodes nothing.
        MissingExtra: jinja2 is not installed (``pip install 'sltfast[report]'``).
    """
    jinja2 = require("jinja2", extra="report", purpose="to write a report")
    found = gather(path_or_trees)
    if not found:
        raise ValueError("there is nothing to report: give at least one tree")
    target = Path(output).expanduser()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent}: no such folder for the report")
    if title is None:
        title = Path(path_or_trees).resolve().name if isinstance(path_or_trees, str | Path) else "sltfast report"
    vocabulary = Vocabulary(piece_of(tokenizer))
    sections = _sections(found, vocabulary, Limits(), known=tokenizer is not None, umap=umap)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _asset("templates", name)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = {section.id: section.data for section in sections if section.data is not None}
    page = environment.get_template("page.html").render(
        title=title,
        sections=sections,
        counts=_counts(found),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        data=as_json({"pieces": vocabulary.pieces, "sections": data}),
        style="\n".join(_asset("styles", f"{name}.css") for name in STYLES),
        script="\n".join(_asset("scripts", f"{name}.js") for name in SCRIPTS),
    )
    target.write_text(page, "utf-8")
    return target


def _asset(folder: str, name: str) -> str:
    return (files("sltfast.report") / folder / name).read_text("utf-8")


def _sections(
    found: Sequence[Found], vocabulary: Vocabulary, limits: Limits, *, known: bool, umap: bool
) -> list[Section]:
    """What the trees have to show, estimates first and the facts of the runs last."""
    sections: list[Section | None] = []
    estimates, refused = runs.estimated(found)
    if estimates or refused:
        sections.append(runs.section(estimates, refused))
    if estimates:
        sections.append(traces.section(estimates, limits))
    several = {kind for kind in ("susceptibilities", "influences") if sum(one.kind == kind for one in found) > 1}
    for index, one in enumerate(found):
        of, key = (f" · {one.name}" if one.kind in several else ""), f"{one.kind}-{index}"
        if one.kind == "susceptibilities":
            sections.append(susceptibilities.heat_map(key, f"Susceptibilities by data set{of}", one.tree))
            if "context" not in one.tree.children:
                continue  # what is no text has no tokens to shade
            response = response_of(one.tree)
            sections += [
                susceptibilities.coloured_text(
                    key, f"Susceptibilities token by token{of}", response, vocabulary, limits, known=known
                ),
                plane.section(key, f"The plane of responses{of}", response, limits, umap=umap),
            ]
        elif one.kind == "influences":
            sections.append(influences.section(key, f"Influence{of}", one.tree, vocabulary, limits, known=known))
    sections.append(facts.section(found))
    return [section for section in sections if section is not None]


def _counts(found: Sequence[Found]) -> str:
    kinds = {
        "run": "run",
        "estimate": "estimate",
        "susceptibilities": "susceptibility result",
        "influences": "influence result",
    }
    counted = [(sum(one.kind == kind for one in found), word) for kind, word in kinds.items()]
    return " · ".join(f"{number} {word}{'s' if number > 1 else ''}" for number, word in counted if number)
