"""docs/drop_in.md is true: its code runs, and its table of differences is the code's."""

import re
from pathlib import Path

import pytest
from checkout import ROOT, fresh_python

from benchmarks import readme_tables
from sltfast.compat import defects

PAGE = (ROOT / "docs" / "drop_in.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_its_code_runs() -> None:
    assert len(BLOCKS) == 3
    fresh_python("-c", "\n".join(BLOCKS) + "\nassert llc.__module__ == 'sltfast.compat.devinterp.slt.llc'")


def test_its_commands_run(tmp_path: Path) -> None:
    """The page's options, on a script and on a module."""
    (tmp_path / "script.py").write_text("import sys\nassert sys.argv[1:] == ['--its', '--own', 'arguments']\n")
    (tmp_path / "its").mkdir()
    (tmp_path / "its" / "module.py").write_text(
        "import sltfast.compat as c\nfrom sltfast.compat.exactness import wants_exact\n"
        "assert c.installed() == '1' and wants_exact(None)\n"
    )
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for command in commands.splitlines():
        assert command.startswith("python ")
        fresh_python(*command.split()[1:], cwd=tmp_path)


def test_every_defect_is_on_the_page() -> None:
    for key, row in defects.DEFECTS.items():
        assert f"| {key} | {row.theirs} | {row.ours} | {row.why} | {row.native} |" in PAGE


def test_a_page_that_lags_behind_the_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert readme_tables.filled(PAGE) == PAGE
    monkeypatch.setitem(defects.DEFECTS, "new", defects.Defect("a|b", "ours", "why", "native"))
    assert "| new | a\\|b | ours | why | native |" in readme_tables.filled(PAGE)
