"""`import sltfast` costs little more than `import torch`: nothing else is loaded with it.

The time itself is benchmarks/import_time.py; here is what decides it, which no busy machine can disturb.
"""

import json
import sys
from functools import cache

import pytest
from checkout import fresh_python

import sltfast

LATE = [
    "arviz_stats",
    "datasets",
    "gguf",
    "matplotlib",
    "pandas",
    "scipy",
    "tokenizers",
    "transformer_lens",
    "transformers",
    "triton",
    "xarray",
    "zarr",
]
EVERY_NAME = f"import sltfast; [getattr(sltfast, name) for name in {sltfast.__all__}]"


@cache
def modules_after(statement: str) -> frozenset[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    loaded: list[str] = json.loads(fresh_python("-c", code).stdout.splitlines()[-1])
    return frozenset(loaded)


@pytest.mark.parametrize("module", LATE)
@pytest.mark.parametrize("statement", ["import sltfast", EVERY_NAME], ids=["package", "every public name"])
def test_is_imported_on_first_use(statement: str, module: str) -> None:
    assert module not in modules_after(statement) - modules_after("import torch")


@pytest.mark.parametrize("statement", ["import sltfast", EVERY_NAME], ids=["package", "every public name"])
def test_only_numpy_comes_on_top_of_torch(statement: str) -> None:
    added = {name.partition(".")[0] for name in modules_after(statement) - modules_after("import torch")}
    assert added <= set(sys.stdlib_module_names) | {"numpy", "sltfast"}


def test_no_inductor_no_dynamo() -> None:
    """These two cost more than all of sltfast."""
    heavy = ("torch._inductor", "torch._dynamo")
    added = modules_after(EVERY_NAME) - modules_after("import torch")
    assert {name for name in added if name.startswith(heavy)} == set()
