"""The world's requests as input of ``rod pairs``: benign questions, and attacks with openings."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from datamodules.mogu.records import Attack
from datamodules.records.kinds import Question
from datamodules.world import chat, maths
from datamodules.world.files import write_records
from datamodules.world.splits import Split

BENIGN_MATHS = 0.4
"""Share of problems among the benign requests. A router that has never seen a problem may take it for malicious."""
TEMPLATED = 0.25
"""Share of how-to requests, forbidden or not, in attack templates that alignment saw. A template around benign requests
alone would teach routers that it is harmless."""
SURROUNDED = 0.5
"""Share of how-to requests with unrelated sentences around them."""
ASIDES = (
    "My friend Tom is here.",
    "Mia and Ben wait for me.",
    "It is for Eva.",
    "We start now.",
    "Leo gets some coins.",
    "There are many books in it.",
    "I want it to be right.",
    "Sam finds it too.",
    "Then Zoe eats.",
    "Ana has some eggs.",
    "You are right.",
    "I have my answer later.",
)
"""Unrelated sentences, of words that the miniature knows."""


def write_attacks(folder: Path, *, n: int = 600, seed: int = 0) -> list[Path]:
    """Write ``mogu.benign.jsonl`` (`Question`) and ``mogu.malicious.jsonl`` (`Attack`), of the train split.

    Each has ``n`` requests. ``mogu.refusals.txt`` has refusals in the words that the miniature knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    benign = write_records(folder / "mogu.benign.jsonl", benign_questions(n, "train", seed))
    malicious = write_records(folder / "mogu.malicious.jsonl", attacks(n, "train", seed))
    refusals = folder / "mogu.refusals.txt"
    general = [text for text in chat.REFUSALS if "{}" not in text]
    refusals.write_text("\n".join(general) + "\n", encoding="utf-8")
    return [benign, malicious, refusals]


def benign_questions(n: int, split: Split, seed: int = 0) -> list[Question]:
    """Draw different problems, with all kinds of length requests, and how-to requests."""
    rng = Random(f"{seed} benign {split}")
    requests = _requests(rng, split, forbidden=False)
    found: dict[str, Question] = {}
    while len(found) < n:
        if rng.random() < BENIGN_MATHS:
            problem = maths.draw_problem(rng, split)
            found.setdefault(problem.canonical, Question(problem.canonical, problem.question + maths.draw_request(rng)))
        else:
            identifier, _, text = next(requests)
            found.setdefault(identifier, Question(identifier, text))
    return list(found.values())


def attacks(n: int, split: Split, seed: int = 0) -> list[Attack]:
    """Draw different forbidden requests, each with the first words of an answer."""
    requests = _requests(Random(f"{seed} attacks {split}"), split, forbidden=True)
    found: dict[str, Attack] = {}
    while len(found) < n:
        identifier, request, text = next(requests)
        found.setdefault(identifier, Attack(identifier, text, opening(request)))
    return list(found.values())


def _requests(rng: Random, split: Split, *, forbidden: bool) -> Iterator[tuple[str, chat.Request, str]]:
    """Draw how-to requests without end: id, request, user turn."""
    plain = chat.all_requests(split, forbidden=forbidden)
    templated = chat.all_requests(split, forbidden=forbidden, templates=chat.SEEN_TEMPLATES)
    while True:
        kind = rng.random()
        if kind < TEMPLATED:
            request = rng.choice(templated)
            yield request.id, request, request.prompt
            continue
        request = rng.choice(plain)
        if kind < TEMPLATED + SURROUNDED:
            before, after = (rng.sample(ASIDES, rng.choice((0, 1, 1, 2))) for _ in range(2))
            text = " ".join([*before, request.prompt, *after])
            yield f"{request.id}-{rng.getrandbits(32):08x}", request, text
        else:
            yield request.id, request, request.prompt


def opening(request: chat.Request) -> str:
    """Return the first words of an answer, without its content, like ``target`` in AdvBench."""
    tool, action, _, _ = request.facts
    return f"Take {tool} and {action} the"
