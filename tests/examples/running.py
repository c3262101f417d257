"""Run an example as a user would, in this process: its modules are loaded already."""

import contextlib
import io
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_here(name: str, *arguments: object) -> tuple[str, int]:
    """The standard output and the exit status of ``examples/NAME.py``; torch's threads are given back."""
    said, status = io.StringIO(), 0
    given = [str(EXAMPLES / name), *map(str, arguments)]
    with threads_given_back(), patch.object(sys, "argv", given), contextlib.redirect_stdout(said):
        try:
            runpy.run_path(given[0], run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return said.getvalue(), status


@contextlib.contextmanager
def threads_given_back() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
