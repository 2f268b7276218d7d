"""A headless Chromium for tests, driven by its own driver over HTTP."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import axe_core_python
import numpy as np
from PIL import Image

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, TAB = "\ue007", "\ue004"
SIZES = [(1440, 900), (820, 1100), (390, 844)]
"""Windows of a desktop, a tablet and a phone: width and height in pixels."""
AXE = Path(axe_core_python.__file__).with_name("axe.min.js")


def missing() -> str:
    """Why there is no browser; empty if there is one."""
    found = any(map(shutil.which, ("chromium", "google-chrome"))) and shutil.which("chromedriver")
    return "" if found else "needs Chromium and its driver (Debian: apt install chromium chromium-driver)"


class Browser:
    """A session of the driver."""

    def __init__(self, address: str) -> None:
        options = {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        }
        always = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._address = f"{address}/session"
        self._address += "/" + self._call("POST", "", {"capabilities": {"alwaysMatch": always}})["sessionId"]

    def open(self, path: Path | str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file or an address in a window of a size and a theme."""
        theme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self.command("Emulation.setEmulatedMedia", theme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", size)
        self._call("POST", "/url", {"url": path if isinstance(path, str) else path.resolve().as_uri()})
        self.command("Page.bringToFront", {})
        self.command("Emulation.setFocusEmulationEnabled", {"enabled": True})  # else a key may come before the focus

    def command(self, name: str, options: dict[str, Any]) -> Any:
        """A command of Chromium's own protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": name, "params": options})

    def run(self, script: str) -> Any:
        """Run JavaScript, which may return a promise, and return its value."""
        found = self.command(
            "Runtime.evaluate",
            {"expression": script, "returnByValue": True, "awaitPromise": True, "allowUnsafeEvalBlockedByCSP": True},
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys one after another."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, selector: str) -> None:
        """Click on the first element that a selector finds."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        self._call("POST", f"/element/{found[ELEMENT]}/click", {})

    def logs(self) -> list[str]:
        """What the console said since the last call."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def barriers(self) -> list[str]:
        """What axe finds serious or critical on the page for people who use a keyboard or a screen reader."""
        self.run(f"{AXE.read_text(encoding='utf-8')};0")
        return list(
            self.run(
                "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations"
                ".filter(one => ['serious', 'critical'].includes(one.impact))"
                ".flatMap(one => one.nodes.map(node => `${one.id}: ${node.html.slice(0, 200)}`)))"
            )
        )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG file of the window, or of the whole page."""
        found = self.command("Page.captureScreenshot", {"captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the session."""
        self._call("DELETE", "")

    def _call(self, method: str, place: str, values: dict[str, Any] | None = None) -> Any:
        data = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(
            self._address + place, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error


def shows_something(picture: Path, background: tuple[int, int, int]) -> bool:
    """Whether a screenshot has this background, and on it enough of other colours to be a page with text."""
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    apart = (pixels != background).any(axis=1).mean()
    return bool(0.01 < apart < 0.9 and len(np.unique(pixels, axis=0)) > 20)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a driver on a free port, and a browser."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL) as driver:
        try:
            _wait(f"{address}/status")
            session = Browser(address)
            try:
                yield session
            finally:
                session.close()
        finally:
            driver.terminate()


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the driver of Chromium did not start")
