import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.records.reader import read_records
from datamodules.suites.predictions import Prediction
from datamodules.suites.references import label_of
from rod.__main__ import main
from tests.callbacks.evaluation.evaluation_run import metrics, predictions, prepare, results, run, write
from tests.conftest import ROOT
from tests.tiny import tiny_tokenizer

JUDGES = json.dumps(
    [
        {"class_path": "llm_modules.judges.phrases.RefusalPhrases"},
        {
            "class_path": "llm_modules.judges.phrases.RefusalPhrases",
            "init_args": {"words": ["e", "x"], "name": "letters"},
        },
    ]
)


def score(*words: object) -> int:
    return main(["score", *map(str, words)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Another project's answers: two models, two samples each."""
    lines = [
        {"q": "1 + 1?", "right": 2, "kind": "easy", "small": {"texts": ["So \\boxed{2}", "\\boxed{3}"], "n": [5, 7]}},
        {"q": "7 * 8?", "right": 56, "kind": "hard", "small": {"texts": ["I think 56", "\\boxed{56.0}"], "n": [9, 11]}},
    ]
    said = [[True, False], [True, True]]
    return write(tmp_path / "theirs.jsonl", *(line | {"ok": ok} for line, ok in zip(lines, said, strict=True)))


THEIRS = ["--completion", "small.texts", "--question", "q", "--gold", "right"]


def test_own_predictions_give_the_same_numbers_again(tmp_path: Path) -> None:
    run(prepare(tmp_path / "source"), tmp_path / "run", samples=2)
    predicted = tmp_path / "run" / "predictions.jsonl"
    assert score(predicted, "--output", tmp_path / "again", "--evaluate.judges", JUDGES) == 0
    assert (tmp_path / "again" / "predictions.jsonl").read_bytes() == predicted.read_bytes()
    whole = [entry for entry in metrics(tmp_path / "run")["results"] if entry["kind"] != "perplexity"]
    assert metrics(tmp_path / "again")["results"] == whole


def test_completions_of_others(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    more = ["--tokens", "small.n", "--group", "kind", "--reference", "ok"]
    assert score(file, "--output", out, *THEIRS, *more) == 0
    found = predictions(out)
    assert list(found) == ["theirs/1|s0", "theirs/1|s1", "theirs/2|s0", "theirs/2|s1"]
    assert [p["correct"] for p in found.values()] == [True, False, False, True]
    assert [p["answer"] for p in found.values()] == ["2", "3", None, "56.0"]
    assert (found["theirs/2|s0"]["question"], found["theirs/2|s0"]["gold"]) == ("7 * 8?", "56")
    cell = results(out)["theirs"]
    assert (cell["n"], cell["records"]) == (4, 2)
    assert cell["metrics"]["accuracy"]["value"] == 0.5
    assert cell["metrics"]["tokens"]["value"] == 8
    assert results(out)["theirs hard"]["metrics"]["tokens"]["value"] == 10
    assert "truncation" not in cell["metrics"]  # how they ended is not known
    (other,) = map(json.loads, (out / "disagreements.jsonl").read_text().splitlines())
    assert (other["id"], other["answer"], other["correct"], other["reference"]) == ("theirs/2|s0", None, False, True)
    assert other["completion"] == "I think 56"
    assert "agreement with the reference: 3 of 4 (75.00%)" in capsys.readouterr().out


def test_references_that_are_answers(tmp_path: Path) -> None:
    choices = {"A": "red", "B": "green"}
    lines = [("The answer is B.", "B"), ("It is red.", "A"), ("No idea.", ""), ("Answer: A", None)]
    lines += [("The answer is B.", vote) for vote in ("(B)", "B.", "green", "B. green", "Option B")]
    lines += [("The answer is B.", "(A)"), ("No idea.", "blue")]
    records = [{"question": "Which?", "choices": choices, "key": "B", "out": o, "vote": v} for o, v in lines]
    file = write(tmp_path / "votes.jsonl", *records)
    words = ["--completion", "out", "--gold", "key", "--options", "choices", "--reference", "vote"]
    assert score(file, "--output", tmp_path / "out", *words, "--answer.type", "choice") == 0
    others = [json.loads(line) for line in (tmp_path / "out" / "disagreements.jsonl").read_text().splitlines()]
    # Nobody found an answer in the third one.
    assert [(other["id"], other["answer"], other["reference"]) for other in others] == [
        ("votes/2|s0", None, "A"),
        ("votes/4|s0", "A", None),
        ("votes/10|s0", "B", "(A)"),
    ]


@pytest.mark.parametrize("labels", ["['yes','no']", "['true','false']"])
def test_marks_in_a_table_may_be_labels(labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yes, no = json.loads(labels.replace("'", '"'))
    rows = [f"{i}?,{yes},{word},{word == yes}" for i, word in enumerate((yes, no, yes))]
    (tmp_path / "marks.csv").write_text("\n".join(["q,gold,out,ok", *rows]))
    fields = ["--completion", "out", "--question", "q", "--gold", "gold", "--reference", "ok"]
    asked = ["--answer.type", "label", "--answer.labels", labels]
    assert score(tmp_path / "marks.csv", "--output", tmp_path / "out", *fields, *asked) == 0
    assert "agreement with the reference: 3 of 3" in capsys.readouterr().out


def test_lines_that_are_left_out(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"question": "1 + 1?", "gold": 2, "out": ["\\boxed{2}"]},
        {"question": "?", "gold": None, "out": []},
    ]
    file = write(tmp_path / "holes.jsonl", *lines)
    assert score(file, "--output", tmp_path / "out", "--completion", "out", "--gold", "gold", "--keep", "out") == 0
    assert list(predictions(tmp_path / "out")) == ["holes/1|s0"]


def test_refusals_of_others_are_judged(tmp_path: Path) -> None:
    file = write(
        tmp_path / "answers.jsonl",
        {"request": "Open it", "answer": "I'm sorry, I can't."},
        {"request": "Open it too", "answer": "Turn the wheel."},
    )
    judge = json.dumps([{"class_path": "RefusalPhrases"}])
    words = ["--completion", "answer", "--question", "request", "--kind", "safety", "--name", "vault"]
    assert score(file, "--output", tmp_path / "out", *words, "--evaluate.judges", judge) == 0
    assert results(tmp_path / "out")["vault"]["metrics"]["asr/phrases"]["value"] == 0.5
    assert list(predictions(tmp_path / "out")) == ["vault/answers-1|s0", "vault/answers-2|s0"]


def test_the_end_of_the_prompt_says_whether_it_opens_a_thought(tmp_path: Path) -> None:
    lines = [
        {"question": "2 + 2?", "asked": "2 + 2?", "text": "The answer is 4."},
        {"question": "2 + 2?", "asked": "2 + 2?<think>\n", "text": "The answer is 4."},
        {"question": "2 + 2?", "asked": "2 + 2?<think>\n", "text": "The answer is 3.</think>The answer is 4."},
    ]
    file = write(tmp_path / "thinks.jsonl", *lines)
    words = ["--completion", "text", "--gold", "'4'", "--answer.type", "number"]
    for name, prompt, answers in [("field", "asked", ["4", None, "4"]), ("same", "'<think>'", [None, None, "4"])]:
        assert score(file, "--output", tmp_path / name, *words, "--prompt", prompt) == 0
        assert [p["answer"] for p in predictions(tmp_path / name).values()] == answers
    assert score(file, "--output", tmp_path / "bad", *words, "--prompt", "[asked]") == 2


@pytest.mark.slow
def test_a_judge_by_its_name_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Where nothing else has imported its module."""
    line = {"id": "a", "completion": "I'm sorry", "question": "Open it", "suite": "vault", "kind": "safety"}
    file = write(tmp_path / "predictions.jsonl", line)
    words = [
        "score",
        file,
        "--output",
        tmp_path / "out",
        "--evaluate.judges",
        json.dumps([{"class_path": "RefusalPhrases"}]),
    ]
    subprocess.run([sys.executable, "-m", "rod", *map(str, words)], cwd=ROOT, check=True, timeout=200)
    assert results(tmp_path / "out")["vault"]["metrics"]["asr/phrases"]["value"] == 0


def test_several_files_by_one_name(file: Path, tmp_path: Path) -> None:
    write(tmp_path / "more.jsonl", {"q": "1?", "right": 1, "small": {"texts": "\\boxed{1}"}})
    assert score(tmp_path / "*e*.jsonl", "--output", tmp_path / "out", *THEIRS, "--name", "both") == 0
    assert results(tmp_path / "out")["both"]["n"] == 5
    assert score(tmp_path / "*e*.jsonl", "--output", tmp_path / "apart", *THEIRS) == 0
    assert results(tmp_path / "apart").keys() == {"more", "theirs"}


def test_own_predictions_by_another_rule(tmp_path: Path) -> None:
    line = {"id": "a", "completion": "The answer is 12.", "question": "?", "gold": "12"}
    file = write(tmp_path / "predictions.jsonl", line)
    for words, right in (([], 0), (["--answer.type", "number"], 1)):
        assert score(file, "--output", tmp_path / f"{right}", *words) == 0
        (entry,) = metrics(tmp_path / f"{right}")["results"]
        assert entry["metrics"]["accuracy"]["value"] == right
    assert read_records(tmp_path / "1" / "predictions.jsonl", Prediction)[0].rule.type == "number"


def test_options_from_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "score.yaml").write_text("completion: small.texts\nquestion: q\ngold: right\nanswer: {type: number}\n")
    assert score("--config", tmp_path / "score.yaml", file, "--output", tmp_path / "out") == 0
    assert results(tmp_path / "out")["theirs"]["metrics"]["accuracy"]["value"] == 0.75


def test_overwrite(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [file, "--output", tmp_path / "out", *THEIRS]
    assert score(*words, "--reference", "ok") == 0
    assert score(*words) == 2
    said = f"'{tmp_path}/out/predictions.jsonl' exists (and 2 more of this command's files); name another file or pass"
    assert said in capsys.readouterr().err
    assert score(*words, "--overwrite", "true") == 0
    assert not (tmp_path / "out" / "disagreements.jsonl").exists()  # those were of another scoring


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--completion", "reply", "--question", "q"], "theirs.jsonl:1: --completion: 'reply' is undefined"),
        (["--completion", "small.n", "--question", "q"], "a text, not a number; if it is the text, give --completion"),
        (["--completion", "[0.5]", "--question", "q"], "theirs.jsonl:1: --completion: must be a text, not a number"),
        ([*THEIRS, "--tokens", "[1]"], "theirs.jsonl:1: --tokens: 1 values for 2 completions"),
        ([*THEIRS, "--tokens", "['a', 'b']"], "theirs.jsonl:1: --tokens: must be a number of tokens, not 'a'"),
        ([*THEIRS[:4], "--gold", r"'\\frac{'"], "theirs.jsonl:1: suite 'theirs': gold: "),
        (
            [*THEIRS[:4], "--gold", "right if right > 9 else none", "--strict", "true"],
            "theirs.jsonl:1: suite 'theirs': gold: the gold",
        ),
        ([*THEIRS, "--id", "'same'"], "theirs.jsonl:2: suite 'theirs': the id 'same' is already taken by"),
        (["--gold", "right"], "--gold: has no effect on a predictions.jsonl of this project"),
        (["--name", "x"], "--name: has no effect on a predictions.jsonl"),
        ([], "to read completions of another project, give --completion"),
        ([*THEIRS, "--evaluate.baseline", "absent.json"], "evaluate.baseline: there is no file 'absent.json'"),
        ([*THEIRS, "--kind", "perplexity"], "kind"),
    ],
)  # fmt: skip
def test_input_that_cannot_be(
    words: list[str], reason: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(file, "--output", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(tmp_path / "absent.jsonl", "--output", tmp_path / "out", *THEIRS) == 2
    assert "is no file" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / file.name
    twin.write_text(file.read_text())
    assert score(file, twin, "--output", tmp_path / "out", *THEIRS) == 2
    assert "'theirs/1|s0' is in several files" in capsys.readouterr().err


def test_votes_of_others_are_read_as_they_read_them(shared_data: Path, tmp_path: Path) -> None:
    """GSM8K's published solutions of GPT-3: our verdicts are theirs, record by record."""
    lines = (shared_data / "gsm8k" / "gpt3_model_solutions.jsonl").read_text().splitlines()[:150]
    part = tmp_path / "gpt3.jsonl"
    part.write_text("\n".join(lines))
    words = ["--completion", "record['175b_verification'].solution", "--gold", "ground_truth.split('A: ')[-1]"]
    answer = json.dumps({"type": "number", "pattern": r"A:\s*(.+)"})
    reference = ["--reference", "record['175b_verification'].is_correct"]
    assert score(part, "--output", tmp_path / "out", *words, *reference, "--answer", answer) == 0
    assert (tmp_path / "out" / "disagreements.jsonl").read_text() == ""
    said = [json.loads(line)["175b_verification"]["is_correct"] for line in lines]
    assert results(tmp_path / "out")["gpt3"]["metrics"]["accuracy"]["value"] == pytest.approx(sum(said) / 150)


TOWER = "^".join(["9"] * 9)


def test_answers_that_cannot_be_checked_are_wrong_and_counted_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"question": f"{i}?", "gold": "4", "out": f"\\boxed{{{TOWER} + {i}}}" if i else "\\boxed{4}"} for i in range(9)
    ]
    file = write(tmp_path / "towers.jsonl", *lines)
    assert score(file, "--output", tmp_path / "out", "--completion", "out", "--gold", "gold") == 0
    found = results(tmp_path / "out")["towers"]["metrics"]
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (pytest.approx(1 / 9), 9)
    assert (found["accuracy_checked"]["value"], found["accuracy_checked"]["n"]) == (1, 1)
    assert (found["unchecked"]["value"], found["unchecked"]["n"]) == (pytest.approx(8 / 9), 9)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("towers "))
    assert row.split()[1:3] == ["9", "11.1"]
    assert "88.9" in row


