"""The regimes, measured side by side: ours, devinterp 2.0.1 and plain PyTorch, beside the floors of the machine.

    python -m benchmarks.run                    # all that take minutes
    python -m benchmarks.run --regime P3 P5 --json
    python -m benchmarks.run --scaling          # curves over chains, draws, heads, parameters (--small: in minutes)

A case whose sides find different things, or that cannot be measured here, is refused, and the exit status is 1. Rows
are appended to results/regimes.csv (scaling.csv). Progress is written to stderr; with --json, stdout holds nothing but
the list of objects.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import torch

from benchmarks import report
from benchmarks.case import Disagreement, Measurable, Plan, Result, Unavailable
from benchmarks.machine import facts
from benchmarks.regimes import REGIMES, cases, chosen


def say(words: str) -> None:
    """To stderr."""
    print(words, file=sys.stderr, flush=True)


def measured(
    groups: Iterable[tuple[str, Iterable[Measurable]]], plan: Plan, output: Path
) -> tuple[list[Result], list[str]]:
    """Measure cases one after another, each written to `output` as it is done.

    Args:
        groups: a name, for messages, and cases that are made as they are needed; one that is refused ends no other.
        plan: of the run.
        output: CSV file to append to.

    Returns:
        The results, and what was refused and why.
    """
    results: list[Result] = []
    refused: list[str] = []
    where = facts()
    for name, cases_of_it in groups:
        made = iter(cases_of_it)
        doing = name
        while True:
            try:
                doing = name
                case = next(made, None)
                if case is None:
                    break
                doing = f"{case.regime} {case.name}"
                if plan.only not in doing:
                    continue
                say(doing)
                found = case.measure(plan)
                del case
            except (Disagreement, Unavailable) as error:
                refused.append(f"{doing}: {error}")
                say(f"REFUSED {refused[-1]}")
                continue
            for result in found:
                report.append(output, report.rows(result, plan, where))
                say(report.lines(result))
            results += found
    return results, refused


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regime", nargs="+", metavar="P", help=f"of {', '.join(REGIMES)} (default: all but P13)")
    parser.add_argument("--scaling", action="store_true", help="scaling curves instead of regimes")
    parser.add_argument("--json", action="store_true", help="print a JSON list and nothing else on stdout")
    parser.add_argument("--pairs", type=int, default=5, help="timed rounds of all sides (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of every side")
    parser.add_argument("--full", action="store_true", help="what takes many minutes too")
    parser.add_argument("--small", action="store_true", help="scaling curves of minutes: fewer and smaller points")
    parser.add_argument("--case", default="", metavar="WORDS", help="only cases whose name contains these words")
    parser.add_argument("--tiny", action="store_true", help="sizes of seconds, to see that it runs")
    parser.add_argument("--without", nargs="+", default=[], metavar="PEER", help="leave peers out, such as devinterp")
    parser.add_argument("--output", type=Path, help="CSV file to append to (default: in benchmarks/results)")
    options = parser.parse_args(words)
    if options.pairs < 1 or options.threads < 1:
        parser.error(f"--pairs and --threads must be >= 1, got {options.pairs} and {options.threads}")
    try:
        options.names = chosen(options.regime, full=options.full)
    except ValueError as error:
        parser.error(str(error))
    return options


def main(words: list[str] | None = None) -> int:
    """Measure what was asked for; 1 where a case was refused."""
    options = arguments(words)
    plan = Plan(
        options.pairs,
        options.threads,
        options.tiny,
        options.full,
        frozenset(name.lower() for name in options.without),
        options.small,
        options.case,
    )
    default = report.RESULTS / ("scaling.csv" if options.scaling else "regimes.csv")
    torch.set_num_threads(plan.threads)
    with contextlib.redirect_stdout(sys.stderr):  # a package that prints must not end up in the JSON
        if options.scaling:
            from benchmarks.scaling import curves

            groups = curves(plan)
        else:
            groups = ((f"{name} ({REGIMES[name].title})", cases(name, plan)) for name in options.names)
        results, refused = measured(groups, plan, options.output or default)
    print(report.as_json(results) if options.json else "\n".join(map(report.lines, results)))
    if refused:
        say("\n".join(["refused:", *refused]))
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
