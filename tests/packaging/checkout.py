"""The checkout the tests run from: its root, its source files and its project metadata."""

import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("sltfast", "csrc", "triton_kernels", "tests", "benchmarks", "examples", "website")


def source_files(*suffixes: str) -> list[Path]:
    """Return the files we wrote that end in one of `suffixes`, sorted."""
    found = (path for folder in SOURCES for path in (ROOT / folder).rglob("*"))
    written = [path for path in found if path.suffix in suffixes and "__pycache__" not in path.parts]
    return sorted([*written, *(path for path in (ROOT / "setup.py",) if path.suffix in suffixes)])


@cache
def project() -> dict[str, Any]:
    """Return the `[project]` table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def fresh_python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a new process and return it; its output is shown when it fails."""
    run = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, **options)
    assert run.returncode == 0, f"{arguments}\n{run.stdout}\n{run.stderr}"
    return run
