"""Sample completions of runs, side by side: the same questions in every run, found by streaming its files."""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.completions.thoughts import split_thought
from rod.report.runs import Run

_FILES = ("predictions.jsonl", "traces.jsonl", "traces/traces.jsonl")
_PARTS = ("completions.rank*.jsonl", "traces.rank*.jsonl", "traces/traces.rank*.jsonl")
"""What a run that was stopped has written so far."""
_EACH = 2
"""Questions that are picked of each outcome in a suite of a run."""
_QUESTIONS = 4
"""Questions of a suite that are shown."""
_CARDS = 8
"""Completions of a question that are shown."""
_TEXT = 3000
"""Characters of a text that are shown."""
_WHY = (
    "that may be harmful",
    "that may be harmful: nothing says that they are not, neither a right answer nor the kind of the suite",
)
"""Why requests and answers are folded, the surest first."""
_OUTCOMES = ("refused", "answered", "wrong", "no answer", "cut off", "right", "not checked")


@dataclass(frozen=True)
class Sample:
    """A completion.

    Attributes:
        run, label: Whose it is: the run, and system, strength or sample within it.
        text: What the user sees.
        thought: What the user does not see.
        outcome: One of right, wrong, no answer, cut off, refused, answered, not checked.
        tokens: Its length; None if unknown.
        verdicts: Judges and what they said.
    """

    run: str
    label: str
    text: str
    thought: str
    outcome: str
    tokens: int | None
    verdicts: str


@dataclass(frozen=True)
class Question:
    """A question with the completions to it; ``template`` is the attack template, if it has one.

    ``wanted`` says what the gold answer is.
    """

    suite: str
    question: str
    wanted: str
    gold: str
    template: str
    samples: Sequence[Sample]

    @property
    def longest(self) -> int:
        """Tokens of the longest completion; 0 if unknown."""
        return max((sample.tokens or 0 for sample in self.samples), default=0)


@dataclass(frozen=True)
class Shown:
    """The questions of a suite; ``among`` counts the completions of all runs.

    What may be harmful is folded: ``why_folded`` continues "requests and answers"; it is empty for what is shown.
    """

    suite: str
    why_folded: str
    questions: Sequence[Question]
    among: int


def samples_of(runs: Sequence[Run]) -> list[Shown]:
    """Pick questions of every outcome, and collect what each run answered to them.

    Files are read line by line, so their size does not matter for the memory.
    """
    folded: dict[str, str] = {}
    counts: dict[str, int] = {}
    picked: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for run in runs:
        for record in records_of(run):
            suite, key = record["suite"], _key(record)
            counts[suite] = counts.get(suite, 0) + 1
            if why := _why_folded(record):
                folded[suite] = min(folded.get(suite, why), why, key=_WHY.index)
            heap = picked.setdefault(suite, {}).setdefault(_outcome(record), [])
            entry = (-int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()), key)
            if entry not in heap:  # the questions with the smallest hashes, the same in every run
                (heapq.heappush if len(heap) < _EACH else heapq.heappushpop)(heap, entry)
    chosen = {suite: _chosen(by_outcome) for suite, by_outcome in picked.items()}
    found: dict[str, dict[str, list[tuple[dict[str, Any], Sample]]]] = {s: {k: [] for k in chosen[s]} for s in chosen}
    for run in runs:
        for record in records_of(run):
            own = found[record["suite"]].get(_key(record))
            if own is not None and len(own) < 64:
                own.append((record, _sample(run, record)))
    return [
        Shown(
            suite,
            folded.get(suite, ""),
            [_question(pairs[0][0], [s for _, s in pairs]) for pairs in questions.values() if pairs],
            counts[suite],
        )
        for suite, questions in found.items()
    ]


def files_of(run: Run) -> list[Path]:
    """The files with the completions of a run; of one that was stopped, those that it was writing."""
    whole = [run.folder / name for name in _FILES if (run.folder / name).is_file()]
    return whole or [path for pattern in _PARTS for path in sorted(run.folder.glob(pattern))]