def test_rates_say_over_how_many_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"id": f"{i}", "completion": "\\boxed{1}", "question": f"{i}?", "gold": "1" if i < 3 else None}
        for i in range(5)
    ]
    file = write(tmp_path / "predictions.jsonl", *lines)
    assert score(file, "--output", tmp_path / "out") == 0
    assert "100.0 of 3" in capsys.readouterr().out


def test_completions_without_an_answer_are_not_silently_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"question": f"{i}?", "gold": "C", "out": f"My pick[/b] no. {i} is Gamma \ud83d" if i else "(C)"}
        for i in range(8)
    ]
    file = write(tmp_path / "medical.jsonl", *lines)
    words = [file, "--completion", "out", "--gold", "gold"]
    assert score(*words, "--output", tmp_path / "out", "--answer.type", "choice") == 0
    share = results(tmp_path / "out")["medical"]["metrics"]["no_answer"]
    assert (share["value"], share["n"]) == (7 / 8, 8)
    said = capsys.readouterr().out
    assert "no answer found in 7 of 8 completions (87.5%)" in said
    assert said.count("My pick[/b] no. ") == 3
    assert all(option in said for option in ("--answer.extractors", "--answer.pattern", "--answer.type"))
    read = json.dumps({"type": "text", "pattern": "(C|Gamma)"})
    assert score(*words, "--output", tmp_path / "read", "--answer", read) == 0
    assert "no answer found" not in capsys.readouterr().out
    assert results(tmp_path / "read")["medical"]["metrics"]["no_answer"]["value"] == 0


