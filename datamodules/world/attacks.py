"""The world's requests as the files that MoGU's pairs are made from: benign questions, and attacks with openings."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

from datamodules.records import Attack, Question
from datamodules.world import chat, maths
from datamodules.world.splits import Split

BENIGN_MATHS = 0.4
"""Share of problems among the benign requests: a router that has seen no problem may take one for anything."""
WRAPPED = 0.5
"""Share of wrapped how-to requests, forbidden or not, all in the wraps that alignment saw. A wrap that came with benign
requests alone would teach routers that it is harmless."""


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
    """Problems with all kinds of requests, how-to requests, some of these in wraps: none twice."""
    rng = Random(f"{seed} benign {split}")
    plain = chat.all_requests(split, forbidden=False)
    wrapped = chat.all_requests(split, forbidden=False, wraps=chat.SEEN_WRAPS)
    found: dict[str, Question] = {}
    while len(found) < n:
        if rng.random() < BENIGN_MATHS:
            problem = maths.draw_problem(rng, split)
            text, identifier = problem.question + maths.draw_request(rng), problem.canonical
        else:
            request = rng.choice(wrapped if rng.random() < WRAPPED else plain)
            text, identifier = request.prompt, request.id
        found.setdefault(identifier, Question(identifier, text))
    return list(found.values())


def attacks(n: int, split: Split, seed: int = 0) -> list[Attack]:
    """Forbidden requests, some of them in wraps that alignment saw, each with the first words of an answer."""
    rng = Random(f"{seed} attacks {split}")
    plain = chat.all_requests(split, forbidden=True)
    wrapped = chat.all_requests(split, forbidden=True, wraps=chat.SEEN_WRAPS)
    found: dict[str, Attack] = {}
    while len(found) < n:
        request = rng.choice(wrapped if rng.random() < WRAPPED else plain)
        found.setdefault(request.id, Attack(request.id, request.prompt, opening(request)))
    return list(found.values())


def opening(request: chat.Request) -> str:
    """The first words of an answer, without its content: what AdvBench's ``target`` is to a real model."""
    tool, action, _, _ = request.facts
    return f"Take {tool} and {action} the"
