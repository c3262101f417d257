"""The source distribution installs, and what it installs is whole: kernels, py.typed, every subpackage."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from checkout import ROOT, fresh_python, project


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    tree = folder / "tree"  # a copy: building writes an egg-info beside setup.py
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, tree, ignore=unwanted)
    shutil.copy(ROOT / ".clang-format", tree)
    fresh_python("-c", f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})", cwd=tree)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--quiet"]
    fresh_python("-m", "pip", "install", *options, "--target", target, sdist)
    return target


def wheel_files(installed: Path) -> set[str]:
    (record,) = installed.glob("sltfast-*.dist-info/RECORD")
    return {line.split(",")[0] for line in record.read_text().splitlines()}


def test_the_sdist_is_named_after_the_version(sdist: Path) -> None:
    assert sdist.name == f"sltfast-{project()['version']}.tar.gz"


def test_the_wheel_holds_the_kernels_and_the_type_marker(installed: Path) -> None:
    files = wheel_files(installed)
    assert "sltfast/py.typed" in files
    assert any(name.startswith("sltfast/_C") and name.endswith(".so") for name in files)


def test_the_wheel_holds_every_module_and_nothing_beside_the_package(installed: Path) -> None:
    files = wheel_files(installed)
    suffixes = ("*.py", "*.html", "*.css", "*.js")
    written = {path.relative_to(ROOT).as_posix() for suffix in suffixes for path in (ROOT / "sltfast").rglob(suffix)}
    assert written <= files
    tops = {name.split("/")[0] for name in files if not name.startswith("..")}
    assert {top for top in tops if not top.startswith("sltfast")} <= {"bin"}


def test_it_runs_from_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sltfast; from sltfast.ops.backend import build_facts, refusals\n"
        "print(sltfast.__file__, build_facts()['version'], 'native' in refusals(), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where, version, refused = fresh_python("-c", code, cwd=tmp_path, env=environment).stdout.splitlines()
    assert Path(where).is_relative_to(installed)
    assert version == project()["version"]
    assert refused == "False"


def test_the_console_script_is_declared(installed: Path) -> None:
    (entries,) = installed.glob("sltfast-*.dist-info/entry_points.txt")
    assert "sltfast = sltfast.cli:main" in entries.read_text()


def test_the_interpreter_is_one_we_support() -> None:
    floor = project()["requires-python"].removeprefix(">=")
    assert sys.version_info >= tuple(map(int, floor.split(".")))
