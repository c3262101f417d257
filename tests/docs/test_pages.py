"""The pages of docs/ are true: their code runs and prints what they say, their links lead somewhere, none is lost."""

import contextlib
import io
import re
import unicodedata
from pathlib import Path

import pytest
import torch
from snippets import assert_as_shown, blocks_of

import sltfast
from website import build

PAGES = sorted(path.relative_to(build.DOCS).as_posix() for path in build.DOCS.rglob("*.md"))
# its blocks replace a package for the whole process, and run in one of their own (tests/packaging)
RUN_ELSEWHERE = {"drop_in.md"}
WITH_CODE = [page for page in PAGES if page not in RUN_ELSEWHERE and "```python\n" in (build.DOCS / page).read_text()]


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs_and_prints_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page follow each other in one session; a block of text after one of code is what it prints."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    session: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for language, body in blocks_of((build.DOCS / page).read_text()):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(body, page, "exec"), session)
            printed = out.getvalue()
        elif language == "text" and printed:
            assert_as_shown(printed, body)
            printed = ""


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown spells them."""
    text = "".join(build.FENCED.split(page.read_text())[::2])
    titles = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    plain = [unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() for title in titles]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in plain}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    source = build.DOCS / page
    prose = "".join(build.FENCED.split(source.read_text())[::2])
    for found in re.finditer(r"\]\((?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)", prose):
        if "://" in found["target"]:
            continue
        aim = (source.parent / found["target"]).resolve() if found["target"] else source
        assert aim.exists(), found[0]
        if found["anchor"]:
            assert found["anchor"] in headings(aim), found[0]


@pytest.mark.parametrize("page", PAGES)
def test_cross_references_are_public_names(page: str) -> None:
    prose = "".join(build.FENCED.split((build.DOCS / page).read_text())[::2])
    referred = set(re.findall(r"\]\[(sltfast[\w.]*)\]", prose))
    assert referred <= set(build.public_names(sltfast))


def test_every_page_is_in_the_navigation() -> None:
    listed = [page for section in build.navigation() for pages in section.values() for page in pages]
    assert sorted(listed) == PAGES


def test_a_page_outside_the_navigation_is_named(tmp_path: Path) -> None:
    (tmp_path / "lost.md").write_text("# Lost\n")
    with pytest.raises(ValueError, match=r"lost\.md: in no section of nav in website/zensical\.toml"):
        build.navigation(tmp_path)


def test_patterns_take_what_is_not_named(tmp_path: Path) -> None:
    for name in ("index.md", "studies/b.md", "studies/a.md", "studies/index.md", "benchmarks.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# Page\n")
    assert build.navigation(tmp_path) == [
        {"Start": ["index.md"]},
        {"Studies": ["studies/index.md", "studies/a.md", "studies/b.md"]},
        {"Speed": ["benchmarks.md"]},
    ]
