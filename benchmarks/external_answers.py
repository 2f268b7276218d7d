r"""Compare our answer extraction and checking with the marks that published model outputs come with.

    python benchmarks/external_answers.py folder-of-data-sets
    python benchmarks/external_answers.py folder-of-data-sets --list

Each set of outputs has its authors' marks: the answer that they read (a vote), or whether it is right. The same outputs
go through `AnswerRule` and `compare`, and the marks are compared one by one. ``--list`` prints every disagreement;
``docs/answer_checking.md`` discusses them.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.answers.gold import compare

VOTES = AnswerRule("choice", pattern=r'(?s)\A.*?Answer\("([^"])[^"]*"\)')
"""The reading of the authors of concise_cot_gpt: the first character of the first complete ``Answer("...")``."""
CHOICE = AnswerRule("choice")
NUMBER = AnswerRule("number")
LABEL = AnswerRule("label")
TEXT = AnswerRule("text", ("boxed", "hashes", "stated", "last_line"))
GPT3 = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
_OPTION = re.compile(r"^ *(\w): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Output:
    """A completion with its authors' mark: ``theirs`` is whether it is right, ``group`` its row of the table."""

    group: tuple[str, ...]
    text: str
    ours: str | None
    gold: str
    theirs: bool
    vote: str | None = None


