"""The page in a browser: nothing is asked of the network, everything answers to pointer and keyboard."""

from pathlib import Path
from typing import Any

import pytest
from browser import opened
from playwright.sync_api import Browser
from trees import NASTY, estimate, influences, susceptibilities

import sltfast

COLOUR = "name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trees = {"a": estimate(), "b": estimate(dead=True), "χ": susceptibilities(), "bif": influences()}
    return sltfast.write_report(trees, tmp_path_factory.mktemp("report") / "report.html", "bytes", umap=False)


def chi(component: str, dataset: int, batch: int, position: int) -> str:
    flat = susceptibilities()["susceptibilities"].to_dataset()
    here = (flat["dataset_id"] == dataset) & (flat["batch"] == batch) & (flat["target_position"] == position)
    return f"{float(flat['sus'].sel(wr=component).values[here.values][0]):.2f} ± 0.50"


def token(page: Any, position: int) -> Any:
    return page.locator(f'.text .t[data-row="0"][data-position="{position}"]')


def choice(page: Any, role: str) -> Any:
    return page.locator(f'[data-role="{role}"]')


def test_tokens_tell_value_and_error(report: Path, chromium: Browser, tmp_path: Path) -> None:
    with opened(chromium, report) as (page, complaints):
        tip = page.locator("#tip")
        token(page, 6).hover()
        assert f"l0h0: χ = {chi('l0h0', 0, 0, 6)}" in tip.inner_text()
        before = token(page, 6).evaluate("element => element.style.background")
        choice(page, "component").select_option(label="l1h0")
        token(page, 7).hover()
        assert f"l1h0: χ = {chi('l1h0', 0, 0, 7)}" in tip.inner_text()
        assert token(page, 6).evaluate("element => element.style.background") != before
        choice(page, "dataset").select_option(label="prose")
        choice(page, "passage").select_option(label="row 0")
        token(page, 2).hover()
        assert f"l1h0: χ = {chi('l1h0', 1, 0, 2)}" in tip.inner_text()
        assert page.locator(".text").inner_text().replace("row 0", "").strip().startswith("A sentence, 0.")
        token(page, 0).hover()
        assert "nothing predicts this token" in tip.inner_text()
        page.screenshot(path=tmp_path / "text.png", full_page=True)
        assert complaints == []


def test_a_chosen_token_shows_every_component(report: Path, chromium: Browser) -> None:
    with opened(chromium, report) as (page, complaints):
        token(page, 6).click()
        rows = page.locator(".profile tr").all_inner_texts()
        assert sorted(row.split("\t")[0].strip() for row in rows) == ["full", "l0h0", "l0h1", "l1h0"]
        assert any(chi("l1h0", 0, 0, 6) in row for row in rows)
        choice(page, "sure").check()
        flat = susceptibilities()["susceptibilities"].to_dataset()["sus"].sel(wr="l0h0").values
        code = flat[: 5 * 19]
        shaded = page.locator(".text .t").evaluate_all("all => all.filter(one => one.style.background).length")
        assert shaded == int((abs(code) > 2 * 0.5).sum())
        assert complaints == []


def test_keys_walk_tokens_and_cells(report: Path, chromium: Browser) -> None:
    with opened(chromium, report) as (page, complaints):
        tip = page.locator("#tip")
        token(page, 0).focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        assert f"χ = {chi('l0h0', 0, 0, 5)}" in tip.inner_text()
        page.keyboard.press("Enter")
        assert "at position 5" in page.locator(".profile").inner_text()
        cell = page.locator(".heat .shade").first
        cell.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        value = float(susceptibilities()["datasets"]["sus"].sel(wr="l0h0", dataset="prose"))
        assert tip.inner_text() == f"l0h0 on prose: χ = {value:.2f} ± 0.10"
        page.keyboard.press("Escape")
        assert tip.is_hidden()
        assert complaints == []


def test_a_dot_of_the_plane_leads_to_its_token(report: Path, chromium: Browser) -> None:
    with opened(chromium, report) as (page, complaints):
        canvas = page.locator("canvas.plane")
        canvas.focus()
        page.keyboard.press("ArrowRight")
        told = page.locator("#tip").inner_text()
        assert "position" in told
        choice(page, "colour").select_option(label="l1h0")
        assert "χ from" in page.locator(".key").inner_text()
        canvas.focus()
        page.keyboard.press("ArrowRight")
        name, row, position = page.locator("#tip").inner_text().splitlines()[0].split(", ")
        page.keyboard.press("Enter")
        chosen = page.locator(".t.chosen")
        assert f"position {chosen.get_attribute('data-position')}" == position
        assert choice(page, "dataset").evaluate("select => select.selectedOptions[0].text") == name
        assert choice(page, "passage").evaluate("select => select.selectedOptions[0].text") == row
        assert complaints == []


def test_neighbours_follow_the_row_and_text_is_harmless(report: Path, chromium: Browser) -> None:
    with opened(chromium, report) as (page, complaints):
        quote = choice(page, "self")
        assert quote.inner_text().startswith(NASTY)
        assert page.evaluate("window.hacked") is None
        choice(page, "query").select_option("5")
        assert quote.inner_text().startswith("passage 4")
        first = page.locator('[data-role="lists"] summary').first.inner_text()
        # row 5 holds 12 … 17; 17 is the passage itself
        assert "16.00 ± 0.50" in first
        page.locator("canvas.matrix").focus()
        page.keyboard.press("ArrowRight")
        assert "13.00 ± 0.50" in page.locator("#tip").inner_text()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        assert quote.inner_text().startswith("passage 3")
        box = page.locator("canvas.matrix").bounding_box()
        page.locator("canvas.matrix").click(position={"x": 0.9 * box["width"], "y": 0.4 * box["height"]})
        assert quote.inner_text().startswith("passage 1")
        assert complaints == []


@pytest.mark.parametrize("width", [1000, 1200, 1600])
def test_nothing_is_cut_off(report: Path, chromium: Browser, width: int) -> None:
    """Neither the page nor the table of estimates is wider than what shows it, long names of passages included."""
    with opened(chromium, report) as (page, complaints):
        page.set_viewport_size({"width": width, "height": 900})
        page.eval_on_selector("[data-role=query]", "box => box.options[0].textContent = 'a long passage '.repeat(20)")
        for box in ("document.documentElement", "document.querySelector('.llc').parentElement"):
            assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth"), box
        assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes_have_readable_contrast(report: Path, chromium: Browser, scheme: str) -> None:
    """WCAG AA: 4.5 between text and what is behind it, in every pair of colours that the page names."""
    pairs = [("ink", "paper"), ("ink", "card"), ("quiet", "card"), ("quiet", "paper"), ("accent", "card")]
    pairs += [(name, f"{name}-back") for name in ("good", "doubt", "bad")]
    with opened(chromium, report, scheme=scheme) as (page, complaints):
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        for ink, back in pairs:
            colours = [page.evaluate(COLOUR, name) for name in (ink, back)]
            assert contrast(*colours) >= 4.5, (ink, back)
        page.locator("#theme").click()
        page.locator("#theme").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert complaints == []


def contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour.strip()[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
