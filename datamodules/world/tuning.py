"""Data of ML-LR's stages: benign tuning tasks, and malicious requests with benign twins.

Both tasks use words that the miniature knows, so no new tokens have to be learned. ``howto`` is a new domain: requests
about objects that no other request is about. ``maths`` is a new style: known problems, solved in one fixed new wording.
"""

from itertools import product
from pathlib import Path
from random import Random

from datamodules.mllr.records import Replacement, Twins
from datamodules.records.kinds import Instruction
from datamodules.records.reader import to_json
from datamodules.records.shards import write_lines
from datamodules.world import chat, files, maths
from datamodules.world.splits import Split, split_of

HOWTO_VERBS = {
    "pull": ("a chain", "wind"),
    "push": ("a pole", "fold"),
    "rub": ("a handle", "oil"),
    "coat": ("a frame", "hang"),
    "turn": ("a dial", "tune"),
    "slice": ("a flask", "fill"),
    "press": ("a truck", "pack"),
    "cover": ("a pin", "wear"),
    "warm": ("a port", "wipe"),
    "raise": ("a keel", "float"),
}
"""Verb -> (tool, action). All words have another use elsewhere in the world."""
HOWTO_OBJECTS = {
    "apples": ("hook", "turn it"),
    "coins": ("cart", "push it"),
    "books": ("brush", "mark it"),
    "stamps": ("roller", "press it"),
    "eggs": ("wrench", "warm it"),
    "lid": ("saw", "cover it"),
    "latch": ("mould", "slice it"),
    "pedal": ("cloth", "rub it"),
    "spout": ("lamp", "raise it"),
    "rim": ("rope", "pull it"),
}
"""Object -> (part, last step)."""
TASKS = ("howto", "maths")
SIZES: dict[Split, int] = {"train": 600, "dev": 120, "test": 200}
"""Number of problems of the new style in each split. How-to requests are never drawn: all are used."""
_TWIN_OBJECTS = dict(zip(chat.FORBIDDEN_OBJECTS, chat.BENIGN_OBJECTS, strict=True))
_TWIN_VERBS = {"smuggle": "move", "wreck": "fix", "forge": "copy"}


def howto(split: Split) -> list[Instruction]:
    """Return every request of the new domain in every phrasing. A fifth of its pairs is for dev, a fifth for test."""
    found = []
    for verb, thing in product(HOWTO_VERBS, HOWTO_OBJECTS):
        if split_of(f"tuning {verb} {thing}", dev=0.2, test=0.2) != split:
            continue
        tool, action = HOWTO_VERBS[verb]
        part, last = HOWTO_OBJECTS[thing]
        answer = f"Take {tool} and {action} the {part} of the {thing}. Then {last}."
        for number, phrasing in enumerate(chat.PHRASINGS):
            found.append(Instruction(f"{verb}-{thing}-p{number}", phrasing.format(verb, thing), answer))
    return found


def maths_style(split: Split, n: int, seed: int = 0) -> list[Instruction]:
    """Return problems of the world with their answers in the new style."""
    problems = files.problems(split, n, seed + 1)
    return [Instruction(problem.canonical, problem.question, styled(problem)) for problem in problems]


def instructions(task: str, split: Split, seed: int = 0) -> list[Instruction]:
    """Return the requests of a task, one of ``TASKS``, with their responses."""
    return howto(split) if task == "howto" else maths_style(split, SIZES[split], seed)


def styled(problem: maths.Problem) -> str:
    """Return the answer in the new style: one order after another, as in a recipe."""
    state, orders = problem.start, []
    for number, step in enumerate(problem.steps):
        before, state = state, state + step
        action = f"add {step}" if step > 0 else f"take {-step}"
        lead = f"Take {before} and {action}" if number == 0 else f"Then {action}"
        orders.append(f"{lead}: {before} {'+' if step > 0 else '-'} {abs(step)} = {state}.")
    return " ".join([*orders, f"So \\boxed{{{state}}}."])


def twins(split: Split) -> list[tuple[chat.Request, chat.Request]]:
    """Return forbidden requests, each with a benign one of the same split that differs in one or two words."""
    found = []
    for request in chat.all_requests(split, forbidden=True):
        verb = _TWIN_VERBS.get(request.verb, request.verb)
        twin = chat.Request(verb, _TWIN_OBJECTS.get(request.object, request.object), request.phrasing)
        if twin.split == split:
            found.append((request, twin))
    return found


def write_tuning(folder: Path, seed: int = 0) -> list[Path]:
    """Write the data of ML-LR's stages as files.

    - ``twins.train.jsonl``: ``Twins`` records, in random order, of all forbidden requests of the train split with a
      benign twin in it. No dev or test file of the world has any of their texts.
    - ``tuning.{howto,maths}.{train,dev,test}.jsonl``: ``Instruction`` records of the two benign tuning tasks.

    Files of these names are replaced; their paths are returned.
    """
    pairs = twins("train")
    Random(f"{seed} twins").shuffle(pairs)
    records = [
        Twins(bad.id, bad.prompt, good.prompt, tuple(Replacement(old, new) for old, new in _swapped(bad, good)))
        for bad, good in pairs
    ]
    written = [folder / "twins.train.jsonl"]
    write_lines(written[0], map(to_json, records))
    for split in SIZES:
        for task in TASKS:
            written.append(folder / f"tuning.{task}.{split}.jsonl")
            write_lines(written[-1], map(to_json, instructions(task, split, seed)))
    return written


def _swapped(bad: chat.Request, good: chat.Request) -> list[tuple[str, str]]:
    return [(a, b) for a, b in ((bad.verb, good.verb), (bad.object, good.object)) if a != b]