def rows(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


Reading = Literal["theirs", "ours", "prose"]
READINGS: dict[str, Reading] = {
    "concise_cot_gpt, read as its authors did": "theirs",
    "concise_cot_gpt, our rule": "ours",
    "concise_cot_gpt, our rule without the line of the call": "prose",
}


def options_of(problem: str) -> dict[str, str]:
    """The options below ``Choices:``; four options without texts if the file has them garbled."""
    found = dict(_OPTION.findall(re.split(r"\nChoices:\s*\n", problem)[1]))
    return found or dict.fromkeys("ABCD", "")


def concise_cot(folder: Path, reading: Reading) -> Iterator[Output]:
    """GPT-3.5 and GPT-4 on five exams, by the authors' rule, our default rule, or ours without ``Answer("...")``."""
    for path in sorted((folder / "concise_cot_gpt").glob("*-100.jsonl")):
        for row in rows(path):
            options = options_of(row["problem"])
            for text, vote in zip(row["responses"], row["votes"] or (), strict=False):
                if reading == "theirs":
                    ours = VOTES.extract(text, dict.fromkeys(options, ""))
                elif reading == "prose":
                    text = re.split(r"\n.*Answer\(", text)[0]
                    ours = CHOICE.extract(text, options)
                else:
                    ours = CHOICE.extract(text, options)
                group = (row["exam"], row["model"], row["style"])
                gold = row["correct_answer"]
                yield Output(group, text, ours, gold, vote == gold, vote if vote in options else None)


def gpt3_gsm8k(folder: Path) -> Iterator[Output]:
    """GPT-3 on GSM8K, fine-tuned and with a verifier."""
    for row in rows(folder / "gsm8k" / "gpt3_model_solutions.jsonl"):
        gold = NUMBER.extract(row["ground_truth"])
        assert gold is not None
        for name in GPT3:
            text = row[name]["solution"]
            yield Output((name,), text, NUMBER.extract(text), gold, row[name]["is_correct"])


def letters_only(text: str) -> str:
    """A question's letters and digits, which its copies in two files share."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def chain_of_draft(folder: Path) -> Iterator[Output]:
    """Llama in five styles: GSM8K with its gold answers, and coin flips, whose right answer can be counted."""
    golds = {
        letters_only(row["question"]): NUMBER.extract(row["answer"]) for row in rows(folder / "gsm8k" / "test.jsonl")
    }
    for row in rows(folder / "chain_of_draft_llama" / "styles.jsonl"):
        text, question, group = row["response"], row["question"], (row["task"], row["style"])
        if row["task"] == "gsm8k":
            gold = golds[letters_only(question)]
            assert gold is not None
            yield Output(group, text, NUMBER.extract(text), gold, row["is_correct"])
        elif row["task"] == "coin_flip":
            gold = "no" if question.count(" flips the coin") % 2 else "yes"
            yield Output(group, text, LABEL.extract(text), gold, row["is_correct"])


def chain_of_draft_errors(folder: Path) -> Iterator[Output]:
    """Answers that the authors' log counts as wrong, with the text that they read."""
    for path in sorted((folder / "chain_of_draft_llama").glob("gsm8k_errors.*.jsonl")):
        for row in rows(path):
            yield Output(
                (path.stem,), row["response"], NUMBER.extract(row["response"]), row["gold"], False, row["pred"]
            )


@dataclass(frozen=True)
class Contradictions:
    """Questions without gold answers whose marks contradict our reading, and the totals."""

    questions: int
    outputs: int
    unread: int
    found: list[str]


def contradictions(folder: Path, task: str) -> Contradictions:
    """Check marks without gold answers: equal answers must have equal marks, and only one answer can be right."""
    rule = LABEL if task == "sports" else TEXT
    marks: dict[str, dict[str, set[bool]]] = defaultdict(lambda: defaultdict(set))
    outputs = unread = 0
    for row in rows(folder / "chain_of_draft_llama" / "styles.jsonl"):
        if row["task"] == task:
            answer = rule.extract(row["response"])
            marks[row["question"]][answer or ""].add(row["is_correct"])
            outputs += 1
            unread += answer is None
    found = [
        question
        for question, by_answer in marks.items()
        if any(len(seen) > 1 for seen in by_answer.values())
        or sum(True in seen for seen in by_answer.values()) > 1
        or (task == "sports" and len(by_answer) == 2 and all(seen == {False} for seen in by_answer.values()))
    ]
    return Contradictions(len(marks), outputs, unread, found)


def judged(outputs: Sequence[Output], rule: AnswerRule, checker: AnswerChecker) -> list[bool | None]:
    """Our verdicts on the outputs."""
    return compare(rule, [(output.gold, output.ours) for output in outputs], checker)


def report(title: str, outputs: Sequence[Output], rule: AnswerRule, checker: AnswerChecker, listed: bool) -> int:
    """Print the accuracy of each group by both readings, and the disagreements; return the number of these."""
    verdicts = judged(outputs, rule, checker)
    groups: dict[tuple[str, ...], list[tuple[bool | None, bool]]] = defaultdict(list)
    for output, verdict in zip(outputs, verdicts, strict=True):
        groups[output.group].append((verdict, output.theirs))
    print(f"\n{title}")
    print(f"{'':52}{'outputs':>8}{'theirs':>9}{'ours':>9}{'differ':>8}")
    for group, marks in groups.items():
        theirs, ours = (100 * sum(bool(mark[i]) for mark in marks) / len(marks) for i in (1, 0))
        differ = sum(ours_right != theirs_right for ours_right, theirs_right in marks)
        print(f"{' / '.join(group):52}{len(marks):8}{theirs:9.2f}{ours:9.2f}{differ:8}")
    differing = [pair for pair in zip(outputs, verdicts, strict=True) if pair[0].theirs != pair[1]]
    kinds = Counter(f"theirs {'right' if o.theirs else 'wrong'}, ours {verdict}" for o, verdict in differing)
    print(f"{len(outputs) - len(differing)} of {len(outputs)} marks agree", *sorted(kinds.items()))
    for output, verdict in differing if listed else ():
        show(output, f"gold {output.gold!r}, ours {output.ours!r} ({verdict}), vote {output.vote!r}")
    return len(differing)


def report_votes(title: str, outputs: Sequence[Output], listed: bool) -> None:
    """Print how many votes equal our reading, right or wrong."""
    differing = [output for output in outputs if output.ours != output.vote]
    kinds = Counter(
        "no vote for an option"
        if output.vote is None
        else "no answer of ours"
        if output.ours is None
        else "another letter"
        for output in differing
    )
    print(f"{title}: {len(outputs) - len(differing)} of {len(outputs)} votes agree with ours", *sorted(kinds.items()))
    for output in differing if listed else ():
        show(output, f"vote {output.vote!r}, ours {output.ours!r}, gold {output.gold!r}")


def show(output: Output, what: str) -> None:
    """Print one disagreement with the end of the completion."""
    print(f"- {' / '.join(output.group)}: {what}")
    print("    " + output.text[-300:].strip().replace("\n", "\n    "))


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", action="store_true", help="print every disagreement")
    options = parser.parse_args()
    folder, listed = options.folder, options.list
    with AnswerChecker() as checker:
        for title, reading in READINGS.items():
            outputs = list(concise_cot(folder, reading))
            if reading != "prose":
                report(title, outputs, CHOICE, checker, listed=False)
            report_votes(title, outputs, listed and reading == "ours")
        report("GPT-3 on GSM8K", list(gpt3_gsm8k(folder)), NUMBER, checker, listed)
        report("chain of draft, gold answers known", list(chain_of_draft(folder)), NUMBER, checker, listed)
        report("chain of draft, logged errors on GSM8K", list(chain_of_draft_errors(folder)), NUMBER, checker, listed)
    print("\nchain of draft, no gold answers: marks that contradict our reading")
    for task in ("sports", "date"):
        result = contradictions(folder, task)
        found, unread = len(result.found), result.unread
        print(f"{task}: {found} of {result.questions} questions, {result.outputs} outputs, {unread} unread")
        for question in result.found if listed else ():
            print(f"- {question}")


if __name__ == "__main__":
    main()
