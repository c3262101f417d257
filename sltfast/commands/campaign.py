"""`sltfast campaign CONFIG`: many cells, described by a file, one after the other."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sltfast.campaign.configuration import Campaign
    from sltfast.campaign.cost import Estimate
    from sltfast.campaign.running import Runner

SUMMARY = "measure checkpoints × settings × data sets × restrictions, as a file says"
DESCRIPTION = """\
Measure every cell of checkpoints × settings × data sets × restrictions, each a run of
its own in one folder. The same command goes on where it was interrupted and does not
run again what is finished. What it will take is timed on a few steps and printed first.

CONFIG  a .toml or .json file"""
EPILOG = """\
a file:
  model = "./model"            # or: checkpoints = "run/step-*"
  measure = "llc"              # or "susceptibilities"
  restrictions = ["full", "all heads", "l0 mlp"]
  output_dir = "runs"          # default: the file's own name
  [data]
  corpus = "corpus.txt"
  code = ["a.py", "b.py"]
  [settings]                   # those of sltfast llc
  lr = 1e-5
  localization = 1000
  num_draws = 100
  [variants.cold]              # each overrides settings; leave them out for one
  n_beta = 100
  [variants.warm]
  n_beta = 10

  sltfast campaign study.toml --plan
  sltfast campaign study.toml
  sltfast report runs --tokenizer ./model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--plan", action="store_true", help="print what there is to do and what it will take, and stop")
    parser.add_argument("--output-dir", metavar="DIR", help="folder for the runs, in place of the file's")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace) -> int:
    """Read the file, say what there is to do, measure."""
    from sltfast.campaign.configuration import read
    from sltfast.commands.language_model import silent_libraries

    campaign = read(arguments.config).into(arguments.output_dir)
    if campaign.place["threads"] is not None:
        import torch

        torch.set_num_threads(campaign.place["threads"])
    from sltfast.campaign.cells import states
    from sltfast.campaign.cost import estimated
    from sltfast.campaign.running import Runner

    with silent_libraries():
        runner = Runner(campaign)
    there = dict(states(campaign, list(runner.restrictions)))
    shown = not (arguments.json or arguments.quiet)
    estimate = estimated(runner, there) if shown or arguments.plan else None
    if estimate is not None and not arguments.json:
        print(_plan_as_text(campaign, there, estimate), flush=True)
    if arguments.plan:
        if arguments.json and estimate is not None:
            print(json.dumps(_plan_as_json(there, estimate), indent=2))
        return 0
    return _measure(runner, arguments.json, shown)


def _measure(runner: Runner, as_json: bool, shown: bool) -> int:
    from sltfast.campaign.record import as_table, duration, plain, rows_of, write_csv
    from sltfast.cli import OK, SAMPLING_FAILED

    started, rows, done, total = time.monotonic(), [], 0, len(runner.groups)
    folder = runner.campaign.output_dir
    try:
        for measured in runner.measured():
            found = rows_of(measured)
            rows += found
            done += 1
            write_csv(rows, folder / "results.csv")
            if shown:
                took = duration(time.monotonic() - started)
                print(f"\n{done} of {total}  {measured.group.name}  ({took})", flush=True)
                print(as_table(found) if found else "every chain diverged", flush=True)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"interrupted; {folder} keeps {done} of {total} groups and the draws so far; the same command goes on from "
            "there"
        ) from interrupt
    if as_json:
        print(json.dumps([plain(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        place = runner.campaign.place
        tokenizer = place["tokenizer"] or place["model"] or "TOKENIZER"
        print(f"\ntime      {duration(time.monotonic() - started)}\nrows      {folder / 'results.csv'}")
        print(f"page      sltfast report {shlex.quote(str(folder))} --tokenizer {shlex.quote(tokenizer)}")
    return OK if any(row["chains_alive"] for row in rows) else SAMPLING_FAILED


def _plan_as_text(campaign: Campaign, there: dict[Any, Any], estimate: Estimate) -> str:
    from sltfast.campaign.cells import counted
    from sltfast.campaign.record import duration
    from sltfast.tables import table

    rows = []
    for group, cells in there.items():
        counts = counted(cells)
        rows.append([*(str(counts[state]) for state in counts), group.name])
    lines = [f"{campaign.measure} of {sum(map(len, there.values()))} cells, in {campaign.output_dir}", ""]
    lines += [table(["finished", "begun", "to do", "group"], rows), ""]
    for variant, cost in estimate.by_variant.items():
        name = f"{variant}: " if variant else ""
        if cost is None:
            lines.append(f"{name}no chain lived through the steps that were to be timed: lower lr first")
            continue
        each = f" + {duration(cost.draw)} a draw" if cost.draw else ""
        lines.append(f"{name}a restriction takes {duration(cost.setup)} + {duration(cost.step)} a step{each}")
    left = f"{estimate.cells} cells are left, about {duration(estimate.seconds)} (timed on a few steps)"
    lines.append(left if estimate.cells else "nothing is left to do")
    return "\n".join(lines)


def _plan_as_json(there: dict[Any, Any], estimate: Estimate) -> dict[str, Any]:
    from sltfast.commands.estimate import plain

    cells = [
        {"group": group.name, "restriction": name, "state": state}
        for group, states in there.items()
        for name, state in states.items()
    ]
    return {"cells": cells, "left": estimate.cells, "seconds": plain(estimate.seconds)}
