"""Compiles a .cpp that includes a .cuh, as a library for ctypes or as a program under a sanitizer.

What is built is kept in build/cuda_threads under a name that is a hash of the sources, the headers they include and
the flags.
"""

import ctypes
import hashlib
import os
import shlex
import subprocess
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "cuda_threads"
SANITIZERS = {
    "plain": [],
    "memory": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "races": ["-fsanitize=thread"],
}


@cache
def flags() -> list[str]:
    """g++'s; a fused multiply-add in hardware where there is one, as the kernels have on a GPU."""
    fuses = Path("/proc/cpuinfo").exists() and " fma " in Path("/proc/cpuinfo").read_text()
    return [
        *("-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-pthread", "-ffp-contract=off"),
        "-Wno-unknown-pragmas",  # nvcc's
        *(["-mfma"] if fuses else []),
        *("-DSLT_ON_THREADS", f"-I{HERE}", f"-I{ROOT / 'csrc' / 'cuda'}", f"-I{ROOT / 'csrc'}"),
    ]


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "g++"))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    return done.stdout


@cache
def _digest(source: Path) -> str:
    rule = _run([*_compiler(), *flags(), "-MM", str(source)])
    files = shlex.split(rule.replace("\\\n", " ").partition(":")[2])
    digest = hashlib.sha256(_run([*_compiler(), "--version"]).encode())
    for file in files:
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _built(name: str, own: list[str], suffix: str) -> Path:
    source = HERE / f"{name}.cpp"
    key = hashlib.sha256(shlex.join([_digest(source), *flags(), *own]).encode()).hexdigest()[:16]
    target = BUILD / f"{name}-{key}{suffix}"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        for stale in BUILD.glob(f"{name}-*{suffix}"):
            stale.unlink(missing_ok=True)
        unfinished = target.with_name(f"{target.name}.{os.getpid()}")
        _run([*_compiler(), *flags(), *own, str(source), "-o", str(unfinished)])
        unfinished.replace(target)
    return target


def library(name: str) -> ctypes.CDLL:
    """`name`.cpp as a shared library; pass it `tensor.data_ptr()`."""
    return ctypes.CDLL(str(_built(name, ["-shared", "-fPIC"], ".so")))


def run_program(name: str, sanitizer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Build and run `name`.cpp's main under `sanitizer`, a key of SANITIZERS."""
    program = _built(name, SANITIZERS[sanitizer], f".{sanitizer}")
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=300)


def assert_clean(name: str, sanitizer: str, *arguments: str) -> None:
    """`name`'s main must return 0 and the sanitizer must find nothing."""
    done = run_program(name, sanitizer, *arguments)
    assert done.returncode == 0, f"{name} under {sanitizer}: {done.returncode}\n{done.stdout}\n{done.stderr}"