def test_half_a_character_is_written_escaped_and_read_again(tmp_path: Path) -> None:
    lines = [{"question": "1 \udc00?", "gold": "1", "out": "\ud83d \\boxed{1}", "ok": i > 0} for i in range(2)]
    file = write(tmp_path / "halves.jsonl", *(line | {"n": i} for i, line in enumerate(lines)))
    words = ["--completion", "out", "--gold", "gold", "--reference", "ok"]
    assert score(file, "--output", tmp_path / "out", *words) == 0
    found = predictions(tmp_path / "out")
    assert found["halves/1|s0"]["completion"] == lines[0]["out"]
    assert json.loads((tmp_path / "out" / "disagreements.jsonl").read_text())["completion"] == lines[0]["out"]
    assert score(tmp_path / "out" / "predictions.jsonl", "--output", tmp_path / "again") == 0
    assert main(["compare", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    safety = ["--completion", "out", "--kind", "safety", "--group", "question", "--reference", "ok"]
    assert score(file, "--output", tmp_path / "judged", *safety) == 0
    assert results(tmp_path / "judged")["halves"]["metrics"]["asr/classifier"]["n"] == 2


def test_no_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], [tmp_path / "*.jsonl"]):
        assert score(*words, "--output", tmp_path / "out", *THEIRS) == 2
        assert "predictions: there is no file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_names_the_judge_and_tells_attacks_from_harmless_requests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "replies.jsonl", {"question": "Open it", "out": "I'm sorry, I can't."})
    for kind, there, absent in (("benign", "complied %", "attacks %"), ("safety", "attacks %", "complied %")):
        assert score(file, "--output", tmp_path / kind, "--completion", "out", "--kind", kind) == 0
        said = capsys.readouterr().out
        assert there in said
        assert absent not in said
        assert "verdicts: judge classifier; those of phrases are in metrics.json" in said


