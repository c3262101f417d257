"""The command `sltfast`: parse, run a subcommand, and turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from sltfast import __version__
from sltfast.commands import SUBCOMMANDS
from sltfast.errors import AllChainsDied, NotEnoughMemory
from sltfast.extras import MissingExtra

OK, BAD_INPUT, SAMPLING_FAILED, INTERRUPTED = 0, 2, 3, 130


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="sltfast",
        description="Learning coefficients, susceptibilities and influences of neural networks, with error bars.",
        epilog="Exit codes: 0 done, 2 bad input, 3 every chain diverged, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"sltfast {__version__}")
    top.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in SUBCOMMANDS.items():
        inner = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=command.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(inner)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; None for the process's own.

    Returns:
        The exit code: 0 done, 2 bad input, 3 every chain diverged or memory ran out, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # λ̂ must not stop a run on an ASCII terminal
    arguments = parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            return SUBCOMMANDS[arguments.command].run(arguments)
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted", INTERRUPTED)
    except (AllChainsDied, NotEnoughMemory) as error:
        return _fail(error, SAMPLING_FAILED, arguments.traceback)
    except (ValueError, TypeError, OSError, MissingExtra) as error:
        return _fail(error, BAD_INPUT, arguments.traceback)


def _fail(reason: object, code: int, traceback: bool = False) -> int:
    if traceback and isinstance(reason, BaseException):
        raise reason
    notes = [note for note in getattr(reason, "__notes__", []) if "\n" not in note]  # where it was: "at step 100"
    print(f"sltfast: {'; '.join([str(reason), *notes])}", file=sys.stderr)
    return code


def _one_line(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, RuntimeWarning | UserWarning):
        print(f"sltfast: warning: {message}", file=sys.stderr)
