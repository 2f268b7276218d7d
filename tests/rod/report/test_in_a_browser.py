"""The page in a real browser."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rod.report.page import write_report
from tests.browser import ENTER, SIZES, TAB, Browser, browser, missing, shows_something
from tests.rod.report.runs import EVIL, answers, requests, save_fit, save_test

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.slow]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    evil = [replace(answers("1")[0], id="e", question=EVIL + "x" * 300, completion=EVIL, suite="x" * 100)]
    base = save_test(folder / "base", [*answers("1100-"), *requests("10?"), *evil])
    tuned = save_test(folder / ("tuned_" * 20), [*answers("1111-", 20), *requests("000"), *evil])
    return write_report([base, tuned, save_fit(folder / "fit")], folder / "report.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as session:
        yield session


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_size_and_theme(
    chromium: Browser, page: Path, width: int, height: int, dark: bool, tmp_path: Path
) -> None:
    chromium.open(page, width=width, height=height, dark=dark)
    assert chromium.logs() == []
    assert chromium.run("document.documentElement.scrollWidth") <= width, "nothing sticks out at the side"
    background = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
    paper = "getComputedStyle(document.querySelector('.drawing svg g g path')).fill"
    assert chromium.run(paper) == background, "figures follow the theme"
    chromium.screenshot(tmp_path / "page.png")
    assert shows_something(tmp_path / "page.png", (22, 24, 27) if dark else (255, 255, 255))


@pytest.mark.parametrize("width", [820, 1024, 1280, 1440, 1920])
def test_figures_fit_a_wide_window(chromium: Browser, page: Path, width: int) -> None:
    chromium.open(page, width=width)
    chromium.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    boxes = chromium.run(
        "[...document.querySelectorAll('figure .scroll')].map(box => [box.clientWidth, box.scrollWidth])"
    )
    assert len(boxes) >= 5
    assert all(inside <= visible for visible, inside in boxes), boxes


@pytest.mark.parametrize("dark", [False, True])
def test_no_barriers(chromium: Browser, page: Path, dark: bool) -> None:
    chromium.open(page, dark=dark)
    assert chromium.barriers() == []
    chromium.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert chromium.barriers() == []


def test_barriers_are_found(chromium: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<html lang=en><title>a</title><main><h1>a</h1><img src='data:,'></main></html>")
    chromium.open(tmp_path / "bad.html")
    assert [line.partition(":")[0] for line in chromium.barriers()] == ["image-alt"]


def test_landmarks_have_names_of_their_own(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    names = chromium.run(
        "[...document.querySelectorAll('section[aria-labelledby], [role=region]')].map(part => "
        "part.ariaLabel || document.getElementById(part.getAttribute('aria-labelledby')).innerText)"
    )
    assert len(names) >= 5
    assert len(names) == len(set(names))


def test_nothing_of_a_record_runs(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    assert chromium.run("document.title").startswith("Report: base")
    assert chromium.run("document.scripts.length") == 0
    assert chromium.run("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0


def test_a_click_shows_what_may_be_harmful(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    shown = "document.querySelector('.harmful pre').checkVisibility()"
    assert chromium.run(shown) is False
    chromium.click(".harmful summary")
    assert chromium.run(shown) is True
    assert chromium.logs() == []


def test_the_keyboard_alone(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.press(TAB)
    assert chromium.run("document.activeElement.className") == "skip"
    chromium.run("document.querySelector('.harmful summary').focus()")
    chromium.press(ENTER)
    assert chromium.run("document.querySelector('.harmful').open") is True
    told = (
        "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length"
    )
    assert chromium.run(told) == 0, "what scrolls can be reached"
