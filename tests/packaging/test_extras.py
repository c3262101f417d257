"""Optional dependencies: a missing one names its extra, and every extra that is named exists."""

import ast
import re
from pathlib import Path

import pytest
from checkout import ROOT, project, source_files

from sltfast.extras import MissingExtra, require

DISTRIBUTIONS = {"umap": "umap_learn", "sklearn": "scikit_learn"}  # where it is not named after its module


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(MissingExtra, match=r"no_such_package is needed to dream .* pip install 'sltfast\[plots\]'"):
        require("no_such_package.inner", extra="plots", purpose="to dream")


def test_missing_extra_is_an_import_error() -> None:
    assert issubclass(MissingExtra, ImportError)


def test_an_installed_package_is_returned() -> None:
    assert require("json.decoder", extra="plots", purpose="here").__name__ == "json.decoder"


def test_a_package_broken_inside_is_not_blamed_on_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_with_a_gap.py").write_text("import something_it_forgot_to_declare\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_forgot") as raised:
        require("package_with_a_gap", extra="plots", purpose="here")
    assert not isinstance(raised.value, MissingExtra)


def required_in(path: Path) -> list[tuple[str, str]]:
    """Return the (package, extra) of every literal `require(...)` in a module."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name | ast.Attribute)]
    found = []
    for call in named:
        name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr  # type: ignore[union-attr]
        extras = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
        if name == "require" and extras and isinstance(call.args[0], ast.Constant):
            assert isinstance(extras[0], ast.Constant)
            package = str(call.args[0].value).partition(".")[0]
            found.append((DISTRIBUTIONS.get(package, package), str(extras[0].value)))
    return found


def test_every_extra_that_is_named_installs_what_it_promises() -> None:
    extras = project()["optional-dependencies"]
    provides = {
        extra: {re.split(r"[\[<>=!; ]", line)[0].replace("-", "_") for line in lines} for extra, lines in extras.items()
    }
    asked = {
        pair for path in source_files(".py") if path.is_relative_to(ROOT / "sltfast") for pair in required_in(path)
    }
    wrong = {pair for pair in asked if pair[0] not in provides.get(pair[1], set())}
    assert not wrong


def test_extras_refer_only_to_extras() -> None:
    extras = project()["optional-dependencies"]
    named = [re.match(r"sltfast\[(.*)\]", line) for lines in extras.values() for line in lines]
    inner = {extra for match in named if match for extra in match.group(1).split(",")}
    assert inner <= set(extras)
