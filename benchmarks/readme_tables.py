"""Writes the measured numbers of README and docs/*.md from results/*.csv; `--check` only compares.

Each stands between `<!-- from NAME.csv -->` and `<!-- end -->`, so that none of them is typed by hand. A
file of many tables names the one that is meant: `<!-- from regimes.csv: memory -->`. The table of devinterp's defects
comes from the code: `<!-- from sltfast.compat.defects -->`.
"""

import argparse
import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGES = [
    Path(__file__).parents[1] / page
    for page in ("README.md", "docs/benchmarks.md", "docs/drop_in.md", "docs/parity.md", "docs/survival.md")
]
DEFECTS_MARK = "<!-- from sltfast.compat.defects -->"
Rows = list[dict[str, str]]


def markdown(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table: the first column to the left, numbers to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *body])


def langevin_step(rows: Rows) -> str:
    """Milliseconds of one update, ours against devinterp's and eager PyTorch's, and the share of the floor reached."""
    cases: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in rows:
        cases.setdefault((row["op"], row["tensors"], row["threads"]), {})[row["variant"]] = row
    body = []
    for case, variants in cases.items():
        times = [f"{float(variants[name]['ms_p50']):.0f}" for name in ("ours", "eager", "devinterp")]
        ratio = {name: float(row["ratio_to_ours"]) for name, row in variants.items()}
        metrics = ratio["devinterp, metrics"] / ratio["ours, metrics"]
        floor = max(ratio["floor: memory"], ratio["floor: noise"])
        body.append([*case, *times, f"{ratio['devinterp']:.0f}", f"{metrics:.0f}", f"{100 * floor:.0f} %"])
    head = ["update", "tensors", "threads", "sltfast, ms", "eager, ms", "devinterp, ms"]
    return markdown([*head, "× faster", "× with metrics", "of the floor"], body)


def _by_case(rows: Rows, *columns: str) -> dict[tuple[str, ...], dict[str, dict[str, str]]]:
    """The rows of each case by variant."""
    cases: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in rows:
        cases.setdefault(tuple(row[column] for column in columns), {})[row["variant"]] = row
    return cases


def _ratio(variants: dict[str, dict[str, str]], name: str) -> str:
    return f"{float(variants[name]['ratio_to_ours']):.1f}" if name in variants else ""


def token_loss(rows: Rows) -> str:
    """Milliseconds of a forward pass, or of a mean loss with its gradients, and what the others take of it.

    From a million logits on; below, a table of the calls' own costs would be longer than what it says.
    """
    body = []
    for (pass_, *shape, threads), variants in _by_case(
        rows, "pass", "tokens", "depth", "vocabulary", "threads"
    ).items():
        ours = variants["ours"]
        if int(shape[0]) * int(shape[2]) < 1_000_000:
            continue
        peers = [_ratio(variants, name) for name in ("floor: mm", "eager", "eager tiled", "devinterp")]
        body.append([pass_, " × ".join(shape), threads, f"{float(ours['ms_p50']):.0f}", *peers])
    head = ["pass", "tokens × d × V", "threads", "sltfast, ms", "GEMM alone", "eager", "tiled eager", "devinterp"]
    return markdown(head, body)


def per_sample(rows: Rows) -> str:
    """Per-sample gradient norms: milliseconds of a plain pass and what else costs, in passes."""
    body = []
    keys = ("width", "vocabulary", "items", "tokens", "threads")
    for (width, vocabulary, items, tokens, threads), variants in _by_case(rows, *keys).items():
        floor = next(row for name, row in variants.items() if name.startswith("floor"))
        passes = [
            f"{float(variants[name]['ratio_to_floor']):.2f}" if name in variants else ""
            for name in ("ours", "ours, warm", "vmap(grad)", "one item at a time")
        ]
        shape = f"2 × {width}, V {vocabulary}"
        body.append([shape, f"{items} × {tokens}", threads, f"{float(floor['ms_p50']):.0f}", *passes])
    head = ["model", "items × tokens", "threads", "plain pass, ms", "sltfast", "warm", "vmap(grad)", "one at a time"]
    return markdown(head, body)


