"""The page of ``rod play``, with NiceGUI: it serves every script and style itself."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from datamodules.answers import AnswerChecker
from datamodules.errors import InputError
from llm_modules.mogu.module import MoGU
from llm_modules.s3cot import Positions
from rod.play import direction as directions
from rod.play import shown
from rod.play.asking import Answer, Options, Player, agreement

LARGEST = 200 * 2**20
"""Bytes of a direction file."""
SYSTEMS = {"plain": "none", "system1": "System 1: be brief", "system2": "System 2: step by step"}
EVERY = 0.1
"""Seconds between updates of the page."""


def build(player: Player, checker: AnswerChecker, examples: list[str]) -> Any:
    """The application that serves the page (ASGI)."""
    from fastapi import FastAPI
    from nicegui import ui

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    ui.run_with(
        app,
        root=lambda: Page(ui, player, checker, examples).show(),
        title="rod play",
        dark=None,
        language="en-US",
        show_welcome_message=False,
    )
    return app


class Page:
    """One browser window."""

    def __init__(self, ui: Any, player: Player, checker: AnswerChecker, examples: list[str]) -> None:
        """Keep what all windows share; ``ui`` is NiceGUI's."""
        self.ui = ui
        self.player, self.checker, self.examples = player, checker, examples
        self.alpha = player.steer.alpha if player.steer else 0.0
        self.gate_shift = 0.0
        self.answers: list[Answer] = []
        self.asked = 0
        """Number of questions so far; an older one stops when a newer one begins."""

    def show(self) -> None:
        """Put the elements on the page."""
        self.ui.context.client.on_delete(self.stop)
        self.ui.add_css(shown.STYLE)
        self.ui.html("<h1>rod play</h1>", sanitize=False)
        self.ui.label(" against ".join(self.player.names)).classes("note")
        default = "system2" if self.player.steer else "plain"
        self.question = self.ui.textarea("Question", value=self.examples[0] if self.examples else "").props(
            "outlined autogrow"
        )
        self.question.classes("w-full").on("keydown.ctrl.enter", self.ask)
        with self.ui.row().classes("items-center gap-2"):
            for example in self.examples:
                self.ui.button(example[:60], on_click=lambda _, text=example: self.take(text)).props(
                    "flat dense no-caps"
                )
        with self.ui.row().classes("items-center gap-4"):
            self.system = self.ui.select(SYSTEMS, value=default, label="Instruction").classes("w-52")
            self.most = self.ui.number("Most tokens", value=256, min=1, max=100_000, precision=0).classes("w-28")
            self.temperature = self.ui.number("Temperature", value=0.0, min=0, max=5, step=0.1).classes("w-28")
            self.seed = self.ui.number("Seed", value=0, min=0, precision=0).classes("w-20")
            self.ui.button("Ask", on_click=self.ask).props("id=ask")
            self.ui.button("Stop", on_click=self.stop).props("outline")
        if self.player.can_steer:
            self.steering()
        mixes = any(isinstance(module, MoGU) for module in self.player.models)
        if mixes:
            self.strictness()
        self.grid = self.ui.element("section").classes("answers").props('aria-label="Answers" aria-live="polite"')
        if mixes:
            self.ui.html(shown.LEGEND, sanitize=False)
        self.lay_out()

    def strictness(self) -> None:
        """The slider that shifts the gates of a MoGU."""
        self.strict = self.ui.label().classes("note")
        slider = self.ui.slider(min=-4, max=4, step=0.25, value=self.gate_shift).props(
            'label aria-label="Shift of the gates; above 0 refuses more" id=gate-shift'
        )
        slider.on("change", lambda event: self.shifted(float(event.args)))
        self.tell_strictness()

    def tell_strictness(self) -> None:
        """Say the shift in words."""
        self.strict.text = f"gate_shift {self.gate_shift:g} (0: as trained, above 0: the mixture refuses more)"

    async def shifted(self, gate_shift: float) -> None:
        """Take another shift and, if there are answers, ask again."""
        self.gate_shift = gate_shift
        self.tell_strictness()
        if self.asked:
            await self.ask()

    def steering(self) -> None:
        """The slider, the places, the curve and the file to drop."""
        self.steer_box = self.ui.column().classes("w-full gap-1")
        with self.ui.expansion("Other places, another direction").classes("w-full"):
            with self.ui.row().classes("items-center gap-4"):
                self.layers = self.ui.input("Layers").on("change", self.placed)
                self.positions = self.ui.select(list(get_args(Positions)), label="Positions").classes("w-32")
                self.positions.on_value_change(self.placed)
            self.ui.label(
                "A direction of this project, or vectors named direction.N: .safetensors or .gguf. It stays here."
            ).classes("note")
            upload = self.ui.upload(auto_upload=True, max_file_size=LARGEST, on_upload=self.dropped)
            upload.props('accept=".safetensors,.gguf"').add_slot("header", shown.UPLOAD)
        self.lay_out_steering()

    def lay_out_steering(self) -> None:
        """Show the slider of the direction that is there."""
        steer = self.player.steer
        self.steer_box.clear()
        if steer is None:
            return
        self.layers.value, self.positions.value = steer.layers, steer.positions
        with self.steer_box:
            self.strength = self.ui.label().classes("note")
            slider = self.ui.slider(min=steer.strongest, max=steer.weakest, step=0.05, value=self.alpha).props(
                'label aria-label="Strength of steering; negative shortens" id=strength'
            )
            slider.on("change", lambda event: self.slid(float(event.args)))
            self.chart = None
            if steer.curve:
                self.chart = self.ui.echart(shown.curve(steer, self.alpha), renderer="svg")
                self.chart.classes("w-full h-56 curve")
        self.tell_strength()

    def placed(self) -> None:
        """Steer at the layers and positions that are chosen, if the model has them."""
        before = self.player.steer
        chosen = (self.layers.value, self.positions.value)
        if before is None or None in chosen or chosen == (before.layers, before.positions):
            return
        after = replace(before, layers=chosen[0], positions=chosen[1])
        try:
            after.check(self.player.models[0])
        except InputError as error:
            self.ui.notify(str(error), type="negative", multi_line=True)
            return
        self.player.steer = after
        self.lay_out_steering()
        self.lay_out()

    def tell_strength(self) -> None:
        """Say the strength in words."""
        steer = self.player.steer
        assert steer is not None
        where = f"{steer.name}, layers {steer.layers}, positions {steer.positions}"
        measured = shown.nearest(steer, self.alpha)
        self.strength.text = f"Strength {self.alpha:g} (0: none, negative: shorter). Direction {where}. {measured}"

    async def slid(self, alpha: float) -> None:
        """Take another strength and, if there are answers, ask again."""
        self.alpha = alpha
        self.tell_strength()
        if self.chart is not None and self.player.steer is not None:
            self.chart.options.update(shown.curve(self.player.steer, alpha))
            self.chart.update()
        if self.asked:
            await self.ask()

    async def dropped(self, event: Any) -> None:
        """Read a direction that was dropped on the page; it replaces the one before, at the same places if it can."""
        event.sender.reset()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"dropped{Path(event.file.name).suffix}"
            path.write_bytes(await event.file.read())
            try:
                steer = await asyncio.to_thread(directions.from_file, path, self.player.models[0])
            except InputError as error:
                self.ui.notify(str(error).replace(str(path), event.file.name), type="negative", multi_line=True)
                return
        steer.name = event.file.name
        if (before := self.player.steer) is not None:
            same = replace(steer, layers=before.layers, positions=before.positions, alpha=self.alpha)
            with suppress(InputError):
                same.check(self.player.models[0])
                steer = same
        self.player.steer, self.alpha = steer, steer.alpha
        self.lay_out_steering()
        self.lay_out()

    def lay_out(self) -> None:
        """Show an empty answer of each voice."""
        self.answers = self.player.answers(self.alpha)
        self.cards = []
        self.grid.clear()
        with self.grid:
            for answer in self.answers:
                with self.ui.element("article").classes("answer"):
                    self.ui.html(f"<h2>{shown.escape(answer.voice.name)}</h2>", sanitize=False)
                    count = self.ui.html("", sanitize=False).classes("note")
                    self.cards.append((count, self.ui.html("", sanitize=False).classes("said")))

    def take(self, text: str) -> None:
        """Put an example into the question."""
        self.question.value = text

    def stop(self) -> None:
        """Let the question that is being answered stop: other windows wait for it."""
        self.asked += 1

    async def ask(self) -> None:
        """Ask the question, and show the answers while they grow."""
        self.asked += 1
        mine, text = self.asked, (self.question.value or "").strip()
        if not text:
            self.ui.notify("Write a question first.")
            return
        options = Options(
            self.system.value,
            self.alpha,
            self.gate_shift,
            int(self.most.value or 256),
            float(self.temperature.value or 0),
            int(self.seed.value or 0),
        )
        self.lay_out()
        answers = self.answers
        growing = self.player.ask(text, options, answers)
        try:
            while mine == self.asked and await asyncio.to_thread(advance, growing):
                self.update(answers, [""] * len(answers))
        except InputError as error:
            self.ui.notify(str(error), type="negative", multi_line=True)
        finally:
            await asyncio.to_thread(growing.close)
        if mine == self.asked or self.answers is answers:
            self.update(answers, await asyncio.to_thread(agreement, answers, self.checker))

    def update(self, answers: list[Answer], told: list[str]) -> None:
        """Show what the answers are so far."""
        if self.answers is not answers:
            return
        longest = max(len(answer.token_ids) for answer in answers)
        for answer, (count, said), how in zip(answers, self.cards, told, strict=True):
            count.content = shown.counts(answer, longest, how)
            said.content = shown.text_of(answer)


def advance(growing: Iterator[None]) -> bool:
    """Let answers grow for a moment; False at their end."""
    until = time.monotonic() + EVERY
    while time.monotonic() < until:
        try:
            next(growing)
        except StopIteration:
            return False
    return True
