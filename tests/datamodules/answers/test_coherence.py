"""Loops, word salad and random tokens are found; real answers of any form are not."""

import json
import random
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from datamodules.answers.coherence import incoherence

TEXT = (
    "To open the door, you need the key that hangs on the wall beside the window. Turn it to the left, and push the "
    "door with your shoulder. If it does not move, the wood may have swollen in the rain. In that case, wait for a dry "
    "day, or take the door off its hinges. An old saw is of no use here. You should not oil the lock too often."
)
SOUND = {
    "prose": TEXT,
    "short": "No.",
    "empty": "",
    "refusal": "I'm sorry, but I can't help with that. I'm sorry.",
    "list": "\n".join(f"{i}. Item {i}: use it for the {noun} of an hour." for i, noun in enumerate("abcdefghij")),
    "names": "Albert Einstein, Niels Bohr, Marie Curie, Enrico Fermi, Max Born, Lise Meitner, Otto Hahn, Paul Dirac, "
    "Wolfgang Pauli, Werner Heisenberg, Ernest Rutherford, Henri Becquerel",
    "table": "| Year | Number |\n| --- | -------------------------- |\n| 2019 | 11 |\n| 2020 | 8 |\n| 2021 | 9 |",
    "code": "def add(a, b):\n    return a + b\n\nfor a in range(9):\n    if a is not None and a.of in the_list:\n"
    "        print(add(a, b)[0].is_in, a.to, b.by)\n" * 2,
    "small letters": "i'm sorry. i cannot do this. it would be wrong. goodbye.",
    "more small letters": "yes. that works. you need flour. mix it with water. bake it. then ask Bob. he knows more.",
    "a scream": "A" + "a" * 40 + "rgh! That is what he said when he saw the spider on the wall of the old house.",
    "a long word": "The longest word of the book is " + "pneumonoultramicroscopicsilicovolcanoconiosis" * 2 + ".",
    "sum": "2 + 2 + 2 + 2 + 2 + 2 + 2 + 2 = 16",
    "capitals": "A. THE IT OF US\nI. AN OF TO\nThe IT department of the US is in a US office.",
    "German": "Um die T\u00fcr zu \u00f6ffnen, brauchst du den Schl\u00fcssel, der an der Wand h\u00e4ngt. Dreh ihn "
    "nach links und dr\u00fcck dann mit der Schulter gegen das Holz, das im Regen vielleicht etwas gequollen ist.",
    "Chinese": "\u8981\u6253\u5f00\u95e8\uff0c\u4f60\u9700\u8981\u94a5\u5319\u3002" * 3,
    "a chorus": "Row, row, row your boat\nGently down the stream\nMerrily, merrily, merrily, merrily\n"
    "Life is but a dream",
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_answers(name: str) -> None:
    assert incoherence(SOUND[name]) == ""


def shuffled(text: str, seed: int = 0) -> str:
    words = text.split()
    random.Random(seed).shuffle(words)
    return " ".join(words)


def letters(n: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(n))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I can't. " * 5, "loop"),
        ("no " * 20, "loop"),
        (TEXT + " and so on and" * 40, "loop"),
        (f"{TEXT} " * 4, "loop"),
        ("0" * 900, "loop"),
        ("no" * 900, "loop"),
        ("no" * 100, "loop"),
        ("a" * 240, "loop"),
        ("ha" * 150, "loop"),
        ("Yes! " + "hahaha" * 40, "loop"),
        ("".join(f"Step {i}: Go to the store. " for i in range(1, 9)), "loop"),
        (f"{TEXT}\n" + "".join(f"{i}. I cannot do that for you.\n" for i in range(1, 20)), "loop"),
        (" ".join(f"Then I think about it {i} times." for i in range(7, 30)), "loop"),
        *((shuffled(TEXT, seed), "word salad") for seed in range(5)),
        (" ".join(re.findall("[a-z']+", shuffled(TEXT).lower())), "word salad"),
        (f"{TEXT} {shuffled(TEXT)}", "word salad"),
        (letters(40), "random tokens"),
        (
            "glyphosate reeling keyword realism primer hick effects vaults debris cessation upgrading distributing "
            "game tentative radiant manager kindle osprey lacquer tribune mosaic vertex",
            "random tokens",
        ),
    ],
)
def test_incoherent_answers(text: str, reason: str) -> None:
    assert incoherence(text) == reason


@pytest.mark.parametrize(
    "turns",
    [
        [f"{i} x 7 = {7 * i}\n" for i in range(1, 30)],
        [f"| {i} | yes |\n" for i in range(1, 30)],
        [f"In {year}, the population was {7 * year}. " for year in range(2000, 2020)],
        [f"The {i} of us went home. " for i in (3, 1, 4, 15, 9, 2, 6, 5)],
    ],
)
def test_rows_that_differ_in_more_than_a_counter_are_no_loop(turns: list[str]) -> None:
    assert incoherence("".join(turns)) == ""


@pytest.mark.parametrize(
    "unit", ["a", " ", "\n", "the of ", "a. b", "```", "| ", "\u5319", "1 ", "=", "x1 ", "\x00", "\ud83d"]
)
def test_odd_texts_of_any_length(unit: str) -> None:
    incoherence(unit * 20_000)
    incoherence(f"x{unit * 2_000}y")


def test_false_alarms_on_real_answers_are_as_rare_as_is_known(shared_data: Path) -> None:
    for model, alarms in (("gpt4", 0), ("llama2orig", 0)):
        lines = (shared_data / "xstest" / f"completions.{model}.jsonl").read_text().splitlines()
        assert sum(incoherence(json.loads(line)["completion"]) != "" for line in lines) == alarms
    lines = (shared_data / "just_eval" / "outputs.gpt-4-0613.jsonl").read_text().splitlines()
    found = [said for line in lines if (said := incoherence(json.loads(line)["output"]))]
    assert sorted(found) == ["loop", "word salad", "word salad"]  # the loop is one


def test_random_tokens_of_a_real_vocabulary(shared_data: Path) -> None:
    tokenizer = Tokenizer.from_file(str(shared_data / "tokenizers" / "qwen2_5" / "tokenizer.json"))
    rng = random.Random(0)
    texts = [tokenizer.decode([rng.randrange(tokenizer.get_vocab_size()) for _ in range(100)]) for _ in range(50)]
    assert sum(incoherence(text) != "" for text in texts) >= 48
