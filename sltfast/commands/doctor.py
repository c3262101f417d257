"""`sltfast doctor`: what is installed and compiled in, which backend will run, and why another is refused."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from typing import Any

SUMMARY = "say what is installed, compiled in and used"
DESCRIPTION = "Say what is installed and compiled in, which backend will run here, and why another is refused."
EPILOG = ""
EXTRAS = {
    "hf": ("transformers", "datasets", "tokenizers", "safetensors", "accelerate", "gguf"),
    "plots": ("matplotlib",),
    "analysis": ("scikit-learn", "umap-learn"),
    "report": ("jinja2",),
    "lens": ("transformer-lens",),
    "gpu": ("triton",),
}
DTYPES = ("float32", "float64", "bfloat16", "float16")
NEEDED = ("torch", "numpy", "xarray", "zarr", "arviz-stats", "tqdm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Print the facts."""
    facts = diagnose()
    print(json.dumps(facts, indent=2, default=str) if arguments.json else as_text(facts))
    return 0


def diagnose() -> dict[str, Any]:
    """What is installed, compiled in, and used on each device here."""
    import torch

    from sltfast import __version__
    from sltfast.ops import backend, registration

    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return {
        "sltfast": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in NEEDED},
        "torch": {
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.version.cuda,
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
        "compiled": backend.build_facts(),
        "backends": {
            device: {
                op: {
                    "runs": {
                        dtype: registration.runs(op, torch.device(device), getattr(torch, dtype)) for dtype in DTYPES
                    },
                    "refused": backend.refusals(op, torch.device(device)),
                }
                for op in registration.OPS
            }
            for device in devices
        },
        "extras": {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()},
    }


def as_text(facts: dict[str, Any]) -> str:
    """The facts for a person."""
    torch = facts["torch"]
    lines = [
        f"sltfast {facts['sltfast']}   Python {facts['python']}   {facts['platform']}",
        f"torch {torch['version']}   {torch['threads']} threads on {torch['cpus']} CPUs ({torch['cpu_capability']})   "
        + (f"CUDA {torch['cuda']}: {', '.join(torch['gpus'])}" if torch["gpus"] else "no GPU"),
        "",
        "compiled in",
        *(
            [f"  {name}: {_spoken(value)}" for name, value in facts["compiled"].items()]
            or ["  nothing: plain PyTorch runs"]
        ),
    ]
    for device, ops in facts["backends"].items():
        lines += ["", *_backends(device, ops)]
    lines += ["", "packages", f"  {_versions(facts['packages'])}", "", "extras"]
    for extra, packages in facts["extras"].items():
        absent = [name for name, version in packages.items() if version is None]
        present = {name: version for name, version in packages.items() if version is not None}
        state = "complete" if not absent else f"pip install 'sltfast[{extra}]' adds {', '.join(absent)}"
        lines.append(f"  {extra}: {state}" + (f"   ({_versions(present)})" if present else ""))
    return "\n".join(lines)


def _backends(device: str, ops: dict[str, Any]) -> list[str]:
    """What runs by op and dtype, then each reason for a refusal once, with the ops that it holds for."""
    width = max(map(len, ops)) + 2
    lines = [f"{f'ops on {device}':{width + 2}}" + "".join(f"{dtype:11}" for dtype in DTYPES)]
    reasons: dict[tuple[str, str], list[str]] = {}
    for op, found in ops.items():
        lines.append(f"  {op:{width}}" + "".join(f"{found['runs'][dtype] or '-':11}" for dtype in DTYPES))
        for refused in found["refused"].items():
            reasons.setdefault(refused, []).append(op)
    lines.append("  -: not a dtype of its first tensor (low-precision weights are copies of float32 masters)")
    for (name, reason), held in reasons.items():
        lines.append(f"  {name} is refused{'' if len(held) == len(ops) else ' for ' + ', '.join(held)}: {reason}")
    return [line.rstrip() for line in lines]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions(packages: dict[str, str | None]) -> str:
    return "  ".join(f"{name} {version or 'missing'}" for name, version in packages.items())


def _spoken(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
