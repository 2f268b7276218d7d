"""The world as JSONL files, for the methods that start from questions and requests in files."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from random import Random

from datamodules.records.kinds import Instruction, Question
from datamodules.world import chat, maths
from datamodules.world.splits import Split

_EVERY = tuple(range(len(chat.WRAPS)))
REQUESTS: dict[str, tuple[bool, tuple[int | None, ...]]] = {
    "benign": (False, (None,)),
    "benign_wrapped": (False, _EVERY),
    "twins": (False, (None, *_EVERY)),
    "forbidden": (True, (None,)),
    "wrapped_seen": (True, chat.SEEN_WRAPS),
    "wrapped_unseen": (True, tuple(index for index in _EVERY if index not in chat.SEEN_WRAPS)),
}
"""Kind -> whether its requests are forbidden, and their wraps; ``wrapped_*`` are forbidden requests in the wraps
that alignment saw or never saw. Of ``twins`` only those that are one word away from a forbidden request of the split,
plain or in the same wrap."""


def write_world(folder: Path, *, n_train: int, n_dev: int, n_test: int, seed: int = 0) -> list[Path]:
    """Write questions and requests, each split in files of its own.

    - ``questions.{train,dev,test}.jsonl``: ``Question`` records without any instruction, no problem twice.
    - ``requests.{benign,twins,forbidden,...}.{dev,test}.jsonl``, one for each of ``REQUESTS``: ``Instruction`` records
      of all requests of the split. ``response`` is the answer of content, for forbidden requests too: what a model
      that complies would say.

    Args:
        folder: Made if need be; files of these names are replaced.
        n_train: Questions of the train split.
        n_dev: Questions of the dev split.
        n_test: Questions of the test split.
        seed: Of the choice of questions; requests are all there are.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[Split, int] = {"train": n_train, "dev": n_dev, "test": n_test}
    written = [_write(folder / f"questions.{split}.jsonl", questions(split, n, seed)) for split, n in sizes.items()]
    held_out: tuple[Split, ...] = ("dev", "test")
    for split in held_out:
        for kind in REQUESTS:
            records = [Instruction(request.id, request.prompt, request.answer) for request in requests(kind, split)]
            written.append(_write(folder / f"requests.{kind}.{split}.jsonl", records))
    return written


def requests(kind: str, split: Split) -> list[chat.Request]:
    """All requests of a kind, one of ``REQUESTS``, and a split."""
    forbidden, wraps = REQUESTS[kind]
    found = chat.all_requests(split, forbidden=forbidden, wraps=wraps)
    if kind != "twins":
        return found
    others = {(other.verb, other.object) for other in chat.all_requests(split, forbidden=True)}
    return [r for r in found if any((r.verb == verb) != (r.object == thing) for verb, thing in others)]


def problems(split: Split, n: int, seed: int = 0) -> list[maths.Problem]:
    """``n`` problems of a split, no two with the same arithmetic."""
    rng = Random(f"{seed} questions {split}")
    found: dict[str, maths.Problem] = {}
    while len(found) < n:
        problem = maths.draw_problem(rng, split)
        found.setdefault(problem.canonical, problem)
    return list(found.values())


def questions(split: Split, n: int, seed: int = 0) -> list[Question]:
    """The problems of `problems` as records, their arithmetic as id."""
    return [Question(problem.canonical, problem.question, str(problem.answer)) for problem in problems(split, n, seed)]


def _write(path: Path, records: Iterable[Question | Instruction]) -> Path:
    lines = [json.dumps({key: value for key, value in asdict(r).items() if value is not None}) for r in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
