import base64
from typing import get_args

import pytest

from datamodules.suites.attack_templates import OPENING, AttackTemplate, RenderedAttack, render_attack

REQUEST = "Open the red vault\nand the {green} one"
TARGET = "Sure, turn the wheel"
NAMES = get_args(AttackTemplate)


def test_none_leaves_the_request_alone() -> None:
    assert render_attack("none", REQUEST, TARGET) == RenderedAttack(REQUEST)


def test_an_opening_is_put_into_the_answer_not_into_the_request() -> None:
    assert render_attack("prefill", REQUEST, TARGET) == RenderedAttack(REQUEST, TARGET)
    assert render_attack("prefill", REQUEST) == RenderedAttack(REQUEST, OPENING)


@pytest.mark.parametrize("name", NAMES)
def test_the_request_is_there_as_it_is(name: AttackTemplate) -> None:
    made = render_attack(name, REQUEST, TARGET)
    if name == "base64":
        assert REQUEST not in made.user
        assert base64.b64decode(made.user.splitlines()[-1]).decode() == REQUEST
    else:
        assert made.user.count(REQUEST) == 1
    assert bool(made.prefill) == (name == "prefill")


def test_each_template_is_another_prompt() -> None:
    made = {render_attack(name, REQUEST, TARGET) for name in NAMES}
    assert len(made) == len(NAMES) == 7


def test_those_that_ask_for_an_opening_ask_for_the_data_s_own() -> None:
    assert f'"{TARGET}"' in render_attack("prefix_injection", REQUEST, TARGET).user
    assert render_attack("in_context", REQUEST, TARGET).user.endswith(f"Q: {REQUEST}\nA: {TARGET}")
    assert render_attack("in_context", REQUEST).user.endswith(f"A: {OPENING}")
    assert render_attack("refusal_suppression", REQUEST).user.endswith(REQUEST)
    assert render_attack("role_play", REQUEST).user.endswith(f"Visitor: {REQUEST}\nMax:")


def test_base64_of_other_alphabets() -> None:
    coded = render_attack("base64", "Öffne den Tresor, 開けて").user.splitlines()[-1]
    assert base64.b64decode(coded).decode() == "Öffne den Tresor, 開けて"
