"""``rod play``: a local page to try models on."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal


def run(
    models: Sequence[str] = ("miniature",),
    /,
    direction: Path | None = None,
    calibration: Path | None = None,
    layers: str | None = None,
    positions: Literal["all", "prompt", "last", "generated"] | None = None,
    chat_template: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    port: int = 8421,
    host: str = "127.0.0.1",
    password: str | None = None,
    browser: bool = True,
) -> None:
    """Serve a page on this machine: ask one model or two, steer, see MoGU's gates.

    A model is a hub id, a folder, a GGUF file, a PEFT folder, a MoGU folder, a checkpoint or a run folder with one. The
    first model can be steered; two are shown side by side. Needs `pip install 'lightning-rod[play]'`.

    Args:
        models: One model or two.
        direction: Direction to steer the first model along. The miniature's own is computed if none is given.
        calibration: Run folder of ``s3cot/2_calibrate``: its direction, places and choice, and the curve it measured.
        layers: Layers to steer, such as ``anchor:5`` or ``3,5-8``.
        positions: Tokens to steer.
        chat_template: ``plain`` or a jinja file, instead of the tokenizers' own template.
        chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``, or those of each
            instruction: ``{system1: ..., system2: ..., plain: ...}``.
        dtype: Type of the weights; those of a run have the type of its configuration.
        device: Device of the models, such as ``cuda:1``; the first GPU if there is one.
        port: Port of the page.
        host: Address to serve on. Any other than this machine's own needs a password.
        password: Password that the browser asks for. It is sent unencrypted: use a trusted network.
        browser: Open the page in a browser, if there is a display.
    """
    from datamodules.answers import AnswerChecker
    from datamodules.errors import InputError
    from datamodules.prompts import ChatTemplate
    from llm_modules.backbone.device import choose_device
    from rod.play import access
    from rod.play.asking import Player
    from rod.play.direction import chosen
    from rod.play.models import examples, load
    from rod.play.page import build

    access.check_address(host, port, password)
    if not 1 <= len(models) <= 2:
        raise InputError(f"models: {len(models)} are given; give one or two")
    if any(find_spec(name) is None for name in ("nicegui", "fastapi", "uvicorn")):
        raise InputError("rod play needs NiceGUI: pip install 'lightning-rod[play]'")
    import uvicorn

    place = choose_device(device)
    loaded = [load(name, dtype).to(place) for name in models]
    names = [name if models.count(name) == 1 else f"{name} {index + 1}" for index, name in enumerate(models)]
    steer = chosen(loaded[0], direction, calibration, layers, positions)
    player = Player(loaded, names, steer, ChatTemplate(chat_template, chat_template_kwargs or {}))
    with AnswerChecker(workers=1) as checker:
        app = access.Guard(build(player, checker, examples(loaded)), password)
        address = f"http://{'localhost' if host in access.LOCAL else host}:{port}"
        print(f"{address} (Ctrl+C ends it)", flush=True)
        if browser:
            _open(address)
        uvicorn.run(app, host=host, port=port, log_level="warning")


def _open(address: str) -> None:
    """Open the page if there is a display; the address is printed in any case."""
    import os
    import sys
    import webbrowser

    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
