"""The page in a real browser."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rod.report.page import write_report
from tests.browser import ENTER, TAB, Browser, browser, missing
from tests.rod.report.runs import EVIL, answers, requests, save_fit, save_test

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.slow]
SIZES = [(1440, 900), (820, 1100), (390, 844)]


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
def test_every_size_and_theme(chromium: Browser, page: Path, width: int, height: int, dark: bool) -> None:
    chromium.open(page, width=width, height=height, dark=dark)
    assert chromium.logs() == []
    assert chromium.run("document.documentElement.scrollWidth") <= width, "nothing sticks out at the side"
    background = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
    paper = "getComputedStyle(document.querySelector('.drawing svg g g path')).fill"
    assert chromium.run(paper) == background, "figures follow the theme"


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
