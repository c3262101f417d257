"""`import sltfast` costs little more than `import torch`: nothing else is loaded with it.

The time itself is benchmarks/import_time.py; here is what decides it, which no busy machine can disturb.
"""

import json
import sys

import pytest
from checkout import fresh_python

LATE = [
    "arviz_stats",
    "datasets",
    "gguf",
    "matplotlib",
    "pandas",
    "scipy",
    "tokenizers",
    "tqdm",
    "transformer_lens",
    "transformers",
    "triton",
    "xarray",
    "zarr",
]


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    loaded: list[str] = json.loads(fresh_python("-c", code).stdout.splitlines()[-1])
    return set(loaded)


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return modules_after("import sltfast")


@pytest.mark.parametrize("module", LATE)
def test_is_imported_on_first_use(loaded: set[str], module: str) -> None:
    assert module not in loaded


def test_nothing_outside_the_standard_library_comes_on_top_of_torch(loaded: set[str]) -> None:
    added = {name.partition(".")[0] for name in loaded - modules_after("import torch")}
    assert added <= set(sys.stdlib_module_names) | {"sltfast"}


def test_no_inductor_no_dynamo(loaded: set[str]) -> None:
    """These two cost more than all of sltfast."""
    heavy = ("torch._inductor", "torch._dynamo")
    without = modules_after("import torch")
    assert {name for name in loaded - without if name.startswith(heavy)} == set()
