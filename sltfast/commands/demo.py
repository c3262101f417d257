"""`sltfast demo`: train a small transformer and follow its learning coefficient."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sltfast.commands.settings import Setting, resolve

if TYPE_CHECKING:
    from sltfast.demo import Plan, Point, Responses

SUMMARY = "train a small transformer on real text, follow its learning coefficient, and see what its heads answer to"
DESCRIPTION = """\
Train a small GPT-NeoX over bytes on CPython's own sources and help texts, keep
about ten checkpoints, and estimate λ̂ ± SE at each with four SGLD chains. Of the
last one, estimate the susceptibility χ of every head to code and to prose, and the
influence of passages on each other.

Writes checkpoints, draws (zarr), results.csv, figures and report.html. Run again with the same
output directory to go on after an interruption."""
EPILOG = ""
TRAINING = (
    Setting("steps", int, "training steps"),
    Setting("checkpoints", int, "checkpoints to keep"),
    Setting("hidden_size", int, "width of the transformer"),
    Setting("layers", int, "depth of the transformer"),
    Setting("heads", int, "attention heads"),
    Setting("context", int, "tokens in a row"),
    Setting("max_rows", int, "rows of text to use"),
    Setting("seed", int, "seed of the initial weights and the order of rows"),
)
SAMPLING = (
    Setting("lr", float, "step size ε"),
    Setting("n_beta", float, "inverse temperature nβ"),
    Setting("localization", float, "γ"),
    Setting("num_chains", int, "chains at each checkpoint"),
    Setting("num_burnin_steps", int, "steps before the first draw"),
    Setting("num_draws", int, "draws of each chain"),
    Setting("batch_size", int, "rows of a mini-batch"),
    Setting("init_seed", int, "seed of noise and data order"),
)
# Two threads gain little on a model this small and lose tenfold where another process wants a core.
THREADS = Setting("threads", int, "CPU threads", 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument(
        "--output-dir", default="sltfast-demo", metavar="DIR", help="where everything goes (./sltfast-demo)"
    )
    parser.add_argument("--full", action="store_true", help="a larger model and longer chains (about an hour)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    for title, group in (("training", TRAINING), ("sampling", SAMPLING)):
        arguments = parser.add_argument_group(title, "override the plan")
        for setting in group:
            setting.add_to(arguments)
    THREADS.add_to(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, follow, report."""
    from sltfast.extras import require

    for package, extra in (("transformers", "hf"), ("matplotlib", "plots"), ("jinja2", "report")):
        require(package, extra=extra, purpose="for the demonstration")
    import torch

    from sltfast import write_report
    from sltfast.demo import follow_training, respond, results_table, write_figures, write_results
    from sltfast.demo.follow import python_rows

    torch.set_num_threads(resolve([THREADS], arguments, None)["threads"])
    plan = _plan(arguments)
    folder = Path(arguments.output_dir)
    started = time.monotonic()
    shown = not (arguments.quiet or arguments.json)
    if shown:
        print(_introduction(plan), flush=True)
    with _told_how_to_resume(folder):
        rows = python_rows(plan.training.context, plan.training.max_rows)
        progress = not arguments.quiet
        followed = follow_training(plan, folder, rows=rows, progress=progress, report=_say if shown else None)
        last = followed.trained.checkpoints[followed.points[-1].step]
        responses = respond(last, rows, plan.sampling, folder, progress=progress)
    written = [write_results(followed.points, folder), *write_figures(followed, folder)]
    page = write_report(folder, folder / "report.html", "bytes", title="A small GPT-NeoX over bytes", umap=False)
    if arguments.json:
        print(json.dumps(_as_json(followed.points, responses), indent=2, ensure_ascii=False))
        return 0
    print(f"\n{results_table(followed.points)}\n\n{_advice(followed.points)}")
    print(_answers(responses))
    print(f"{time.monotonic() - started:.0f} s; written: {', '.join(str(path) for path in [*written, page])}")
    print(f"any checkpoint can be measured again: sltfast llc {last} YOUR_TEXT.txt --tokenizer bytes --lr 5e-5 …")
    return 0


def _plan(arguments: argparse.Namespace) -> Plan:
    from sltfast.demo import FULL, SMALL, Plan

    base = FULL if arguments.full else SMALL
    training = {name: value for name, value in resolve(TRAINING, arguments, None).items() if value is not None}
    sampling = {name: value for name, value in resolve(SAMPLING, arguments, None).items() if value is not None}
    return Plan(dataclasses.replace(base.training, **training), dataclasses.replace(base.sampling, **sampling))


def _introduction(plan: Plan) -> str:
    training, sampling = plan.training, plan.sampling
    return (
        f"GPT-NeoX over bytes, {training.layers} layers of width {training.hidden_size}, {training.steps} steps on "
        f"CPython's own sources and help texts;\nthen {sampling.num_chains} chains of "
        f"{sampling.num_burnin_steps} + {sampling.num_draws} SGLD steps at each of "
        f"{len(training.checkpoint_steps())} checkpoints "
        f"(ε {sampling.lr:g}, nβ {sampling.n_beta:g}, γ {sampling.localization:g})"
    )


def _say(point: Point) -> None:
    from sltfast.tables import plus_minus

    print(f"step {point.step}: loss {point.loss:.3f}, λ̂ = {plus_minus(point.llc, point.se)}", flush=True)


def _advice(points: list[Point]) -> str:
    doubtful = [point for point in points if not point.converged]
    return "".join(
        f"step {point.step} {point.result.attrs['verdict']}: {point.result.attrs['advice']}\n" for point in doubtful
    )


def _answers(responses: Responses) -> str:
    """χ of every head by kind of text, and some passages with those that influence them most."""
    from sltfast.inputs.corpus import piece_of_byte
    from sltfast.report.plain_text import component_table, neighbour_lists

    heads = component_table(responses.susceptibilities)
    return (
        f"χ: how the loss that a head's freedom costs moves when the data move towards code, or prose\n\n{heads}\n\n"
        "BIF: passages whose losses move together; more weight on a neighbour lowers the passage's loss\n\n"
        f"{neighbour_lists(responses.influences, piece_of_byte, each=2)}\n"
    )


def _as_json(points: list[Point], responses: Responses) -> dict[str, object]:
    from sltfast.commands import bif, estimate, susceptibilities

    facts = ({"step": point.step, "train_loss": point.loss} for point in points)
    return {
        "checkpoints": [estimate.as_json(point.result, fact) for point, fact in zip(points, facts, strict=True)],
        "components": susceptibilities.as_json(responses.susceptibilities),
        "pairs": bif.strongest(responses.influences),
    }


@contextlib.contextmanager
def _told_how_to_resume(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"interrupted; {folder} keeps what is done and the same command goes on from there"
        ) from interrupt
