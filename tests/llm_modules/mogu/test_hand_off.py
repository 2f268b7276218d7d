"""The first tokens from the mixture here, the others from another engine: the tokens of one engine alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from llm_modules.generation import Completion, GenerationEngine, GenerationListener, GenerationSettings
from llm_modules.generation.interface import VllmSettings
from llm_modules.generation.vllm_process import VllmProcess
from llm_modules.mogu.hand_off import HandOff
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.module import MoGU
from tests.llm_modules.generation.vllm_runs import engine, fake_python
from tests.llm_modules.mogu.parts import PROMPTS, tiny_mogu

SETTINGS = GenerationSettings(max_new_tokens=12, slots=2)
ROWS = [*PROMPTS, *[prompt[::-1] for prompt in PROMPTS]]
LIMITS = [12, 3, 9, 1, 5, 12]


class Heard(GenerationListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.tokens, self.failed = 0, dict[int, str]()
        self.done: dict[int, Completion] = {}

    def tokens_generated(self, number: int) -> None:
        self.tokens += number

    def row_failed(self, row: int, reason: str) -> bool:
        self.failed[row] = reason
        return True

    def row_finished(self, row: int, completion: Completion) -> None:
        assert row not in self.done
        self.done[row] = completion


@pytest.fixture
def mogu() -> MoGUModel:
    made = tiny_mogu("llama")
    made.fold()
    return made


def handed_over(mogu: MoGUModel, rest: GenerationEngine, eos: Sequence[int], m: int = 5) -> tuple[HandOff, Heard]:
    made, heard = HandOff(mogu.generator(SETTINGS, mode="first_m", m=m, eos_ids=eos), rest), Heard()
    made.listeners.append(heard)
    return made, heard


@pytest.mark.parametrize("m", [1, 5])
def test_rows_are_those_of_one_engine_whatever_ends_them(mogu: MoGUModel, m: int) -> None:
    """Limits before, at and after the hand-off; and ends in the mixture's tokens and in the base's."""
    free = mogu.generator(SETTINGS, mode="first_m", m=m, eos_ids=()).generate(ROWS)
    eos = (free[0].token_ids[2], free[2].token_ids[8])
    expected = mogu.generator(SETTINGS, mode="first_m", m=m, eos_ids=eos).generate(ROWS, max_new_tokens=LIMITS)
    assert {done.finish_reason for done in expected} == {"stop", "length"}
    base = mogu.generator(SETTINGS, mode="off", eos_ids=eos)
    made, heard = handed_over(mogu, base, eos, m)
    assert made.generate(ROWS, max_new_tokens=LIMITS) == expected
    assert heard.done == dict(enumerate(expected))
    assert heard.tokens == sum(done.n_tokens for done in expected)


@pytest.mark.parametrize("left", [4, 5])
def test_a_row_without_positions_for_the_other_engine_ends(mogu: MoGUModel, left: int) -> None:
    base = mogu.generator(SETTINGS, mode="off", eos_ids=())
    base.max_positions = len(ROWS[0]) + left
    made, heard = handed_over(mogu, base, ())
    (done,) = made.generate(ROWS[:1])
    assert (done.n_tokens, done.finish_reason) == (5, "length")
    assert heard.done == {0: done}


def test_the_other_engine_goes_on_with_the_row_s_random_numbers(
    mogu: MoGUModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is asked: the prompt with the mixture's tokens, what is left of the limit, the numbers used before."""
    rest = engine(fake_python(tmp_path), temperature=0.7)
    asked: list[dict[str, Any]] = []
    send = VllmProcess.send

    def watch(process: VllmProcess, message: dict[str, Any]) -> None:
        asked.extend([message] if "row" in message else [])
        send(process, message)

    monkeypatch.setattr(VllmProcess, "send", watch)
    made, heard = handed_over(mogu, rest, ())
    made.settings = GenerationSettings(max_new_tokens=12, temperature=0.7, engine="vllm", vllm=rest.settings.vllm)
    done = made.generate(ROWS, seeds=range(10, 16), max_new_tokens=LIMITS)
    made.close()
    going = [row for row, limit in enumerate(LIMITS) if limit > 5]
    assert [request["draws"]["drawn"] for request in asked] == [5] * len(going)
    assert [request["draws"]["seed"] for request in asked] == [10 + row for row in going]
    for request, row in zip(asked, going, strict=True):
        assert request["prompt"] == [*ROWS[row], *done[row].token_ids[:5]]
        assert request["sampling"]["max_tokens"] == LIMITS[row] - 5
        assert 5 < done[row].n_tokens <= LIMITS[row]
    assert len(heard.done) == 6


def test_a_row_that_fails_there_is_told_by_its_number_here(
    mogu: MoGUModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "row 1")
    made, heard = handed_over(mogu, engine(fake_python(tmp_path)), (2,))
    done = made.generate(ROWS, max_new_tokens=LIMITS)
    made.close()
    assert heard.failed == {2: "The prompt is odd."}
    assert len(done) == 5


def test_what_needs_each_pass_is_refused(mogu: MoGUModel, tmp_path: Path) -> None:
    class Watches(GenerationListener):
        def before_forward(self, rows: Any) -> None:
            """Every pass."""

    made, _ = handed_over(mogu, engine(fake_python(tmp_path)), (2,))
    made.listeners.append(Watches())
    with pytest.raises(InputError, match="Watches takes part in each forward pass"):
        made.generate(ROWS)
    elsewhere = GenerationSettings(engine="vllm", vllm=VllmSettings(fake_python(tmp_path)))
    with pytest.raises(InputError, match=r"vllm writes what comes after the first m tokens; with model.mode always"):
        MoGU(folder="nowhere", mode="always", generation=elsewhere)
