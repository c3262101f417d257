"""The rules of CONTRIBUTING.md that a machine can check."""

import re
from pathlib import Path

import pytest
from checkout import ROOT, source_files

CODE = source_files(".py", ".cpp", ".h", ".cu", ".cuh", ".html", ".css", ".js")
FORBIDDEN_NAMES = ("util", "utils", "helper", "helpers", "misc", "common", "stuff")
# spelled in two halves, so that this file keeps the rule it states
FORBIDDEN_WORDS = (
    "TO" + "DO",
    "FIX" + "ME",
    "raise NotImplemented" + "Error",
    "pytest.mark.x" + "fail",
    "pytest.mark.sk" + "ip",
    "pytest.mark.sk" + "ipif",
    "pytest.sk" + "ip",
    "pytest.importor" + "skip",
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_stay_short() -> None:
    limits = {".h": 150, ".cuh": 150}
    lengths = {relative(path): len(path.read_text().splitlines()) for path in CODE}
    assert CODE
    too_long = {name: lines for name, lines in lengths.items() if lines > limits.get(Path(name).suffix, 400)}
    assert not too_long


# the faces of other packages keep their modules' names
KEPT_NAMES = re.compile(r"sltfast/compat/devinterp(_v1)?/(optim/)?(vis_|test_)?utils\.py")


@pytest.mark.parametrize("path", [path for path in CODE if not KEPT_NAMES.fullmatch(relative(path))], ids=relative)
def test_file_is_named_after_its_idea(path: Path) -> None:
    words = re.split(r"[_.\-]", path.name) + list(path.relative_to(ROOT).parts)
    assert not set(words) & set(FORBIDDEN_NAMES)


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text()
    assert [word for word in FORBIDDEN_WORDS if re.search(rf"\b{re.escape(word)}\b", text)] == []


@pytest.mark.parametrize("path", source_files(".py"), ids=relative)
def test_no_banners(path: Path) -> None:
    banners = [line for line in path.read_text().splitlines() if re.match(r"\s*#\s*[-=#*~]{4,}", line)]
    assert banners == []


def test_every_package_folder_is_a_package() -> None:
    folders = {path.parent for path in source_files(".py") if path.is_relative_to(ROOT / "sltfast")}
    assert folders
    assert [relative(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