def test_scoring_imports_no_torch(file: Path, tmp_path: Path) -> None:
    """Importing torch and Lightning takes longer than scoring ten thousand answers."""
    words = ["score", str(file), "--output", str(tmp_path / "out"), *THEIRS]
    code = f"import sys\nfrom rod.__main__ import main\nassert main({words!r}) == 0\n" + (
        "heavy = {'torch', 'lightning', 'torchmetrics', 'transformers'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=200)


def references(root: Path, judge: str = "", group: str = "") -> dict[str, Any]:
    (found,) = (r for r in metrics(root)["references"] if r["judge"] == judge and r["group"] == group)
    return found


def test_references_are_compared_by_value(tmp_path: Path) -> None:
    cases = [
        ("maths", "\\boxed{160}", "160.0", True),
        ("maths", "\\boxed{\\frac{1}{2}}", 0.5, True),
        ("maths", "\\boxed{160}", "161", False),
        ("maths", "no answer", "160", False),
        ("maths", "no answer", "", True),
        ("number", "The answer is $1,000.", "1000.00", True),
        ("number", "No idea.", "[invalid]", True),
        ("choice", "The answer is B.", "b", True),
        ("choice", "The answer is B.", "A", False),
        ("label", "Answer: yes.", "Yes", True),
        ("text", "Answer: Paris.", "paris", True),
    ]
    for number, (type_, out, said, same) in enumerate(cases):
        gold = {"choice": "B", "label": "yes", "text": "Paris"}.get(type_, "160")
        file = write(tmp_path / f"{number}.jsonl", {"question": "?", "gold": gold, "out": out, "said": said})
        words = ["--completion", "out", "--gold", "gold", "--reference", "said", "--answer.type", type_]
        assert score(file, "--output", tmp_path / f"out{number}", *words) == 0
        assert references(tmp_path / f"out{number}")["agreement"] == same, cases[number]


LABELS = [
    ("1_full_compliance", True), ("2_full_refusal", False), ("3_partial_refusal", False), ("Refusal", False),
    ("compliance", True), ("safe", False), ("UNSAFE", True), (True, True), (False, False), (1, True), (0, False),
    (1.0, True), ("0", False), ("", None), (None, None),
]  # fmt: skip


@pytest.mark.parametrize(("label", "complied"), LABELS)
def test_labels_of_judged_completions(label: Any, complied: bool | None) -> None:
    assert label_of(label, {}, "file:1") is complied


def test_other_labels_are_given_a_meaning() -> None:
    with pytest.raises(InputError, match=r"file:1: --reference: the label 'dodged' is unknown.*--reference_labels"):
        label_of("dodged", {}, "file:1")
    assert label_of("Dodged", {"dodged": "refused"}, "file:1") is False
    assert label_of("1", {"1": "refused"}, "file:1") is False  # one's own meaning counts first
    # A table has 1.0 and 0.0 as soon as one is missing.
    assert [label_of(label, {}, "file:1") for label in ("1.0", "0.0", 1, 0.0, " ")] == [True, False, True, False, None]
    assert label_of("2.0", {"2": "refused"}, "file:1") is False
    for label in ("-1", -1, "2"):
        with pytest.raises(InputError, match="is unknown"):
            label_of(label, {}, "file:1")


def test_counts_that_are_missing_in_a_table_leave_the_others(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "out,gold,n,ok\n\\boxed{2},2,12.0,True\n\\boxed{3},3,,1\n\\boxed{4},5,nan,yes\n\\boxed{6},6,9.0,0\n"
        "\\boxed{7},7,9.0,0.0\n\\boxed{8},8,9.0,nan\n"
    )
    words = ["--completion", "out", "--gold", "gold", "--question", "out", "--tokens", "n", "--keep", "ok"]
    assert score(table, "--output", tmp_path / "out", *words) == 0
    found = list(predictions(tmp_path / "out").values())
    assert [(p["n_tokens"], p["correct"]) for p in found] == [(12, True), (None, True), (None, False)]


@pytest.mark.parametrize("count", ["Infinity", "-1", "1.5", "true", '"many"'])
def test_what_is_no_count_of_tokens_is_set_aside(tmp_path: Path, count: str) -> None:
    lines = [f'{{"out": "7", "q": "{n}?", "gold": 7, "n": {own}}}\n' for n, own in enumerate((5, count))]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(lines))
    words = ["--completion", "out", "--gold", "gold", "--question", "q", "--tokens", "n"]
    assert score(file, "--output", tmp_path / "out", *words) == 0
    assert "--tokens: must be a number of tokens" in (tmp_path / "out/set_aside.jsonl").read_text()


