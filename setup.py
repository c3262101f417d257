"""Builds sltfast._C: every csrc/*.cpp and csrc/cpu/*.cpp in one shared object, by ninja.

The kernel files are compiled once for each instruction set; which one runs is decided when it is loaded.
"""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH_TARGET = "0x020a000000000000"  # the stable ABI of torch 2.10: one binary for it and every later release
KERNEL_FLAGS = [
    *("-fschedule-insns", "-fsched-pressure"),  # gcc: interleaves the rounds of Philox before registers are chosen
    *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),  # gcc 12 warns about its own _mm512_undefined_ps
]
CPU_SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc/cpu").glob("*.cpp"))
KERNELS = [path for path in CPU_SOURCES if path.endswith("_kernel.cpp")]
SOURCES = ["csrc/registry.cpp", "csrc/module.cpp", *(path for path in CPU_SOURCES if path not in KERNELS)]
ISA_FLAGS = {"generic": []}
if platform.machine() in ("x86_64", "AMD64"):
    ISA_FLAGS["avx2"] = ["-mavx2", "-mfma"]
    ISA_FLAGS["avx512"] = [
        *ISA_FLAGS["avx2"],
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"),
    ]


class NinjaBuild(build_ext):
    """Compiles in parallel and again only what an edited source, header, flag or torch touches."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11
        import torch

        torch_home = Path(torch.__file__).resolve().parent
        includes = [
            torch_home / "include",
            Path(pybind11.get_include()),
            Path(sysconfig.get_paths()["include"]),
        ]
        flags = [
            *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
            "-ffp-contract=off",  # a fused multiply-add only where the source says fma
            f"-DTORCH_TARGET_VERSION={TORCH_TARGET}",
            f'-DSLTFAST_VERSION="{self.distribution.get_version()}"',
            *(f"-DSLT_HAS_{isa.upper()}" for isa in ISA_FLAGS),
            *(f"-isystem{path}" for path in includes),
            *shlex.split(os.environ.get("CXXFLAGS", "")),
        ]
        link = [
            *("-shared", f"-L{torch_home / 'lib'}", "-Wl,--no-as-needed", "-ltorch_cpu", "-ltorch"),
            *shlex.split(os.environ.get("LDFLAGS", "")),
        ]
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        # module.cpp is pybind11 glue: optimising it is a third of the build and buys nothing
        objects = [(source, Path(source).stem, ["-O1"] if "module" in source else []) for source in SOURCES] + [
            (kernel, f"{Path(kernel).stem}_{isa}", [f"-DSLT_ISA={isa}", *isa_flags, *KERNEL_FLAGS])
            for kernel in KERNELS
            for isa, isa_flags in ISA_FLAGS.items()
        ]
        (build / "build.ninja").write_text(_rules(objects, flags, link, target), encoding="utf-8")
        subprocess.run([*_ninja(), *([] if self.verbose else ["--quiet"])], cwd=build, check=True)


def _ninja() -> list[str]:
    beside = Path(sys.executable).with_name("ninja")
    return [str(beside) if beside.exists() else "ninja"]


def _rules(objects: list[tuple[str, str, list[str]]], flags: list[str], link: list[str], target: Path) -> str:
    def quoted(arguments: list[str]) -> str:
        return shlex.join(arguments).replace("$", "$$")

    def path(value: Path | str) -> str:
        return str(value).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

    lines = [
        "ninja_required_version = 1.5",
        f"cxx = {os.environ.get('CXX', 'g++')}",
        f"flags = {quoted(flags)}",
        "rule compile",
        "  command = $cxx -MD -MF $out.d $flags $own -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = compile $out",
        "rule link",
        f"  command = $cxx $in {quoted(link)} -o $out",
        "  description = link $out",
    ]
    for source, name, own_flags in objects:
        lines += [f"build {name}.o: compile {path(ROOT / source)}", f"  own = {quoted(own_flags)}"]
    lines += [f"build {path(target)}: link {' '.join(f'{name}.o' for _, name, _ in objects)}", ""]
    return "\n".join(lines)


setup(
    packages=[*find_packages(include=["sltfast", "sltfast.*"]), "sltfast.triton_kernels"],
    package_dir={"sltfast.triton_kernels": "triton_kernels"},
    ext_modules=[Extension("sltfast._C", sources=[*SOURCES, *KERNELS])],
    cmdclass={"build_ext": NinjaBuild},
)
