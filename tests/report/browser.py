"""A page in which every request but its own file fails, and every complaint is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser


@contextmanager
def opened(
    browser: Browser, path: Path, *, scheme: Literal["light", "dark"] = "light"
) -> Iterator[tuple[Any, list[str]]]:
    """The page, and what it complained about or asked for so far."""
    complaints: list[str] = []
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))

    def refuse(route: Any) -> None:
        if route.request.url == path.as_uri():
            route.continue_()
        else:
            complaints.append(f"asked for {route.request.url}")
            route.abort()

    page.route("**/*", refuse)
    page.goto(path.as_uri())
    yield page, complaints
    context.close()
