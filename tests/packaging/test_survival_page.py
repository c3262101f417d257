"""docs/survival.md names, for everything that it promises, tests that are there."""

import re

from checkout import ROOT

PAGE = (ROOT / "docs" / "survival.md").read_text()
ROWS = [line.split(" | ") for line in PAGE.partition("<!-- from")[0].splitlines() if line.startswith("| ")][2:]


def test_every_promise_has_tests() -> None:
    assert len(ROWS) > 12
    for row in ROWS:
        named = re.findall(r"`([\w/.]+)`", row[-1])
        assert named, row
        for path in named:
            place = ROOT / "tests" / path
            files = [place] if place.is_file() else sorted(place.glob("test_*.py"))
            assert files, path
            assert all("\ndef test_" in file.read_text() for file in files), path


def test_every_test_of_survival_is_on_the_page() -> None:
    named = {path.rstrip("/") for row in ROWS for path in re.findall(r"`([\w/.]+)`", row[-1])}
    for file in (ROOT / "tests" / "survival").rglob("test_*.py"):
        path = file.relative_to(ROOT / "tests")
        assert {path.as_posix(), path.parent.as_posix()} & named, path