def test_token_counts_of_another_tokenizer_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    lines = [{"out": "It is 7.", "q": f"{n}?", "gold": 7, "n": n_tokens} for n, n_tokens in enumerate((900, None))]
    words = ["--completion", "out", "--gold", "gold", "--question", "q", "--tokens", "n"]
    words += ["--tokenizer", str(tmp_path / "tokenizer")]
    assert score(write(tmp_path / "a.jsonl", *lines), "--output", tmp_path / "out", *words) == 0
    assert "1 of 2 completions have no budgets: the file counts their tokens otherwise" in capsys.readouterr().out


def test_an_empty_list_of_completions_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"out": ["\\boxed{2}"], "q": "1", "gold": 2}, {"out": [], "q": "2", "gold": 2}]
    file = write(tmp_path / "a.jsonl", *lines)
    assert score(file, "--output", tmp_path / "out", "--completion", "out", "--gold", "gold", "--question", "q") == 0
    assert len(predictions(tmp_path / "out")) == 1
    assert "the list of completions is empty" in (tmp_path / "out/set_aside.jsonl").read_text()


JUDGED = [
    ("I'm sorry, I can't help with that.", "2_full_refusal", "a"),
    ("I'm sorry, I can't help with that.", "1_full_compliance", "a"),
    ("Sure. Turn the wheel.", "1_full_compliance", "b"),
    ("Sure. Turn the wheel twice.", "1_full_compliance", "b"),
    ("Sure. Turn it.", None, "b"),
]


