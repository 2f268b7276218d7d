"""S³-CoT's evidence on a real model: worked solutions, problems that are worded alike on one side, its commands."""

import json
import re
from pathlib import Path

import pytest

from datamodules.records import Question, read_records
from rod.__main__ import main
from rod.evidence.real.arithmetic import TESTED, write_arithmetic
from rod.evidence.real.s3cot import RealS3CoTEvidence
from rod.evidence.real.solutions import annotated, from_answer, from_equation
from tests.rod.evidence.results import result, write_results

NATALIA = "Natalia sold 48 clips in April. She sold half as many in May. How many did she sell?"
WORKED = "She sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips.\n#### 1,072"


def test_a_published_solution_in_three_lengths() -> None:
    solution = annotated(NATALIA, WORKED)
    assert solution is not None
    assert solution.long().splitlines() == [
        "The question is: How many did she sell?",
        "Step 1: She sold 48/2 = 24 clips in May.",
        "Check: 24 * 2 = 48.",
        "Step 2: She sold 48+24 = 72 clips.",
        "Check: 72 - 24 = 48.",
        "So the answer is \\boxed{1072}.",
    ]
    assert solution.plain() == (
        "She sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72 clips.\nThe answer is \\boxed{1072}."
    )
    assert solution.brief() == "48/2 = 24\n48+24 = 72\n\\boxed{1072}"
    assert annotated(NATALIA, "She sold many.\n#### 72") is None


@pytest.mark.parametrize(
    ("left", "right", "check"),
    [
        ("10/4", "2.5", "2.5 * 4 = 10"),
        ("1/3", "0.33", None),
        ("0*5", "0", "0 / 5 = 0"),
        ("5*0", "0", None),
        ("2+3+4", "9", None),
    ],
)
def test_a_calculation_is_checked_backwards_if_it_comes_out(left: str, right: str, check: str | None) -> None:
    solution = annotated(NATALIA, f"That is <<{left}={right}>>{right}.\n#### {right}")
    assert solution is not None
    assert re.findall(r"Check: (.*)\.", solution.long()) == ([check] if check else [])


def test_an_equation_is_worked_out_from_the_inside() -> None:
    solution = from_equation("How much is it?", "( ( 8.0 - 3.0 ) / 2.0 )")
    assert solution is not None
    assert solution.brief() == "8 - 3 = 5\n5 / 2 = 2.5\n\\boxed{2.5}"
    assert from_equation("?", "( 8.0 / 0.0 )") is None
    assert from_equation("?", "8.0") is None


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        ("3 of 10 break. How many are left?", 7, "10 - 3 = 7"),
        ("4 boxes of 9 pencils, 7 lost.", 29, "4 * 9 = 36\n36 - 7 = 29"),
        ("32 and 42 pieces, 35 eaten.", 39, None),  # 32 + 42 - 35 or 42 - (35 - 32)
        ("2 bags of 2 each.", 4, None),  # 2 + 2 or 2 * 2
        ("A number: 7.", 7, None),
        ("3 and 4.", 100, None),
    ],
)
def test_steps_are_found_where_only_one_choice_of_operations_leads_there(
    question: str, answer: float, found: str | None
) -> None:
    solution = from_answer(question, answer)
    assert (solution.brief().rpartition("\n")[0] if solution else None) == found


def test_problems_worded_alike_are_on_one_side(shared_data: Path, tmp_path: Path) -> None:
    written = write_arithmetic(shared_data, tmp_path)
    assert all(written[f"test.{name}.jsonl"] == 200 for name in TESTED)
    sides = {
        side: [_words(q.question) for file in tmp_path.glob(pattern) for q in read_records(file, Question)]
        for side, pattern in (("test", "test.*"), ("train", "questions.*"))
    }
    nearest = max(len(a & b) / len(a | b) for a in sides["test"] for b in sides["train"])
    assert nearest < 0.7
    golds = [q.gold for file in tmp_path.glob("*s.*.jsonl") for q in read_records(file, Question)]
    golds += [q.gold for file in tmp_path.glob("test.*") for q in read_records(file, Question)]
    assert "1201565" in golds
    assert not [gold for gold in golds if gold is None or not re.fullmatch(r"\d+(\.\d+)?", gold)], "1.20156e+06 is none"
    chats = [json.loads(line)["messages"] for line in (tmp_path / "teach.train.jsonl").open()]
    taught = {chat[0]["content"] for chat in chats}
    assert not any(q.question in taught for file in tmp_path.glob("test.*") for q in read_records(file, Question))
    assert len(chats) == written["teach.train.jsonl"] > 6000


def test_the_commands_read_what_earlier_ones_wrote(tmp_path: Path) -> None:
    steps = RealS3CoTEvidence(tmp_path).steps(tmp_path / "seed1", 1, controls=True)
    assert len({step.product for step in steps}) == len(steps)
    words = [[str(word) for word in step.words] for step in steps]
    assert all(Path(word).is_file() for step in words for word in step if word.endswith(".yaml") and "configs" in word)
    stages = [step for step in words if "--model.backbone" in step]
    models = [step[step.index("--model.backbone") + 1] for step in stages]
    assert models == [str(tmp_path / "model"), *[str(tmp_path / "smollm2-arithmetic")] * (len(models) - 1)]
    fragments = [Path(word) for step in stages for word in step if "real/arithmetic/" in word]
    assert fragments
    assert not any("runs/world" in file.read_text() for file in fragments)


def test_numbers_are_means_over_the_sets(tmp_path: Path) -> None:
    for name, right, tokens in (("base", (0.2, 0.4, 0.6, 0.8), 60.0), ("tuned", (0.3, 0.5, 0.5, 0.7), 30.0)):
        results = [
            result(suite, system=system, metrics={"accuracy": accuracy, "tokens": tokens})
            for suite, accuracy in zip(TESTED, right, strict=True)
            for system in ("system1", "system2")
        ]
        write_results(tmp_path / f"runs/s3cot/6_test/{name}/metrics.json", results)
    values = {(v.condition, v.suite, v.metric): v.value for v in RealS3CoTEvidence(tmp_path).values(tmp_path)}
    assert values["base", "maths/system2", "accuracy"] == pytest.approx(0.5)
    assert values["tuned", "maths/system1", "aes"] == pytest.approx(0.5)


def test_a_folder_that_lacks_a_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["real-problems", "--data", str(tmp_path)]) == 2
    assert "has no gsm8k/train.jsonl" in capsys.readouterr().err
    assert main(["real-problems", "--data", str(tmp_path), "--max_steps", "0"]) == 2
    assert "--max_steps: is 0" in capsys.readouterr().err


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall("[a-z]+", text.lower()))
