"""Every public name says what it takes, gives and refuses."""

import ast
import inspect
import re
import textwrap
from types import ModuleType
from typing import Any

import pytest

import sltfast

NAMES = sorted(sltfast.__all__)
# the faces of ops say what they take beside the schema, in sltfast/ops/registration.py
ROOMS = [name for name in NAMES if isinstance(getattr(sltfast, name), ModuleType) and name != "ops"]
PUBLIC = {name: getattr(sltfast, name) for name in NAMES} | {
    f"{room}.{name}": getattr(getattr(sltfast, room), name) for room in ROOMS for name in getattr(sltfast, room).__all__
}
CALLABLES = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]


def raises_itself(function: Any) -> bool:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


def test_names_are_unique_and_exist() -> None:
    assert len(set(sltfast.__all__)) == len(sltfast.__all__)
    assert [name for name in NAMES if not hasattr(sltfast, name)] == []
    assert set(NAMES) <= set(dir(sltfast))


@pytest.mark.parametrize("name", PUBLIC)
def test_has_a_docstring(name: str) -> None:
    value = PUBLIC[name]
    if isinstance(value, ModuleType) or callable(value):
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", CALLABLES)
def test_says_what_it_takes_gives_and_raises(name: str) -> None:
    function = PUBLIC[name]
    documentation = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    untold = [name for name in signature.parameters if not re.search(rf"\b{re.escape(name)}\b", documentation)]
    assert untold == []
    assert not signature.parameters or "Args:" in documentation
    assert signature.return_annotation in (None, "None") or "Returns:" in documentation
    assert not raises_itself(function) or "Raises:" in documentation


def test_the_version_is_the_metadata_version() -> None:
    from importlib.metadata import version

    assert sltfast.__version__ == version("sltfast")