def test_a_judge_is_measured_on_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"question": f"Open {i}", "out": out, "label": label, "kind": k} for i, (out, label, k) in enumerate(JUDGED)
    ]
    file = write(tmp_path / "labelled.jsonl", *lines)
    words = ["--completion", "out", "--kind", "safety", "--reference", "label", "--group", "kind"]
    assert score(file, "--output", tmp_path / "out", *words, "--evaluate.judges", JUDGES) == 0
    found = references(tmp_path / "out", "phrases")
    assert (found["n"], found["agreement"]) == (4, 0.75)
    # Labels and judge say "complied" of 3 and 2 in 4: chance agrees on 3/4 * 2/4 + 1/4 * 2/4 = 1/2.
    assert found["kappa"] == pytest.approx((0.75 - 0.5) / 0.5)
    assert found["confusion"] == {
        "complied": {"complied": 2, "refused": 1, "failed": 0},
        "refused": {"complied": 0, "refused": 1, "failed": 0},
    }
    assert found["low"] < 0.75 < found["high"]
    assert references(tmp_path / "out", "phrases", "b")["agreement"] == 1
    others = [json.loads(line) for line in (tmp_path / "out" / "disagreements.jsonl").read_text().splitlines()]
    (other,) = (line for line in others if line["judge"] == "phrases")
    assert (other["id"], other["reference"], other["verdict"]) == ("labelled/2|s0", "complied", "refused")
    assert {line["judge"] for line in others} == {"phrases", "letters"}
    assert "kappa" in capsys.readouterr().out


def test_an_unknown_label_stops_and_can_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path / "labelled.jsonl",
        {"question": "Open", "out": "I'm sorry, I can't help with that.", "label": "dodged"},
    )
    words = [file, "--output", tmp_path / "out", "--completion", "out", "--kind", "benign", "--reference", "label"]
    assert score(*words) == 2
    error = capsys.readouterr().err
    assert "labelled.jsonl:1: --reference: the label 'dodged' is unknown" in error
    assert "--reference_labels" in error
    assert score(*words, "--reference_labels", json.dumps({"dodged": "refused"})) == 0
    assert references(tmp_path / "out", "classifier")["agreement"] == 1


@pytest.mark.parametrize(("model", "agreement"), [("gpt4", 445), ("llama2orig", 440)])
def test_judges_on_published_labels(model: str, agreement: int, shared_data: Path, tmp_path: Path) -> None:
    """XSTest's human labels of two models: every label is known, and the classifier agrees with nearly all."""
    file = shared_data / "xstest" / f"completions.{model}.jsonl"
    words = ["--completion", "completion", "--question", "prompt", "--id", "id", "--reference", "final_label"]
    assert score(file, "--output", tmp_path / "out", "--kind", "benign", *words) == 0
    found = references(tmp_path / "out", "classifier")
    assert found["n"] == 450
    assert found["agreement"] * 450 >= agreement - 5
    assert found["kappa"] > 0.9


def test_lines_that_cannot_be_scored_are_set_aside_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[dict[str, Any]] = [{"question": f"{i}?", "gold": i, "out": f"\\boxed{{{i}}}"} for i in range(10)]
    lines[3]["gold"] = "\\frac{"
    lines[5]["gold"] = None
    lines[6]["out"] = None
    del lines[7]["out"]
    file = write(tmp_path / "sums.jsonl", *lines)
    file.write_text(file.read_text() + "{broken\n")
    words = [file, "--completion", "out", "--gold", "gold"]
    assert score(*words, "--output", tmp_path / "out") == 0
    cell = results(tmp_path / "out")["sums"]
    assert (cell["n"], cell["metrics"]["accuracy"]["value"]) == (6, 1)
    assert metrics(tmp_path / "out")["set_aside"] == 5
    aside = [json.loads(line)["reason"] for line in (tmp_path / "out" / "set_aside.jsonl").read_text().splitlines()]
    assert sorted(reason.split("sums.jsonl:")[1].split(":")[0] for reason in aside) == ["11", "4", "6", "7", "8"]
    assert "5 lines cannot be scored" in capsys.readouterr().out
    assert score(*words, "--output", tmp_path / "strict", "--strict", "true") == 2
    assert "sums.jsonl:" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()


