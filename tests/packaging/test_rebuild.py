"""The extension's build compiles again only what an edit touches."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def build(tree: Path) -> dict[str, int]:
    """Build in place; modification times of the objects by name."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, timeout=500)
    return {path.name: path.stat().st_mtime_ns for path in tree.glob("build/**/*.o")}


def test_only_what_changed_is_compiled_again(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "csrc", tree / "csrc")
    (tree / "sltfast").mkdir()
    (tree / "sltfast" / "__init__.py").touch()
    first = build(tree)
    assert "registry.o" in first
    assert build(tree) == first
    source = tree / "csrc" / "registry.cpp"
    source.write_text(source.read_text() + "\n")
    second = build(tree)
    assert {name for name in first if first[name] != second[name]} == {"registry.o"}
