"""``python -m sltfast.compat script.py``: a script written for devinterp, unchanged, on sltfast's engine."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

from sltfast.compat.exactness import exact
from sltfast.compat.installation import install
from sltfast.compat.running import run_module, run_script, script_code
from sltfast.compat.versions import FACES

BAD_USE = 2


def parser() -> argparse.ArgumentParser:
    """The parser of what stands before the script."""
    words = argparse.ArgumentParser(
        prog="python -m sltfast.compat",
        usage="python -m sltfast.compat [--version {auto,2,1}] [--exact] (script.py | -m module) [arguments ...]",
        description="Run a script that imports devinterp, unchanged: `import devinterp` means sltfast's faces.",
        epilog="Everything behind the script or module is its own. The exit code is the script's.",
    )
    words.add_argument(
        "--version",
        choices=("auto", *FACES),
        default="auto",
        help="of devinterp: 2 (2.0.1), 1 (1.3.2), or auto, as each file's imports need (default)",
    )
    words.add_argument("--exact", action="store_true", help="devinterp's numbers bit for bit, slower (CPU)")
    words.add_argument("-m", dest="module", metavar="module", help="run a module, as python -m does")
    words.add_argument("script", nargs="?", help="file to run")
    return words


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """What is this command's, up to the script or module, and what is the script's own.

    Args:
        words: the command line behind ``python -m sltfast.compat``.
    """
    i = 0
    while i < len(words):
        word = words[i]
        if word == "-m":
            return words[: i + 2], words[i + 2 :]
        if word.startswith("-m") and not word.startswith("--"):
            return words[: i + 1], words[i + 1 :]
        if not word.startswith("-"):
            return words[: i + 1], words[i + 1 :]
        i += 2 if word == "--version" else 1
    return words, []


def main() -> None:
    """Run what the command line names; errors, interrupts and exit codes are the script's."""
    own, arguments = split(sys.argv[1:])
    words = parser()
    options = words.parse_args(own)
    if options.script is None and options.module is None:
        words.error("name a script or -m module to run")
    install(options.version)
    with exact() if options.exact else nullcontext():
        if options.module is not None:
            run_module(options.module, arguments)
            return
        try:
            code = script_code(options.script)
        except OSError as error:
            words.exit(BAD_USE, f"{words.prog}: can't open {options.script!r}: {error.strerror}\n")
        run_script(options.script, code, arguments)


if __name__ == "__main__":
    main()
