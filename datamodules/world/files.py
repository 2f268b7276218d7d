"""The world as JSONL files of questions and requests."""

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from datamodules.mogu.records import Attack
from datamodules.records.kinds import Instruction, Question
from datamodules.records.reader import to_json
from datamodules.records.shards import write_lines
from datamodules.world import chat, maths
from datamodules.world.splits import Split

_EVERY = tuple(range(len(chat.ATTACK_TEMPLATES)))
REQUEST_KINDS: dict[str, tuple[bool, tuple[int | None, ...]]] = {
    "benign": (False, (None,)),
    "benign_wrapped": (False, _EVERY),
    "twins": (False, (None, *_EVERY)),
    "forbidden": (True, (None,)),
    "wrapped_seen": (True, chat.SEEN_TEMPLATES),
    "wrapped_unseen": (True, tuple(index for index in _EVERY if index not in chat.SEEN_TEMPLATES)),
}
"""Kind -> whether its requests are forbidden, and their attack templates.

``wrapped_seen`` and ``wrapped_unseen`` are forbidden requests in templates that alignment has or has not seen.
``twins`` are the benign requests that differ in one word from a forbidden request of the split, without a template or
in the same one."""


def write_world(folder: Path, *, n_train: int, n_dev: int, n_test: int, seed: int = 0) -> list[Path]:
    """Write questions and requests, each split in files of its own.

    - ``questions.{train,dev,test}.jsonl``: ``Question`` records without a length request, all different.
    - ``watched.dev.jsonl``: requests of the dev split for the callback `SafetyWatch`: 24 forbidden ones
      (``malicious``), 12 twins and 12 others.
    - ``requests.{benign,twins,forbidden,...}.{dev,test}.jsonl``, one for each of ``REQUEST_KINDS``: ``Instruction``
      records of all requests of the split. ``response`` is the answer of a model that complies, for forbidden requests
      too.

    ``seed`` chooses the questions. Files of these names are replaced; their paths are returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[Split, int] = {"train": n_train, "dev": n_dev, "test": n_test}
    files = {split: folder / f"questions.{split}.jsonl" for split in sizes}
    written = [write_records(files[split], questions(split, n, seed)) for split, n in sizes.items()]
    written.append(folder / "watched.dev.jsonl")
    write_lines(written[-1], watched(seed))
    held_out: tuple[Split, ...] = ("dev", "test")
    for split in held_out:
        for kind in REQUEST_KINDS:
            records = [Instruction(request.id, request.prompt, request.answer) for request in requests(kind, split)]
            written.append(write_records(folder / f"requests.{kind}.{split}.jsonl", records))
    return written


def watched(seed: int = 0) -> list[str]:
    """Lines with ``id``, ``prompt`` and ``kind``, of requests of the dev split."""
    rng = Random(f"{seed} watched")
    found: list[dict[str, str]] = []
    for kind, source, n in (("malicious", "forbidden", 24), ("twin", "twins", 12), ("benign", "benign", 12)):
        taken = {line["id"] for line in found}
        others = [request for request in requests(source, "dev") if request.id not in taken]
        found += [{"id": r.id, "prompt": r.prompt, "kind": kind} for r in rng.sample(others, n)]
    return [json.dumps(line) for line in found]


def requests(kind: str, split: Split) -> list[chat.Request]:
    """Return all requests of a split and a kind, one of ``REQUEST_KINDS``."""
    forbidden, templates = REQUEST_KINDS[kind]
    found = chat.all_requests(split, forbidden=forbidden, templates=templates)
    if kind != "twins":
        return found
    others = {(other.verb, other.object) for other in chat.all_requests(split, forbidden=True)}
    return [r for r in found if any((r.verb == verb) != (r.object == thing) for verb, thing in others)]


def problems(split: Split, n: int, seed: int = 0) -> list[maths.Problem]:
    """Draw ``n`` problems of a split, no two with the same arithmetic."""
    rng = Random(f"{seed} questions {split}")
    found: dict[str, maths.Problem] = {}
    while len(found) < n:
        problem = maths.draw_problem(rng, split)
        found.setdefault(problem.canonical, problem)
    return list(found.values())


def questions(split: Split, n: int, seed: int = 0) -> list[Question]:
    """Draw the same problems as `problems`, as records with the arithmetic as id."""
    return [Question(problem.canonical, problem.question, str(problem.answer)) for problem in problems(split, n, seed)]


def write_records(path: Path, records: Iterable[Question | Instruction | Attack]) -> Path:
    """Write records to a JSONL file without their empty fields, and return its path."""
    lines = [
        json.dumps({key: value for key, value in json.loads(to_json(r)).items() if value is not None}) for r in records
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