def comoment(rows: Rows) -> str:
    """Correlations of loss draws: milliseconds, and what the others take of it."""
    body = []
    for (op, variables, draws, threads), variants in _by_case(rows, "op", "variables", "draws", "threads").items():
        names = ("floor: half gemm", "floor: gemm", "torch.corrcoef", "torch.corrcoef + topk", "eager", "devinterp")
        half, whole, torch, ranked, eager, devinterp = (_ratio(variants, name) for name in names)
        peers = [half, whole, torch or ranked or eager, devinterp]
        body.append([op, f"{variables} × {draws}", threads, f"{float(variants['ours']['ms_p50']):.0f}", *peers])
    head = ["job", "variables × draws", "threads", "sltfast, ms", "half gemm", "gemm", "PyTorch", "devinterp"]
    return markdown(head, body)


def latest(rows: Rows) -> list[dict[str, dict[str, str]]]:
    """The variants of every case of the regimes, by name, as last measured; cases in the order of the regimes."""
    cases: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: row["date"]):
        key = (row["regime"], row["axis"], row["case"], row["threads"])
        if row["variant"] == "ours" or key not in cases:
            cases[key] = {}
        cases[key][row["variant"]] = row
    return sorted(cases.values(), key=lambda case: int(re.sub(r"\D", "", case["ours"]["regime"]) or 0))


def first(case: dict[str, dict[str, str]], role: str) -> dict[str, str] | None:
    """The first variant of a role."""
    return next((row for row in case.values() if row["role"] == role), None)


def regimes(rows: Rows) -> str:
    """Milliseconds of ours and of the peer, the best of the other peers, and the floor in shares of ours."""
    body = []
    for case in latest([row for row in rows if row["unit"] == "ms"]):
        ours, peer, floor = case["ours"], first(case, "peer"), first(case, "floor")
        if peer is None:
            continue
        others = [float(row["ratio_to_ours"]) for row in case.values() if row["role"] == "peer" and row is not peer]
        body.append(
            [
                f"{ours['regime']} {ours['case']}",
                ours["per"],
                ours["threads"],
                significant(ours["p50"]),
                f"{significant(peer['p50'])} ({peer['variant']})",
                f"{float(peer['ratio_to_ours']):.1f}",
                f"{min(others):.1f}" if others else "",
                f"{1 / float(floor['ratio_to_ours']):.2f}" if floor else "",
                _share(case, ("floor: GEMMs", "floor: other ops")),
                ours["target"],
            ]
        )
    head = [
        "regime",
        "ms a",
        "threads",
        "sltfast",
        "peer",
        "× faster",
        "than the best other",
        "× the floor",
        "floor and other ops",
        "target",
    ]
    return markdown(head, body)


def _share(case: dict[str, dict[str, str]], names: tuple[str, ...]) -> str:
    """What these variants take together, in per cent of ours; nothing where one was not measured."""
    if not all(name in case for name in names):
        return ""
    return f"{100 * sum(float(case[name]['ratio_to_ours']) for name in names):.0f} %"


def significant(number: str) -> str:
    """Three digits, without an exponent."""
    value = float(number)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def memory(rows: Rows) -> str:
    """Peak memory in multiples of the model's."""
    body = [
        [
            case["ours"]["case"],
            significant(case["ours"]["p50"]),
            significant(case["devinterp"]["p50"]) if "devinterp" in case else "",
            significant(first(case, "floor")["p50"]),  # type: ignore[index]
            case["ours"]["target"],
        ]
        for case in latest([row for row in rows if row["regime"] == "P9"])
    ]
    return markdown(["peak beside the model, × the model", "sltfast", "devinterp", "floor", "target"], body)


def counts(rows: Rows) -> str:
    """Launches, host synchronisations and bytes of a step."""
    body = [
        [
            case["ours"]["case"],
            case["ours"]["unit"],
            significant(case["ours"]["p50"]),
            significant(case["devinterp"]["p50"]) if "devinterp" in case else "",
            case["ours"]["target"],
        ]
        for case in latest([row for row in rows if row["regime"] == "P10"])
    ]
    return markdown(["one step of all chains", "in", "sltfast", "devinterp", "target"], body)


def import_time(rows: Rows) -> str:
    """The statement that names what it imports, against torch."""
    (named,) = (row for row in rows if row["statement"].startswith("from sltfast"))
    return f"{float(named['ratio_of_minima']):.2f} × `import torch`"


