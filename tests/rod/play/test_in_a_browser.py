"""The page of ``rod play`` in a real browser."""

import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from datamodules.answers import AnswerChecker
from llm_modules.s3cot import Direction
from rod.__main__ import main
from rod.play.asking import Answer, Options, Player
from rod.play.direction import of_the_miniature
from rod.play.models import load
from rod.play.page import build
from tests.browser import SIZES, Browser, browser, missing, shows_something
from tests.processes import Processes
from tests.rod.play.test_play import free_port, save_calibration, save_mogu

pytest.importorskip("nicegui", reason="needs pip install 'lightning-rod[play]'")
pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.slow]
uvicorn = pytest.importorskip("uvicorn")
LEFT = "\ue012"


@contextmanager
def page(folder: Path, *words: str) -> Iterator[str]:
    """The address of a page that another process serves."""
    port = free_port()
    server = Processes(main, ["play", *words, "--port", str(port), "--browser", "false"], log=folder / "log")
    try:
        wait_for(f"http://localhost:{port}/", server)
        yield f"http://localhost:{port}/"
    finally:
        server.kill()


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("play")
    of_the_miniature(load("miniature")).direction.save(folder / "direction.safetensors")
    return save_calibration(folder / "2_calibrate", folder / "direction.safetensors")


@pytest.fixture(scope="module")
def address(calibration: Path) -> Iterator[str]:
    with page(calibration.parent, "--calibration", str(calibration)) as address:
        yield address


def wait_for(address: str, server: Processes) -> None:
    for _ in range(600):
        assert server.running(), server.log.read_text()[-4000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.2)
    raise AssertionError(server.log.read_text()[-4000:])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as session:
        yield session


def until(chromium: Browser, script: str) -> None:
    """Wait until JavaScript is true."""
    for _ in range(600):
        if chromium.run(f"Boolean({script})"):
            return
        time.sleep(0.1)
    raise AssertionError(f"never true: {script}; the page says: {chromium.run('document.body.innerText')[:2000]}")


ANSWERS = "document.querySelector('.answers').innerText"


def test_ask_and_slide(chromium: Browser, address: str) -> None:
    chromium.open(address)
    until(chromium, "document.querySelector('#ask')")
    time.sleep(0.5)  # the page is wired up over its socket
    chromium.click("#ask")
    until(chromium, f"{ANSWERS}.includes('same answer')")
    first = chromium.run(ANSWERS)
    assert "steered by -1.25" in first
    chromium.run("document.querySelector('#strength [tabindex]').focus()")
    chromium.press(LEFT, LEFT)
    until(chromium, "document.body.innerText.includes('Strength -1.35')")
    until(chromium, f"{ANSWERS}.includes('steered by -1.35') && {ANSWERS}.split('first token').length == 3")
    assert "Measured at -1.5" in chromium.run("document.body.innerText")
    assert chromium.run("Boolean(document.querySelector('canvas, svg'))"), "the curve"
    assert chromium.logs() == []


def drop(chromium: Browser, file: Path) -> None:
    # By the element itself: ids of nodes change whenever the page draws them again.
    field = chromium.command("Runtime.evaluate", {"expression": "document.querySelector('input[type=file]')"})
    options = {"objectId": field["result"]["objectId"], "files": [str(file)]}
    chromium.command("DOM.setFileInputFiles", options)


@pytest.fixture
def own_address(calibration: Path, tmp_path: Path) -> Iterator[str]:
    """A page that nobody else uses: what is dropped there stays for all windows."""
    with page(tmp_path, "--calibration", str(calibration)) as address:
        yield address


def test_a_direction_is_dropped(chromium: Browser, own_address: str, tmp_path: Path) -> None:
    chromium.open(own_address)
    until(chromium, "document.querySelector('#strength')")
    chromium.click(".q-expansion-item .q-item")
    until(chromium, "document.querySelector('input[type=file]')")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    drop(chromium, tmp_path / "bad.safetensors")
    until(chromium, "document.querySelector('.q-notification')")
    assert str(tmp_path) not in chromium.run("document.querySelector('.q-notification').innerText")
    model = load("miniature").language_model
    vectors = torch.ones(model.config.num_hidden_layers, model.config.hidden_size)
    Direction(vectors=vectors).save(tmp_path / "mine.safetensors")
    drop(chromium, tmp_path / "mine.safetensors")
    until(chromium, "document.body.innerText.includes('Direction mine.safetensors, layers 2-3, positions last')")
    assert chromium.logs() == []


