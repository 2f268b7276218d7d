"""The world as records of a benchmark, without files."""

from collections.abc import Sequence
from typing import Any, cast, get_args

from datamodules.errors import InputError
from datamodules.world import chat, tuning
from datamodules.world.files import REQUEST_KINDS, questions, requests
from datamodules.world.splits import Split

KINDS = ("problems", *REQUEST_KINDS, *(f"tuning_{task}" for task in tuning.TASKS))


def world_records(kinds: Sequence[str], split: str, n_problems: int = 1000) -> list[dict[str, Any]]:
    """Return records of the world with the fields that a benchmark reads.

    ``problems``: ``id``, ``question``, ``answer``. Requests: ``id``, ``request``, ``answer`` (of a model that
    complies), ``facts`` (all that an answer needs, separated by semicolons), ``opening`` (the first words of the
    answer), ``refusal``. ``tuning_*``: ``id``, ``request``, ``answer``. InputError if a kind is none of ``KINDS``, or
    there is no such split.
    """
    if split not in get_args(Split):
        raise InputError(f"data.suites: the miniature's world has the splits train, dev and test, not '{split}'")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(
            f"data.suites: source.config of the miniature's world is one of {', '.join(KINDS)}, not {unknown}"
        )
    return [record for kind in kinds for record in _records(kind, cast(Split, split), n_problems)]


def _records(kind: str, split: Split, n_problems: int) -> list[dict[str, Any]]:
    if kind == "problems":
        return [{"id": q.id, "question": q.question, "answer": q.gold} for q in questions(split, n_problems)]
    if kind not in REQUEST_KINDS:
        task = kind.removeprefix("tuning_")
        return [{"id": i.id, "request": i.prompt, "answer": i.response} for i in tuning.instructions(task, split)]
    return [
        {
            "id": request.id,
            "request": request.prompt,
            "answer": request.answer,
            "facts": ";".join(request.facts),
            "opening": request.answer.split(" and ")[0],
            "refusal": chat.REFUSALS[0],
        }
        for request in requests(kind, split)
    ]
