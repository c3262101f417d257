"""Every Triton kernel compiles for the GPUs that matter, without spilling a register."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sltfast.triton_kernels
from benchmarks.static.resources import resources_of
from benchmarks.static.triton_aot import ARCHITECTURES, compile_ahead

MODULES = {
    path.stem: import_module(f"sltfast.triton_kernels.{path.stem}")
    for path in sorted(Path(sltfast.triton_kernels.__path__[0]).glob("*.py"))
    if path.stem != "__init__"
}
VARIANTS = {name: module.AHEAD for name, module in MODULES.items() if hasattr(module, "AHEAD")}
# every variant for Hopper, the first of each module for the others; `make kernels` compiles all for all
COMPILATIONS = [(name, variant, 90) for name, variants in VARIANTS.items() for variant in variants] + [
    (name, variants[0], cc) for name, variants in VARIANTS.items() for cc in ARCHITECTURES if cc != 90
]


@pytest.mark.parametrize(
    ("module", "variant", "cc"), COMPILATIONS, ids=[f"{m} {v.name} sm_{cc}" for m, v, cc in COMPILATIONS]
)
def test_compiles_without_spills(module, variant, cc) -> None:
    compiled = compile_ahead(
        variant.kernel, variant.signature, variant.constexprs, cc, variant.num_warps, variant.max_registers
    )
    used = resources_of(compiled.asm["cubin"])
    assert 0 < used.registers <= 255
    assert used.stack == used.local == 0


def test_only_dtypes_and_options_are_compiled_in() -> None:
    # every number comes from device memory: Triton compiles again for another dtype or alignment, never for a value
    for variant in VARIANTS["langevin_step"]:
        assert all(kind.startswith("*") for kind in variant.signature.values())


def test_signature_must_name_every_argument() -> None:
    kernel = import_module("sltfast.triton_kernels.philox").AHEAD[0].kernel
    with pytest.raises(ValueError, match=r"wrong or missing: .*'nobody'"):
        compile_ahead(kernel, {"nobody": "*fp32"}, {}, 90)


def test_interpreter_and_compiler_do_not_mix() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import benchmarks.static.triton_aot"],
        cwd=Path(__file__).resolve().parents[2],
        env={"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert "TRITON_INTERPRET=1 is set" in run.stderr
