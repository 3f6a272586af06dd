"""The page of a comparison in a real Chromium: no errors, no requests, and what can be pressed works.

Needs playwright and a Chromium; ``make test-browser`` installs the first, CHROMIUM names the second.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compared import compared

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium found; install one, or name it in CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    from onnxsmith.compiler.compare.page import write_page

    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(compared(), path)
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """The page, which must not have asked for anything nor complained when a test is done."""
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(file.as_uri())
    yield tab
    assert asked == [file.as_uri()]
    assert said == []
    tab.close()


def test_it_loads_and_shows_the_plots(page: Any) -> None:
    assert page.locator("figure svg").count() >= 3
    box = page.locator("figure svg").first.bounding_box()
    assert box["width"] > 200 and box["height"] > 100
    assert (
        "identical" in page.locator("#variants").inner_text() or "equivalent" in page.locator("#variants").inner_text()
    )


def test_foreign_scripts_are_refused(browser: Any, file: Path) -> None:
    tab = browser.new_page()
    tab.goto(file.as_uri())
    with tab.expect_console_message(lambda message: "Content Security Policy" in message.text):
        tab.evaluate(
            """() => { const s = document.createElement("script"); s.textContent = "window.foreign = 1";
            document.body.append(s); }"""
        )
    assert tab.evaluate("() => window.foreign === undefined")
    tab.close()


def test_both_sides_fold_together(page: Any) -> None:
    left, right = page.locator(".pane").nth(0), page.locator(".pane").nth(1)
    key = left.locator("details").first.get_attribute("data-k")
    left.locator(f'details[data-k="{key}"] > summary').click()
    for side in (left, right):
        side.locator(f'details[data-k="{key}"][open]').wait_for(state="attached")


def test_a_chosen_node_lights_up_what_it_stands_for(page: Any) -> None:
    page.locator(".all").first.click()
    fused = page.locator(".pane").nth(1).locator("button", has_text="LayerNormalization").first
    fused.click()
    lit = page.locator(".pane").nth(0).locator("button.hit")
    assert lit.count() == 9
    assert "9 on the other side by layer-norm" in page.locator("output").first.inner_text()
    fused.click()
    assert page.locator("button.hit").count() == 0


def test_keys_suffice(page: Any) -> None:
    page.locator(".pane summary").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("button.hit").count() >= 1


def test_the_filter_leaves_what_matches(page: Any) -> None:
    page.locator(".filter").first.fill("gelu")
    shown = page.locator(".graph").first.locator(".pane li:visible")
    assert shown.count() >= 1
    assert all("gelu" in text.lower() for text in shown.all_inner_texts())
    page.locator(".filter").first.fill("")
    assert page.locator(".graph").first.locator(".pane details:visible").count() >= 2


def test_the_sides_scroll_together(page: Any) -> None:
    page.locator(".all").first.click()
    left, right = page.locator(".pane").nth(0), page.locator(".pane").nth(1)
    page.wait_for_timeout(300)
    left.evaluate("pane => pane.scrollTop = 600")
    page.wait_for_function("() => document.querySelectorAll('.pane')[1].scrollTop > 0")
    assert right.evaluate("pane => pane.scrollTop") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    colours = page.evaluate("() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; }")
    ink, paper = (sum(int(part) for part in colour[4:-1].split(",")) / 3 for colour in colours)
    assert abs(ink - paper) > 150
    assert (paper > ink) == (scheme == "light")
    axis = page.locator("figure svg text").first.evaluate("text => getComputedStyle(text).fill")
    assert axis == colours[0]