class Endless(Player):
    """Answers without end."""

    asked = closed = False

    def ask(self, question: str, options: Options, answers: Sequence[Answer]) -> Generator[None, None, None]:
        self.asked = True
        try:
            while True:
                yield
        finally:
            self.closed = True


def test_a_question_ends_with_its_window(chromium: Browser) -> None:
    player, port = Endless([load("miniature")], ["miniature"]), free_port()
    with AnswerChecker(workers=1) as checker:
        server = uvicorn.Server(uvicorn.Config(build(player, checker, ["Why?"]), port=port, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.1)
        chromium.open(f"http://localhost:{port}/")
        until(chromium, "document.querySelector('#ask')")
        time.sleep(0.5)
        chromium.click("#ask")
        for place, done in (("", lambda: player.asked), ("about:blank", lambda: player.closed)):
            if place:
                assert not player.closed
                chromium.open(place)
            for _ in range(300):
                if done():
                    break
                time.sleep(0.1)
            assert done()
        server.should_exit = True
        thread.join()


def test_the_gates_of_a_mogu_are_shifted(chromium: Browser, tmp_path: Path) -> None:
    with page(tmp_path, str(save_mogu(tmp_path / "mogu"))) as address:
        chromium.open(address)
        until(chromium, "document.querySelector('#gate-shift')")
        time.sleep(0.5)
        chromium.run("document.querySelector('#gate-shift [tabindex]').focus()")
        chromium.press(LEFT, LEFT)
        until(chromium, "document.body.innerText.includes('gate_shift -0.5 ')")
        chromium.click("#ask")
        until(chromium, "document.querySelectorAll('.gates').length == 2")
        assert chromium.logs() == []


def test_nothing_is_loaded_from_elsewhere(chromium: Browser, address: str) -> None:
    chromium.open(address)
    until(chromium, "document.querySelector('#ask')")
    names = chromium.run("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert names
    assert [
        name for name in names if not name.startswith((address, address.replace("http", "ws"), "data:", "blob:"))
    ] == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_size_and_theme(
    chromium: Browser, address: str, width: int, height: int, dark: bool, tmp_path: Path
) -> None:
    chromium.open(address, width=width, height=height, dark=dark)
    until(chromium, "document.querySelector('#ask')")
    until(
        chromium,
        f"getComputedStyle(document.body).backgroundColor == 'rgb({'22, 24, 27' if dark else '255, 255, 255'})'",
    )
    assert chromium.run("document.documentElement.scrollWidth") <= width, "nothing sticks out at the side"
    until(chromium, "document.querySelector('.curve svg text')")
    time.sleep(0.5)  # the curve and the fonts are drawn
    chromium.screenshot(tmp_path / "page.png")
    assert shows_something(tmp_path / "page.png", (22, 24, 27) if dark else (255, 255, 255))
    assert chromium.logs() == []


def luminance(colour: str) -> float:
    """Relative luminance of WCAG of a colour such as ``rgb(1, 2, 3)``."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
def test_the_words_of_the_curve_can_be_read(chromium: Browser, address: str, dark: bool) -> None:
    chromium.open(address, dark=dark)
    until(chromium, "document.querySelectorAll('.curve svg text').length > 8")
    texts = chromium.run(
        "[...document.querySelectorAll('.curve svg text')].map(text => [text.textContent, getComputedStyle(text).fill])"
    )
    assert {"strength of steering", "share", "now"} <= {text for text, _ in texts}
    paper = luminance(chromium.run("getComputedStyle(document.body).backgroundColor"))
    for text, colour in texts:
        dim, bright = sorted((paper, luminance(colour)))
        assert (bright + 0.05) / (dim + 0.05) > 4.5, (text, colour)


@pytest.mark.parametrize("dark", [False, True])
def test_no_barriers(chromium: Browser, address: str, dark: bool) -> None:
    chromium.open(address, dark=dark)
    until(chromium, "document.querySelector('#ask')")
    time.sleep(0.5)
    chromium.click("#ask")
    until(chromium, f"{ANSWERS}.includes('same answer')")
    assert chromium.barriers() == []
    chromium.click(".q-expansion-item .q-item")
    until(chromium, "document.querySelector('input[type=file]')")
    time.sleep(0.5)
    assert chromium.barriers() == []


def test_others_need_the_password(tmp_path: Path) -> None:
    port = free_port()
    words = ["play", "--port", str(port), "--password", "correct horse", "--browser", "false"]
    server = Processes(main, words, log=tmp_path / "log")
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            wait_for(f"http://localhost:{port}/", server)
        assert refused.value.code == 401
    finally:
        server.kill()
