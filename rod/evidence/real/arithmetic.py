"""What SmolLM2 is taught arithmetic with, and the problems that S³-CoT is shown on."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random

from datamodules.prompts.chat_template import user_turn
from datamodules.records import Question, read_records, to_json
from datamodules.records.same_text import linked
from datamodules.records.shards import write_lines
from rod.evidence.real.solutions import Solution, annotated, from_answer, from_equation, number_text

GSM8K = "gsm8k/train.jsonl"
MAWPS = {name: f"mawps/{name}.jsonl" for name in ("singleop", "addsub", "singleeq", "multiarith")}
SVAMP = "svamp/test.jsonl"
FILES = (GSM8K, *MAWPS.values(), SVAMP)
"""Where the problems stand in the folder of data sets."""
TESTED = ("multiarith", "addsub", "singleeq", "svamp")
"""Sets with problems that nothing is taught, sampled or chosen on."""
N_TEST, N_DEV, N_VAL, N_LOSS = 200, 200, 200, 50
"""Test problems of a set; problems to calibrate on, to choose a checkpoint on, and for the loss of the teaching."""
BRIEF = " Write down the calculations only."
"""Instruction of the brief solutions; not the one of System 1, which is left to the method."""
_ALIKE = 0.7
_SAME_SPLIT = 0


@dataclass(frozen=True)
class Problem:
    """A problem of one of the sets; ``solution`` if its steps are known."""

    source: str
    question: str
    gold: str
    solution: Solution | None

    def record(self, number: int) -> Question:
        """The problem as a question."""
        return Question(id=f"{self.source}-{number}", question=self.question, gold=self.gold)


@dataclass(frozen=True)
class _Given:
    """A problem as a set has it."""

    id: str
    question: str
    answer: float
    body: str = ""
    equation: str = ""


def write_arithmetic(data: Path, output: Path, max_steps: int = 2) -> dict[str, int]:
    """Write teaching chats and questions; return file -> number of lines.

    - ``teach.{train,val}.jsonl``: conversations. Each problem is there twice: with the long solution after System 2's
      instruction, and with the plain or the brief one.
    - ``questions.{train,dev,val}.jsonl``, ``test.{multiarith,addsub,singleeq,svamp}.jsonl``: `Question` records.

    Problems that differ by little more than their numbers are a family (at least .7 of their words in common, or a
    chain of such problems); no family of a test problem is in the other files (GSM8K, which is written from scratch,
    is not compared). Solutions of more than ``max_steps`` steps are not taught. GSM8K's last 50 problems are for the
    validation loss.
    """
    published = read_records(data / GSM8K, Question, fields={"gold": "answer"}, strict=True)
    found = (annotated(problem.question, str(problem.gold)) for problem in published)
    worked = [solution for solution in found if solution and len(solution.steps) <= max_steps]
    rest, test = _split(list(_problems(data)))
    dev, val, train = rest[:N_DEV], rest[N_DEV : N_DEV + N_VAL], rest[N_DEV + N_VAL :]
    rng = Random(_SAME_SPLIT)
    teach = [*worked[:-N_LOSS], *(p.solution for p in train if p.solution and len(p.solution.steps) <= max_steps)]
    rng.shuffle(teach)
    parts: dict[str, Sequence[str]] = {
        "teach.train": list(_chats(teach)),
        "teach.val": list(_chats(worked[-N_LOSS:])),
        "questions.train": _questions(train),
        "questions.dev": _questions(dev),
        "questions.val": _questions(val),
        **{f"test.{name}": _questions(problems[:N_TEST]) for name, problems in test.items()},
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, lines in parts.items():
        write_lines(output / f"{name}.jsonl", lines)
    return {f"{name}.jsonl": len(lines) for name, lines in parts.items()}


def _problems(data: Path) -> Iterator[Problem]:
    seen: set[str] = set()
    for source, file in MAWPS.items():
        for given in read_records(data / file, _Given, fields={"question": "input", "answer": "target"}, strict=True):
            question = given.question.strip()
            if question not in seen:
                seen.add(question)
                yield Problem(source, question, number_text(given.answer), from_answer(question, given.answer))
    named = {"id": "ID", "body": "Body", "question": "Question", "equation": "Equation", "answer": "Answer"}
    for given in read_records(data / SVAMP, _Given, fields=named, strict=True):
        question = f"{given.body.strip().rstrip('.')}. {given.question.strip()}"
        yield Problem("svamp", question, number_text(given.answer), from_equation(question, given.equation))


def _split(problems: Sequence[Problem]) -> tuple[list[Problem], dict[str, list[Problem]]]:
    """Families in a drawn order: the first ones, until each set has enough, are tested; the rest in families' order."""
    families = _families([problem.question for problem in problems])
    Random(_SAME_SPLIT).shuffle(families)
    test: dict[str, list[Problem]] = {name: [] for name in TESTED}
    rest = []
    for family in families:
        members = [problems[index] for index in family]
        wanted = [m for m in members if m.source in test and len(test[m.source]) < N_TEST]
        if 2 * len(wanted) > len(members):
            for member in wanted:
                test[member.source].append(member)
        else:
            rest += members
    return rest, test


def _families(texts: Sequence[str]) -> list[list[int]]:
    """Indices of texts that are alike, or linked by a chain of such texts."""
    words = [frozenset(re.findall(r"[a-z]+", text.lower())) for text in texts]
    found: Mapping[int, list[int]] = defaultdict(list)
    for index, family in enumerate(linked(len(texts), _alike(words))):
        found[family].append(index)
    return list(found.values())


def _alike(words: Sequence[frozenset[str]]) -> Iterator[tuple[int, int]]:
    for one, other in combinations(range(len(words)), 2):
        shared = len(words[one] & words[other])
        if shared >= _ALIKE * (len(words[one]) + len(words[other]) - shared):
            yield other, one


def _chats(solutions: Iterable[Solution]) -> Iterator[str]:
    for number, solution in enumerate(solutions):
        shorter = (solution.question, solution.plain())
        if number % 2:
            shorter = (solution.question + BRIEF, solution.brief())
        for asked, answer in ((user_turn(solution.question, "system2"), solution.long()), shorter):
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            yield json.dumps({"messages": turns}, ensure_ascii=False)


def _questions(problems: Sequence[Problem]) -> list[str]:
    return [to_json(problem.record(number)) for number, problem in enumerate(problems)]
