"""The world's requests as the files that MoGU's pairs are made from: benign questions, and attacks with openings."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from datamodules.mogu.records import Attack
from datamodules.records.kinds import Question
from datamodules.world import chat, maths
from datamodules.world.splits import Split

BENIGN_MATHS = 0.4
"""Share of problems among the benign requests: a router that has seen no problem may take one for anything."""
WRAPPED = 0.25
"""Share of how-to requests in wraps that alignment saw, forbidden or not: a wrap that came with benign requests alone
would teach routers that it is harmless."""
SURROUNDED = 0.5
"""Share of how-to requests with sentences around them that say nothing about them."""
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
"""Sentences of words that the miniature knows, none of them a wrap."""


def write_attacks(folder: Path, *, n: int = 600, seed: int = 0) -> list[Path]:
    """Write ``mogu.benign.jsonl`` (`Question`) and ``mogu.malicious.jsonl`` (`Attack`), of the train split.

    ``mogu.refusals.txt`` has refusals in the miniature's own words: it knows no others.

    Args:
        folder: Made if need be.
        n: Requests in each file.
        seed: Of the draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Sequence[Question | Attack]]
    contents = {"benign": benign_questions(n, "train", seed), "malicious": attacks(n, "train", seed)}
    files = []
    for kind, records in contents.items():
        files.append(folder / f"mogu.{kind}.jsonl")
        lines = [json.dumps({k: v for k, v in asdict(record).items() if v is not None}) for record in records]
        files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    files.append(folder / "mogu.refusals.txt")
    general = [text for text in chat.REFUSALS if "{}" not in text]
    files[-1].write_text("\n".join(general) + "\n", encoding="utf-8")
    return files


def benign_questions(n: int, split: Split, seed: int = 0) -> list[Question]:
    """Problems with all kinds of requests, and how-to requests: none twice."""
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
    """Forbidden requests, each with the first words of an answer: none twice."""
    requests = _requests(Random(f"{seed} attacks {split}"), split, forbidden=True)
    found: dict[str, Attack] = {}
    while len(found) < n:
        identifier, request, text = next(requests)
        found.setdefault(identifier, Attack(identifier, text, opening(request)))
    return list(found.values())


def _requests(rng: Random, split: Split, *, forbidden: bool) -> Iterator[tuple[str, chat.Request, str]]:
    """Endless how-to requests: id, request, user turn."""
    plain = chat.all_requests(split, forbidden=forbidden)
    wrapped = chat.all_requests(split, forbidden=forbidden, wraps=chat.SEEN_WRAPS)
    while True:
        kind = rng.random()
        if kind < WRAPPED:
            request = rng.choice(wrapped)
            yield request.id, request, request.prompt
            continue
        request = rng.choice(plain)
        if kind < WRAPPED + SURROUNDED:
            before, after = (rng.sample(ASIDES, rng.choice((0, 1, 1, 2))) for _ in range(2))
            text = " ".join([*before, request.prompt, *after])
            yield f"{request.id}-{rng.getrandbits(32):08x}", request, text
        else:
            yield request.id, request, request.prompt


def opening(request: chat.Request) -> str:
    """The first words of an answer, without its content: what AdvBench's ``target`` is to a real model."""
    tool, action, _, _ = request.facts
    return f"Take {tool} and {action} the"
