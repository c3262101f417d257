"""Cross-compiles csrc/ for arm64, and runs its arithmetic under qemu against this machine's: `make arm64`.

Nothing is linked against torch, which would have to be an arm64 one: every file that runs on a CPU is compiled, and the
numerics headers, which need no torch, print their numbers bit by bit.
"""

import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
import torch

ROOT = Path(__file__).resolve().parents[2]
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FLAGS = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
KNOWN = ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]  # Random123's kat_vectors for this counter and key


def run(*command: object) -> str:
    """Output of a command; an error of it is shown and ends the check."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(str(part) for part in command)}\n{done.stderr}")
    return done.stdout


def compile_source(source: Path) -> None:
    """Compile one file for arm64; the kernels as they are without vectors."""
    includes = [Path(torch.__file__).parent / "include", pybind11.get_include(), sysconfig.get_paths()["include"]]
    own = ["-DTORCH_TARGET_VERSION=0x020a000000000000", '-DSLTFAST_VERSION="0"', "-DSLT_HAS_GENERIC"]
    run(CROSS, *FLAGS, *own, *(f"-isystem{path}" for path in includes), "-c", source, "-o", "/dev/null")


def numbers(compiler: str, *flags: str, under: tuple[str, ...] = ()) -> list[str]:
    """What numbers.cpp prints."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "numbers"
        run(compiler, *FLAGS, *flags, ROOT / "tests/arm64/numbers.cpp", "-o", program)
        return run(*under, program).splitlines()


def main() -> None:
    """Compile, run, compare."""
    sources = sorted([*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_source, sources))
    theirs = numbers(CROSS, "-static", under=(EMULATOR,))
    ours = numbers("g++", *(["-mfma"] if sysconfig.get_platform().endswith("x86_64") else []))
    if theirs[:4] != KNOWN:
        sys.exit(f"Philox4x32-10 on arm64 gave {theirs[:4]}, not {KNOWN}")
    apart = [index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    if apart:
        sys.exit(f"{len(apart)} of {len(ours)} lines differ, first {ours[apart[0]]} here, {theirs[apart[0]]} on arm64")
    print(f"{len(sources)} files compiled for arm64; {len(ours)} lines of numbers agree to the bit")


if __name__ == "__main__":
    main()