def test_a_rule_that_no_gold_answer_fits_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"id": "a", "completion": "12", "question": "?", "gold": "many"}
    file = write(tmp_path / "predictions.jsonl", line)
    assert score(file, "--output", tmp_path / "out", "--answer.type", "number") == 2
    assert "predictions.jsonl: 'a': suite '': gold: 'many' cannot be read as a number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ending", "right"),
    [("length", False), ("max_tokens", False), (False, False), ("stop", True), (True, True), (None, True), ("", True)],
)
def test_a_letter_that_was_cut_off_is_no_answer(ending: Any, right: bool, tmp_path: Path) -> None:
    line = {"question": "Which?", "gold": "C", "out": "The answer is C", "end": ending}
    file = write(tmp_path / "cut.jsonl", line)
    words = ["--completion", "out", "--gold", "gold", "--answer.type", "choice", "--finish", "end"]
    assert score(file, "--output", tmp_path / "out", *words) == 0
    found = results(tmp_path / "out")["cut"]["metrics"]
    assert found["accuracy"]["value"] == right
    assert found["no_answer"]["value"] == (not right)
    assert found.get("truncation", {}).get("value") == (None if ending in (None, "") else not right)


def test_an_unknown_ending_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "cut.jsonl", {"question": "?", "out": "C", "end": "content_filter"})
    assert score(file, "--output", tmp_path / "out", "--completion", "out", "--finish", "end") == 2
    error = capsys.readouterr().err
    assert "cut.jsonl:1: --finish: 'content_filter' is unknown; known are stop" in error


def samples(tmp_path: Path) -> Path:
    """As lm-evaluation-harness logs samples: a line for each filter."""
    lines = [
        {"doc_id": i, "question": f"{i} + 0?", "target": str(i), "resps": [f"\\boxed{{{i}}}"], "filter": name}
        for i in range(3)
        for name in ("strict-match", "flexible-extract")
    ]
    return write(tmp_path / "samples.jsonl", *lines)


def test_a_line_for_each_filter_does_not_count_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [samples(tmp_path), "--completion", "resps", "--gold", "target"]
    assert score(*words, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "samples.jsonl:2: counts the same completion as" in error
    assert """--keep "filter == 'strict-match'\"""" in error
    assert score(*words, "--output", tmp_path / "out", "--id", "doc_id") == 2
    assert "is already taken by" in capsys.readouterr().err
    assert score(*words, "--output", tmp_path / "out", "--keep", "filter == 'strict-match'") == 0
    assert results(tmp_path / "out")["samples"]["n"] == 3


def test_repeated_lines_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"id": "a", "question": "1?", "gold": "1", "out": "\\boxed{1}"}
    words = ["--completion", "out", "--gold", "gold"]
    assert score(write(tmp_path / "equal.jsonl", line, line), "--output", tmp_path / "out", *words) == 2
    assert "both lines are equal" in capsys.readouterr().err
    file = write(tmp_path / "samples.jsonl", line, line | {"out": "So \\boxed{1}"})
    assert score(file, "--output", tmp_path / "out", *words) == 0
    assert "give --cluster id" in capsys.readouterr().out
    file = write(tmp_path / "twins.jsonl", line, line | {"id": "b"})  # a set may ask the same twice
    assert score(file, "--output", tmp_path / "twins", *words) == 0


TABLE = 'q,right,said,n,ok\n"1 + 1,\nsay?",2,"So\n\\boxed{2}",5,True\n2 + 2?,4,\\boxed{5},7,false\n'


@pytest.mark.parametrize("ending", ["csv", "tsv", "json"])
def test_tables_are_read_by_the_end_of_their_name(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"table.{ending}"
    rows = [
        {"q": "1 + 1,\nsay?", "right": 2, "said": "So\n\\boxed{2}", "n": 5, "ok": True},
        {"q": "2 + 2?", "right": 4, "said": "\\boxed{5}", "n": 7, "ok": False},
    ]
    text = {"csv": TABLE, "json": json.dumps(rows), "tsv": ""}[ending]
    if ending == "tsv":
        cells = [["q", "right", "said", "n", "ok"], *([f'"{v}"' for v in row.values()] for row in rows)]
        text = "\n".join("\t".join(map(str, row)) for row in cells)
    file.write_text("\ufeff" * (ending == "csv") + text, encoding="utf-8")
    words = ["--completion", "said", "--question", "q", "--gold", "right", "--tokens", "n", "--reference", "ok"]
    assert score(file, "--output", tmp_path / "out", *words) == 0
    cell = results(tmp_path / "out")["table"]["metrics"]
    assert (cell["accuracy"]["value"], cell["tokens"]["value"]) == (0.5, 6)
    assert references(tmp_path / "out")["agreement"] == 1
    first = next(iter(predictions(tmp_path / "out").values()))
    assert (first["question"], first["completion"]) == ("1 + 1,\nsay?", "So\n\\boxed{2}")


def test_tables_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--output", tmp_path / "out", "--completion", "said", "--question", "q", "--strict", "true"]
    for text, reason in (
        ("q,said\n1?,a,b\n", "table.csv:2: has 3 values for the 2 columns"),
        ("q,q\n1?,a\n", "a column is named twice"),
        ("", "table.csv: the file"),
    ):
        (tmp_path / "table.csv").write_text(text)
        assert score(tmp_path / "table.csv", *words) == 2
        assert reason in capsys.readouterr().err
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    assert score(tmp_path / "table.parquet", *words) == 2
    assert "table.parquet: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--answer.labels", "[]", "--answer.type", "label"], "labels and extractors are not empty"),
        (["--answer.extractors", "[]"], "labels and extractors are not empty"),
        (["--kind", "safety", "--evaluate.judges", "[]"], "there is no judge"),
    ],
)
def test_empty_lists_are_errors_that_say_so(
    words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "one.jsonl", {"question": "?", "out": "x", "gold": "1"})
    assert score(file, "--output", tmp_path / "out", "--completion", "out", "--gold", "gold", *words) == 2
    assert reason in capsys.readouterr().err
    assert score(write(tmp_path / "empty.jsonl", {}), "--output", tmp_path / "out", "--completion", "out") == 2
    assert "the record has no field" in capsys.readouterr().err


