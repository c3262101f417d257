"""What a number depends on beside the code that was measured: processor, versions, commit."""

from __future__ import annotations

import datetime
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
FACTS = ("date", "commit", "isa", "cpu", "torch", "sltfast", "devinterp", "python")


def cpu_name() -> str:
    """The processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def commit() -> str:
    """The commit measured, with + where the package or the benchmarks were edited since."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return run.stdout.strip()

    edited = git("status", "--porcelain", "--untracked-files=no", "--", "sltfast", "csrc", "benchmarks/**/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if edited else "")


def facts() -> dict[str, str]:
    """FACTS and their values."""
    from sltfast.ops.backend import build_facts

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return ""

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    built = str((build_facts() or {}).get("isa", ""))
    versions = [installed(package) for package in ("torch", "sltfast", "devinterp")]
    return dict(zip(FACTS, [now, commit(), built, cpu_name(), *versions, platform.python_version()], strict=True))