def drop_in(rows: Rows) -> str:
    """The same script with both packages: milliseconds and their ratio, as last measured."""
    last: dict[str, dict[str, dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: row["date"]):
        last.setdefault(row["regime"], {})[row["package"]] = row
    body = []
    for _, packages in sorted(last.items()):
        ours, theirs = packages["sltfast"], packages["devinterp"]
        times = [significant(row["ms_p50"]) for row in (ours, theirs)]
        case = ours["case"] + (f" ({theirs['note']})" if theirs["note"] else "")
        body.append([case, ours["per"], *times, f"{float(theirs['ratio_to_ours']):.1f}", ours["target"]])
    return markdown(["script (devinterp's side)", "ms a", "sltfast", "devinterp", "× faster", "target"], body)


def parity_exact(rows: Rows) -> str:
    """By case, arrays with devinterp's bits in each precision; where not all have them, the largest difference."""
    cases: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        if row["mode"] == "exact":
            case, precision = row["case"].rsplit(", ", 1)
            bits = f"{row['same_bits']} of {row['arrays']}"
            whole = row["same_bits"] == row["arrays"]
            apart = "" if whole else f", the rest {row['largest_difference']} off"
            cases.setdefault((case, row["compared"]), {})[precision] = bits + apart
    body = [[*case, cells["float32"], cells["float64"]] for case, cells in cases.items()]
    return markdown(["settings", "compared", "devinterp's bits, float32", "float64"], body)


def parity_fast(rows: Rows) -> str:
    """By case, the smallest p-value of each group of statistics."""
    cases: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        if row["mode"] == "fast":
            cases.setdefault((row["case"], row["chains"]), {})[row["compared"]] = f"{float(row['p']):.2g}"
    body = [[*case, p["λ̂"], p["χ"], p["BIF"]] for case, p in cases.items()]
    return markdown(["settings", "chains", "p of λ̂", "p of 4 χ", "p of 10 influences"], body)


def parity_power(rows: Rows) -> str:
    """By wrong setting, the p-value of λ̂."""
    body = [[row["case"], row["chains"], f"{float(row['p']):.0e}"] for row in rows if row["mode"] == "power"]
    return markdown(["the sampler compared with devinterp's", "chains", "p of λ̂"], body)


def survival(rows: Rows) -> str:
    """By fault and kind of run: how often, and the most rows that were on disk at one of the faults."""
    body = [[row["fault"], row["run"], row["count"], row["rows_held"]] for row in rows]
    return markdown(["fault", "run", "met", "most rows on disk at one"], body)


def defects() -> str:
    """Where devinterp is wrong: theirs, ours, why, and the native call."""
    from sltfast.compat.defects import DEFECTS

    rows = [[key, row.theirs, row.ours, row.why, row.native] for key, row in DEFECTS.items()]
    head = ["", "devinterp", "its face here", "why it matters", "natively"]
    return markdown(head, [[cell.replace("|", "\\|") for cell in row] for row in rows]).replace("---:", "---")


TABLES: dict[str, Callable[[Rows], str]] = {
    "langevin_step": langevin_step,
    "token_loss": token_loss,
    "per_sample": per_sample,
    "comoment": comoment,
    "import_time": import_time,
    "regimes": regimes,
    "regimes: memory": memory,
    "regimes: counts": counts,
    "drop_in": drop_in,
    "parity: exact": parity_exact,
    "parity: fast": parity_fast,
    "parity: power": parity_power,
    "survival": survival,
}


def filled(text: str) -> str:
    """Return a page with every marked place filled from its file."""

    def fill(found: re.Match[str]) -> str:
        with (RESULTS / f"{found[2]}.csv").open() as file:
            numbers = TABLES[found[2] + (found[3] or "")](list(csv.DictReader(file)))
        edge = "\n\n" if "\n" in numbers else ""  # a blank line ends the comment, as Markdown sees it
        return found[1] + edge + numbers + edge + "<!-- end -->"

    if DEFECTS_MARK in text:
        start = text.index(DEFECTS_MARK) + len(DEFECTS_MARK)
        text = f"{text[:start]}\n\n{defects()}\n\n{text[text.index('<!-- end -->', start) :]}"
    return re.sub(r"(<!-- from (\w+)\.csv(: \w+)? -->).*?<!-- end -->", fill, text, flags=re.DOTALL)


def main() -> int:
    """Rewrite the pages, or say which of them have to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 where numbers differ")
    options = parser.parse_args()
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    for page in stale:
        if options.check:
            print(f"{page.name} differs from benchmarks/results: run benchmarks/readme_tables.py", file=sys.stderr)
        else:
            page.write_text(filled(page.read_text()))
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