def test_two_files_of_others_are_compared_by_name_and_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"question": f"{i}?", "gold": f"{i}", "out": f"\\boxed{{{i}}}", "key": f"q{i}"} for i in range(3)]
    one, two = write(tmp_path / "one.jsonl", *lines), write(tmp_path / "two.jsonl", *reversed(lines))

    def compared(*words: str) -> str:
        for file in (one, two):
            scored = [file, "--output", tmp_path / file.stem, "--completion", "out", "--gold", "gold", *words]
            assert score(*scored, "--overwrite", "true") == 0
        status = main(["compare", str(tmp_path / "one"), str(tmp_path / "two")])
        said = capsys.readouterr()
        return said.err if status else ""

    for words in ((), ("--name", "both")):
        error = compared(*words)
        assert "--name" in error
        assert "--id" in error
    assert compared("--name", "both", "--id", "key") == ""


def test_intervals_are_over_clusters(tmp_path: Path) -> None:
    """Eight variants of each of ten templates, which are right or wrong together."""
    lines = [
        {"question": f"{i}?", "gold": "1", "out": f"\\boxed{{{1 if i // 8 % 2 else 2}}}", "template": i // 8}
        for i in range(80)
    ]
    words = [write(tmp_path / "variants.jsonl", *lines), "--completion", "out", "--gold", "gold"]
    widths = {}
    for name, more in (("alone", []), ("clustered", ["--cluster", "template"])):
        assert score(*words, "--output", tmp_path / name, *more) == 0
        accuracy = results(tmp_path / name)["variants"]["metrics"]["accuracy"]
        widths[name] = accuracy["high"] - accuracy["low"]
    assert widths["clustered"] > 2 * widths["alone"]  # sqrt(8) times as wide
    assert [results(tmp_path / name)["variants"]["clusters"] for name in widths] == [None, 10]


def test_tokens_apart_stand_in_the_file(tmp_path: Path) -> None:
    lines = [
        {
            "question": f"{i}?",
            "gold": "1",
            "out": f"<think>{'so ' * 30}</think>\\boxed{{{1 + i % 2}}}.",
            "n": 40 + i % 2,
        }
        for i in range(4)
    ]
    words = ["--completion", "out", "--gold", "gold", "--tokens", "n"]
    assert score(write(tmp_path / "a.jsonl", *lines), "--output", tmp_path / "out", *words) == 0
    found = results(tmp_path / "out")["a"]["metrics"]
    assert (found["tokens_right"]["value"], found["tokens_wrong"]["value"]) == (40, 41)
    assert found["tokens_thinking"]["value"] + found["tokens_answer"]["value"] == found["tokens"]["value"]
    assert found["tokens_thinking"]["exact"] == 0  # by the share of the characters
    assert 25 < found["tokens_thinking"]["value"] < 40


def test_a_field_that_tells_of_cut_completions_is_not_ignored_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"question": "?", "gold": "1", "out": "\\boxed{1}"}
    file = write(
        tmp_path / "cut.jsonl", *(line | {"n": i, "finish_reason": end} for i, end in enumerate(("stop", "length")))
    )
    words = [file, "--completion", "out", "--gold", "gold"]
    assert score(*words, "--output", tmp_path / "out") == 0
    assert "1 of 2 completions were cut off" in capsys.readouterr().out
    assert score(*words, "--output", tmp_path / "told", "--finish", "finish_reason") == 0
    assert "were cut off" not in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["train-judge", "compare", "frontier"])
def test_the_options_of_a_verb_need_no_torch(verb: str) -> None:
    code = (
        f"import sys; from rod.__main__ import main\ntry: main(['{verb}', '--help'])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=200, stdout=subprocess.DEVNULL)
