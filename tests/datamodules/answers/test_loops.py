"""Loops are recognised, sound texts are not taken for one."""

import time

import pytest

from datamodules.answers.loops import has_loop

LOOP = "and so on, and on, " * 40


@pytest.mark.parametrize(
    "text",
    [LOOP, "We add. " + "0" * 100, "好的，" * 40, "Fine so far. " + "17, " * 60 + " The end."],
)
def test_loops_are_seen(text: str) -> None:
    assert has_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        "2 + 2 + 2 + 2 + 2 + 2 + 2 + 2 = 16",
        " ".join(f"Now add {n}: {n} + {n} = {2 * n}." for n in range(100)),
        "No way. No way. No way. No way. No way.",
    ],
)
def test_sound_texts_are_no_loops(text: str) -> None:
    assert not has_loop(text)


def test_looking_for_loops_is_fast() -> None:
    start = time.perf_counter()
    has_loop(" ".join(map(str, range(30_000))))
    assert time.perf_counter() - start < 2
