"""Builds sltfast._C: every csrc/*.cpp and csrc/cpu/*.cpp in one shared object, by ninja.

The kernel files are compiled once for each instruction set; which one runs is decided when it is loaded. The CUDA
kernels, csrc/cuda/*.cu, go to sltfast/libsltfast_cuda.so where nvcc is found and torch has CUDA of the same major
version; SLTFAST_CUDA=1 asks for them whatever torch is, SLTFAST_CUDA=0 forbids them.
"""

import os
import platform
import re
import shlex
import shutil
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
CUDA_SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc/cuda").glob("*.cu"))
CUDA_LIBRARY = "libsltfast_cuda.so"
CUDA_ARCHS = (80, 90, 100, 120)
CUDA_FLAGS = [
    *("-std=c++17", "-O3", "-fmad=false", "-DUSE_CUDA", f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"),
    *("-Xcompiler", "-fPIC,-fvisibility=hidden"),
    *(f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHS),
    f"-gencode=arch=compute_{CUDA_ARCHS[-1]},code=compute_{CUDA_ARCHS[-1]}",  # what is newer compiles this on loading
]


class NinjaBuild(build_ext):
    """Compiles in parallel and again only what an edited source, header, flag or torch touches."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11
        import torch

        torch_home = Path(torch.__file__).resolve().parent
        nvcc = _nvcc(torch.version.cuda)
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
        glue = ["-O1", f"-DSLTFAST_CUDA_ARCHS={','.join(map(str, CUDA_ARCHS if nvcc else ()))}"]
        objects = [(source, Path(source).stem, glue if "module" in source else []) for source in SOURCES] + [
            (kernel, f"{Path(kernel).stem}_{isa}", [f"-DSLT_ISA={isa}", *isa_flags, *KERNEL_FLAGS])
            for kernel in KERNELS
            for isa, isa_flags in ISA_FLAGS.items()
        ]
        rules = _rules(objects, flags, link, target)
        cuda = target.with_name(CUDA_LIBRARY)
        if nvcc:
            rules += _cuda_rules(nvcc, torch_home, cuda)
        else:
            cuda.unlink(missing_ok=True)  # of an earlier build, for other sources
        (build / "build.ninja").write_text(rules, encoding="utf-8")
        subprocess.run([*_ninja(), *([] if self.verbose else ["--quiet"])], cwd=build, check=True)

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        package = Path(self.get_finalized_command("build_py").get_package_dir("sltfast"))
        built = Path(self.build_lib) / "sltfast" / CUDA_LIBRARY
        (package / CUDA_LIBRARY).unlink(missing_ok=True)
        if built.exists():
            shutil.copy(built, package)


def _nvcc(cuda_of_torch: str | None) -> str | None:
    """Path of nvcc if the CUDA kernels are to be built."""
    wanted = os.environ.get("SLTFAST_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit(f"SLTFAST_CUDA must be 0 or 1, got {wanted!r} (unset it: built where nvcc and torch allow)")
    nvcc = shutil.which("nvcc", path=os.pathsep.join([f"{os.environ.get('CUDA_HOME', '')}/bin", os.environ["PATH"]]))
    if wanted == "1" and nvcc is None:
        raise SystemExit("SLTFAST_CUDA=1, but there is no nvcc on PATH or in CUDA_HOME/bin")
    if wanted or nvcc is None:
        return nvcc if wanted == "1" else None
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.search(r"release (\d+)\.", version)
    return nvcc if cuda_of_torch and major and cuda_of_torch.split(".")[0] == major[1] else None


def _ninja() -> list[str]:
    beside = Path(sys.executable).with_name("ninja")
    return [str(beside) if beside.exists() else "ninja"]


def _quoted(arguments: list[str]) -> str:
    return shlex.join(arguments).replace("$", "$$")


def _escaped(value: Path | str) -> str:
    return str(value).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _rules(objects: list[tuple[str, str, list[str]]], flags: list[str], link: list[str], target: Path) -> str:
    lines = [
        "ninja_required_version = 1.5",
        f"cxx = {os.environ.get('CXX', 'g++')}",
        f"flags = {_quoted(flags)}",
        "rule compile",
        "  command = $cxx -MD -MF $out.d $flags $own -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = compile $out",
        "rule link",
        f"  command = $cxx $in {_quoted(link)} -o $out",
        "  description = link $out",
    ]
    for source, name, own_flags in objects:
        lines += [f"build {name}.o: compile {_escaped(ROOT / source)}", f"  own = {_quoted(own_flags)}"]
    lines += [f"build {_escaped(target)}: link {' '.join(f'{name}.o' for _, name, _ in objects)}", ""]
    return "\n".join(lines)


def _cuda_rules(nvcc: str, torch_home: Path, target: Path) -> str:
    """The CUDA runtime is torch's own, already loaded; libtorch_cuda's symbols are found when torch loads this."""
    compile_one = [nvcc, *CUDA_FLAGS, f"-isystem={torch_home / 'include'}"]
    libraries = [f"-L{torch_home / 'lib'}", "-Xlinker", "--no-as-needed", "-ltorch_cpu", "-ltorch"]
    objects = [(source, f"{Path(source).stem}_cuda.o") for source in CUDA_SOURCES]
    lines = [
        "rule nvcc",
        f"  command = {_quoted(compile_one)} -MD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = compile $out",
        "rule link_cuda",
        f"  command = {_quoted([nvcc, '-shared', '-cudart=shared'])} $in {_quoted(libraries)} -o $out",
        "  description = link $out",
        *(f"build {name}: nvcc {_escaped(ROOT / source)}" for source, name in objects),
        f"build {_escaped(target)}: link_cuda {' '.join(name for _, name in objects)}",
        "",
    ]
    return "\n".join(lines)


setup(
    packages=[*find_packages(include=["sltfast", "sltfast.*"]), "sltfast.triton_kernels"],
    package_dir={"sltfast.triton_kernels": "triton_kernels"},
    ext_modules=[Extension("sltfast._C", sources=[*SOURCES, *KERNELS])],
    cmdclass={"build_ext": NinjaBuild},
)