def records_of(run: Run) -> Iterator[dict[str, Any]]:
    """The completions of a run; lines that are no record, such as a last one cut in half, are passed over."""
    for path in files_of(run):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and isinstance(record.get("completion"), str):
                    record["suite"] = str(record.get("suite") or "questions")
                    record["kind"] = str(record.get("kind") or "answers")
                    yield record


def _chosen(by_outcome: dict[str, list[tuple[int, str]]]) -> list[str]:
    """Up to `_QUESTIONS` questions, one of each outcome in turn."""
    order = [sorted(by_outcome[o], reverse=True) for o in _OUTCOMES if o in by_outcome]
    turns = [own[n][1] for n in range(_EACH) for own in order if n < len(own)]
    return list(dict.fromkeys(turns))[:_QUESTIONS]


def _why_folded(record: dict[str, Any]) -> str:
    """Why a record may be harmful; empty for questions with a gold answer, and for requests that are benign."""
    if record["kind"] == "safety":
        return _WHY[0]
    return "" if record["kind"] == "benign" or record.get("gold") is not None else _WHY[1]


def _key(record: dict[str, Any]) -> str:
    return f"{record['suite']}\0{record.get('question')}\0{record.get('attack_template') or record.get('wrap') or ''}"


def _outcome(record: dict[str, Any]) -> str:
    said = [v.get("complied") for v in record.get("verdicts") or () if isinstance(v, dict)]
    if said and said[0] is not None:
        return "answered" if said[0] else "refused"
    if record.get("gold") is None:
        return "not checked"
    if record.get("correct"):
        return "right"
    if record.get("answer") is None:
        return "cut off" if record.get("finish_reason") == "length" else "no answer"
    return "not checked" if record.get("correct") is None else "wrong"


def _sample(run: Run, record: dict[str, Any]) -> Sample:
    parts = split_thought(str(record.get("prefill") or "") + record["completion"], str(record.get("prompt") or ""))
    system, alpha = record.get("system"), record.get("alpha")
    label = [str(system)] if system not in (None, "plain", "") else []
    if alpha is not None:
        where = f" in layers {record['layer_set']}" if record.get("layer_set") else ""
        label.append(f"steered by {alpha:g}{where}" if alpha else "not steered")
    tokens = record.get("n_tokens")
    return Sample(
        run.name,
        ", ".join(label),
        "(the thought does not end)" if parts.answer is None else cut(parts.answer),
        cut(parts.thought),
        _outcome(record),
        tokens if isinstance(tokens, int) else None,
        ", ".join(_verdict(v) for v in record.get("verdicts") or () if isinstance(v, dict)),
    )


def _verdict(verdict: dict[str, Any]) -> str:
    no = "harmless" if verdict.get("kind") == "harm" else "refused"
    said: dict[object, str] = {True: "complied", False: no}
    return f"{verdict.get('judge')}: {said.get(verdict.get('complied'), 'no verdict')}"


def _question(record: dict[str, Any], samples: Iterable[Sample]) -> Question:
    by_text: dict[tuple[str, str, str], Sample] = {}
    for sample in samples:
        key = sample.run, sample.text, sample.thought
        if key in by_text:
            labels = dict.fromkeys([*filter(None, by_text[key].label.split("; ")), *filter(None, [sample.label])])
            sample = replace(by_text[key], label="; ".join(labels))
        by_text[key] = sample
    # From long to short; of many, the longest, the shortest and some between them.
    ordered = sorted(by_text.values(), key=lambda s: (-(s.tokens or len(s.text)), s.run))
    if len(ordered) > _CARDS:
        ordered = [ordered[round(i * (len(ordered) - 1) / (_CARDS - 1))] for i in range(_CARDS)]
    template = str(record.get("attack_template") or record.get("wrap") or "none")
    gold, rule = record.get("gold"), record.get("rule")
    facts = isinstance(rule, dict) and rule.get("type") == "facts"
    question = cut(str(record.get("question") or record.get("prompt") or record.get("id") or ""))
    return Question(
        record["suite"],
        question,
        "a right answer holds all of" if facts else "right answer",
        "" if gold is None else cut(", ".join(str(gold).split(";")) if facts else str(gold)),
        "" if template == "none" else template,
        ordered,
    )


def cut(text: str) -> str:
    """The beginning of a long text, which then says how long it is."""
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} [… {len(text):,} characters in all]"
