"""Build the documentation into build/docs/site: `make docs`.

Pages of docs/ are copied to build/docs/pages. A link from one of them to a file of the repository that is not a page
(an example, a table of results) brings a copy of that file along, so that the site holds all it shows and links to.
Every warning of the generator is an error, and so is a page that the navigation leaves out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIG = ROOT / "website" / "zensical.toml"
BUILT = ROOT / "build" / "docs"
LINK = re.compile(r"(?<=\]\()(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
NAV = re.compile(r"^nav = \[\n.*?^\]$", re.MULTILINE | re.DOTALL)


def navigation(docs: Path = DOCS) -> list[dict[str, list[str]]]:
    """The sections of the site with their pages: patterns take the pages that no other line of their section names.

    Raises:
        ValueError: a page that is in no section.
    """
    found: list[dict[str, list[str]]] = []
    for section in tomllib.loads(CONFIG.read_text())["project"]["nav"]:
        ((title, lines),) = section.items()
        named = [line for line in lines if "*" not in line]
        pages: list[str] = []
        for line in lines:
            matching = sorted(path.relative_to(docs).as_posix() for path in docs.glob(line))
            pages += [page for page in matching if page == line or page not in [*named, *pages]]
        found.append({title: pages})
    listed = {page for section in found for pages in section.values() for page in pages}
    left_out = sorted({path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - listed)
    if left_out:
        raise ValueError(f"{', '.join(left_out)}: in no section of nav in {CONFIG.relative_to(ROOT)}; add a line there")
    return [section for section in found if any(section.values())]


def _as_toml(sections: list[dict[str, list[str]]]) -> str:
    def one(section: dict[str, list[str]]) -> str:
        ((title, pages),) = section.items()
        return f'    {{ "{title}" = [{", ".join(f"{chr(34)}{page}{chr(34)}" for page in pages)}] }},'

    return "nav = [\n" + "\n".join(map(one, sections)) + "\n]"


def links(text: str) -> Iterator[str]:
    """The targets of links and pictures of a page that lie in the repository, without their anchors."""
    for prose in FENCED.split(text)[::2]:
        yield from (found["target"] for found in LINK.finditer(prose) if "://" not in found["target"])


def gather() -> None:
    """Copy the pages, their pictures and what they link to into build/docs/pages.

    Raises:
        FileNotFoundError: a link that leads nowhere.
    """
    pages = BUILT / "pages"
    shutil.rmtree(BUILT, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.md"))
    for source in DOCS.rglob("*.md"):
        here = source.relative_to(DOCS)

        def led(found: re.Match[str], source: Path = source, here: Path = here) -> str:
            target = found["target"]
            if "://" in target or target.startswith("mailto:"):
                return found[0]
            aim = (source.parent / target).resolve()
            if not aim.exists():
                raise FileNotFoundError(f"{source.relative_to(ROOT)}: the link to {target} leads nowhere")
            if aim.is_relative_to(DOCS):
                return found[0]
            return os.path.relpath(pages / _brought(aim, pages), (pages / here).parent)

        parts = FENCED.split(source.read_text())
        parts[::2] = [LINK.sub(led, prose) for prose in parts[::2]]
        (pages / here).parent.mkdir(parents=True, exist_ok=True)
        (pages / here).write_text("".join(parts))


def _brought(aim: Path, pages: Path) -> Path:
    """A copy of a file of the repository in the site; of a folder, a list of its files beside their copies."""
    place = Path("files") / aim.relative_to(ROOT)
    if aim.is_dir():
        files = sorted(path for path in aim.iterdir() if path.is_file())
        shutil.copytree(aim, pages / place, dirs_exist_ok=True)
        items = "\n".join(f'<li><a href="{file.name}">{file.name}</a></li>' for file in files)
        place = place / "index.html"
        (pages / place).write_text(f"<!doctype html>\n<title>{aim.name}</title>\n<ul>\n{items}\n</ul>\n")
        return place
    # prose that is no page stays as it is written: its own links are those of the repository
    place = place.with_suffix(".txt") if aim.suffix == ".md" else place
    (pages / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(aim, pages / place)
    return place


def missing_names() -> list[str]:
    """Public names of sltfast that have no anchor in the site that was built."""
    import sltfast

    pages = "".join(page.read_text() for page in (BUILT / "site" / "reference").glob("*.html"))
    anchors = set(re.findall(r'id="?(sltfast[\w.]*)', pages))
    return [name for name in public_names(sltfast) if name not in anchors]


def public_names(package: Any) -> list[str]:
    """``sltfast.NAME`` of every name in ``__all__``, and in that of the rooms among them."""
    from types import ModuleType

    found = []
    for name in package.__all__:
        value = getattr(package, name)
        found.append(f"{package.__name__}.{name}")
        if isinstance(value, ModuleType):
            found += [f"{package.__name__}.{name}.{inner}" for inner in value.__all__]
    return found


def main() -> int:
    """Gather, build, and see that every public name arrived."""
    gather()
    (BUILT / "zensical.toml").write_text(NAV.sub(lambda _: _as_toml(navigation()), CONFIG.read_text()))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(BUILT / "zensical.toml")]
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if status:
        return status
    missing = missing_names()
    if missing:
        print(f"not in the reference: {', '.join(missing)}")
        return 1
    print(f"built: {(BUILT / 'site' / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
