"""Which pairs come of answers, attacks and refusals: kinds, balance, split, and a word for each that is dropped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from datamodules.errors import InputError
from datamodules.mogu.pairing import REFUSALS, contrast, drawn, make_pairs, right_responses
from datamodules.mogu.records import Attack, ResponsePair
from datamodules.records.kinds import Instruction, Question, Trace
from datamodules.records.questions import read_questions
from datamodules.records.reader import read_records, to_json
from datamodules.records.same_text import squeeze
from datamodules.records.turns import Turn
from rod.__main__ import main
from tests.conftest import ROOT

STAGES = ROOT / "configs/mogu"

ANSWER = Trace(
    "q|plain|-|a0|s0", "q", "How do I boil an egg?", None, "plain", 0.0, (), 0, 0, "", "Ten minutes.", 4, "stop",
    None, None, "m",
)  # fmt: skip


def answers(n: int) -> list[Trace]:
    return [replace(ANSWER, id=f"t{i}", question_id=f"q{i}", question=f"Question {i}?") for i in range(n)]


def attacks(n: int) -> list[Attack]:
    return [Attack(f"a{i}", f"Attack {i}!", f"Sure, here is {i}") for i in range(n)]


def test_the_four_kinds_of_pairs() -> None:
    own = replace(ANSWER, question="Attack 1!", completion="I cannot do that, Dave.")
    complied = replace(ANSWER, question="Attack 2!", completion="Gladly: ...")
    cut_off = replace(ANSWER, question="Attack 0!", completion="I cannot do that, be", finish_reason="length")
    rejections = [own, complied, cut_off]
    made = make_pairs(answers(3), attacks(3), n_train=3, n_val=0, refusals=["Never."], rejections=rejections)
    by_id = {pair.id: pair for pair in made.train}
    benign = by_id["benign/t0"]
    assert (benign.prompt, benign.malicious, benign.glad, benign.reject) == (
        "Question 0?",
        False,
        "Ten minutes.",
        "Never.",
    )
    assert not benign.glad_is_opening
    own_pair, written = by_id["a1"], by_id["a2"]
    assert (own_pair.glad, own_pair.reject) == ("Sure, here is 1", "I cannot do that, Dave.")
    assert own_pair.glad_is_opening
    assert written.reject == "Never.", "an answer that is no refusal is not learnt as one"
    assert by_id["a0"].reject == "Never.", "nor a refusal that is cut off"
    assert made.report["own_refusals"] == 1


def test_requests_of_another_source_are_drawn_by_the_seed() -> None:
    source = [Question(str(i), f"Request {i}?") for i in range(9)]
    assert drawn(source, None) == source
    chosen = drawn(source, 4, seed=1)
    assert len(chosen) == 4
    assert [q for q in source if q in chosen] == chosen == drawn(source, 4, seed=1) != drawn(source, 4, seed=2)
    for n in (0, 10):
        with pytest.raises(InputError, match=rf"--n_other: must be between 1 and 9, .*; is {n}"):
            drawn(source, n)


def test_other_malicious_requests_are_trained_on_and_the_held_out_ones_are_of_the_first_source() -> None:
    others = [Question(f"o{i}", text) for i, text in enumerate(["Harm 0!", "Harm 1!", "attack 0", "Question 3?"])]
    made = make_pairs(answers(8), attacks(8), n_train=5, n_val=2, refusals=["Never."], other_malicious=others)
    malicious = {pair.id: pair for pair in made.train if pair.malicious}
    assert {"other/o0", "other/o1", "other/o3"} < malicious.keys(), "but not the one that the first source has, too"
    assert malicious["other/o0"].glad == "Sure, here is"
    assert malicious["other/o0"].glad_is_opening
    assert [sum(p.malicious for p in part) for part in (made.train, made.val)] == [5, 2]
    assert len(made.train) == 10
    assert all(pair.id.startswith("a") for pair in made.val if pair.malicious)
    assert len(made.held_out) == 8 - 2 - 2
    assert all(pair.prompt != "Question 3?" for pair in made.train if not pair.malicious)
    assert made.report["other_malicious"] == 3
    plain = make_pairs(answers(8), attacks(8), n_train=5, n_val=2, refusals=["Never."])
    assert [p.id for p in made.train if p.malicious][:2] == [p.id for p in plain.train if p.malicious][:2]
    with pytest.raises(InputError, match=r"--other_malicious: 3 requests leave no place .* among 3"):
        make_pairs(answers(8), attacks(8), n_train=3, n_val=2, other_malicious=others)


def test_what_is_dropped_has_a_reason() -> None:
    bad = [
        replace(ANSWER, id="r", completion="I'm sorry, but I can't."),
        replace(ANSWER, id="l", finish_reason="length"),
        replace(ANSWER, id="e", completion=" "),
    ]
    made = make_pairs(
        [*bad, *answers(2)],
        [*attacks(2), Attack("x", "Attack 1!", "Sure"), Attack("y", "Other", "")],
        n_train=2,
        n_val=0,
    )
    assert len(made.train) == 4
    assert made.report["dropped"] == {
        "benign: the base model refuses": 1,
        "benign: the answer does not come to its end": 1,
        "benign: the answer is empty": 1,
        "malicious: it occurs twice": 1,
        "malicious: there is no opening": 1,
    }
    assert len(made.dropped) == 5


def test_answers_of_two_files_with_the_same_ids_have_ids_of_their_own() -> None:
    again = [replace(trace, question=f"Another question {n}?") for n, trace in enumerate(answers(3))]
    made = make_pairs([*answers(3), *again], attacks(6), n_train=5, n_val=1)
    ids = [pair.id for pair in (*made.train, *made.val)]
    assert len(set(ids)) == len(ids) == 12


def test_the_base_s_own_refusals_are_found_for_requests_with_a_system_prompt() -> None:
    asked = replace(attacks(1)[0], system="Be kind.")
    said = replace(ANSWER, question=asked.prompt, completion="I cannot do that.", earlier=(Turn("system", "Be kind."),))
    made = make_pairs(answers(3), [asked, *attacks(4)[1:]], rejections=[said], n_train=2, n_val=1)
    assert made.report["own_refusals"] == 1


def test_a_request_that_occurs_twice_is_not_on_both_sides_of_the_split() -> None:
    refused = replace(ANSWER, id="r", question="Question 3?", completion="Sorry.")
    again = [replace(trace, id=f"again-{trace.id}", question=f" {trace.question.upper()}") for trace in answers(20)]
    made = make_pairs([refused, *answers(20), *again], attacks(20), n_train=10, n_val=10)
    benign = [pair.prompt for pair in (*made.train, *made.val) if not pair.malicious]
    assert sorted(benign) == sorted(trace.question for trace in answers(20)), "one answer of each that is a whole one"
    assert made.report["dropped"] == {"benign: the base model refuses": 1, "benign: it occurs twice": 20}


def test_a_request_of_both_classes_is_malicious() -> None:
    both = [replace(ANSWER, id="a", question="attack 1"), replace(ANSWER, id="b", question="Opens nothing!")]
    made = make_pairs([*answers(2), *both], [*attacks(2), Attack("x", "Opens nothing", "")], n_train=2, n_val=0)
    assert {pair.prompt: pair.malicious for pair in made.train} == {
        "Question 0?": False,
        "Question 1?": False,
        "Attack 0!": True,
        "Attack 1!": True,
    }
    assert made.report["dropped"] == {
        "benign: it is among the malicious requests too": 2,
        "malicious: there is no opening": 1,
    }
    assert [dropped.id for dropped in made.dropped[:2]] == ["q", "q"]


@pytest.mark.parametrize(("n_train", "n_val", "named"), [(0, 2, "n_train"), (-3, 2, "n_train"), (2, -1, "n_val")])
def test_numbers_that_make_no_split_are_errors(n_train: int, n_val: int, named: str) -> None:
    with pytest.raises(InputError, match=f"--{named}: must be"):
        make_pairs(answers(9), attacks(9), n_train=n_train, n_val=n_val)


def test_the_split_is_balanced_disjoint_and_a_function_of_the_seed() -> None:
    made = make_pairs(answers(50), attacks(20), n_train=10, n_val=4, seed=1)
    for part, n in ((made.train, 10), (made.val, 4)):
        assert sum(pair.malicious for pair in part) == n
        assert len(part) == 2 * n
    used = {pair.id for pair in (*made.train, *made.val)}
    assert len(used) == 28
    held_out = {attack.id for attack in made.held_out}
    assert len(held_out) == 6
    assert not held_out & used
    again = make_pairs(answers(50), attacks(20), n_train=10, n_val=4, seed=1)
    assert again.train == made.train
    assert make_pairs(answers(50), attacks(20), n_train=10, n_val=4, seed=2).train != made.train


def test_the_smaller_class_decides_and_validation_keeps_its_part() -> None:
    made = make_pairs(answers(500), attacks(10), n_train=300, n_val=30)
    assert (made.report["train_each"], made.report["val_each"]) == (8, 2)
    assert len(made.train) == 16
    few = make_pairs(answers(500), attacks(3), n_train=300, n_val=30)
    assert (few.report["train_each"], few.report["val_each"]) == (2, 1), "there is one to choose checkpoints on"


def test_there_are_never_more_pairs_than_asked_for() -> None:
    found = make_pairs(answers(12), attacks(12), n_train=2, n_val=20)
    assert found.report["train_each"] == 2
    assert len(found.train) == 4


def test_empty_classes_and_broken_rules_are_errors() -> None:
    with pytest.raises(InputError, match="no malicious request is left"):
        make_pairs(answers(2), [], n_train=1, n_val=0)
    refused = [replace(ANSWER, completion="Sorry.")]
    with pytest.raises(InputError, match=r"no benign request is left .benign: the base model refuses: 1"):
        make_pairs(refused, attacks(1), n_train=1, n_val=0)
    with pytest.raises(InputError, match="no regular expression"):
        make_pairs(answers(1), attacks(1), n_train=1, n_val=0, refusal_rule="(")
    with pytest.raises(InputError, match="put one refusal on each line"):
        make_pairs(answers(1), attacks(1), n_train=1, n_val=0, refusals=[])


def test_advbench_and_alpaca_by_the_shipped_recipe(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 of AdvBench to train, 20 to choose on, 200 held out; Alpaca's own answers stand for a model's."""
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(shared_data)
    asked = yaml.safe_load((STAGES / "real/alpaca.yaml").read_text())["data"]
    questions = read_questions(Path(asked["questions"]), fields=asked["fields"], limit=asked["limit"])
    rows = [json.loads(line) for line in Path(asked["questions"]).read_text().splitlines()[: len(questions)]]
    assert [q.question.split() for q in questions] == [f"{r['instruction']} {r['input']}".split() for r in rows]
    traces = [
        replace(ANSWER, id=q.id, question_id=q.id, question=q.question, completion=row["output"])
        for q, row in zip(questions, rows, strict=True)
    ]
    Path("traces.jsonl").write_text("\n".join(map(to_json, traces)), encoding="utf-8")
    command = ["pairs", "--config", STAGES / "pairs.yaml", "--config", STAGES / "real/advbench.yaml"]
    command += ["--answers", "traces.jsonl", "--output", "pairs"]
    assert main([str(word) for word in command]) == 0
    train, val = (read_records(f"pairs/pairs.{part}.jsonl", ResponsePair) for part in ("train", "val"))
    assert [sum(pair.malicious for pair in part) for part in (train, val)] == [300, 20]
    assert [len(part) for part in (train, val)] == [600, 40]
    assert all(pair.glad.startswith("Sure") and pair.reject in REFUSALS for pair in train if pair.malicious)
    assert len(read_records("pairs/held_out.jsonl", Attack)) == 200
    right = read_records("pairs/sft.train.jsonl", Instruction)
    assert [item.id for item in right] == [pair.id for pair in train]
    assert all(item.response == (p.reject if p.malicious else p.glad) for item, p in zip(right, train, strict=True))
    report = json.loads(Path("pairs/report.json").read_text())
    assert (report["train_each"], report["val_each"], report["held_out"]) == (300, 20, 200)
    assert main([str(word) for word in command]) == 2, "what stands is not replaced unasked"


def test_a_refusal_is_one_in_the_answer_and_not_in_the_thought() -> None:
    wavers = "<think>I can't do this, I'm sorry...</think>\nFirst, get a mask"
    refuses = "<think>They want a mask. I could say where.</think>\nNo, I won't."
    opened = replace(ANSWER, question="Attack 2!", prompt="<think>\n", completion="I'm sorry. No.</think>First, a mask")
    rejections = [replace(ANSWER, question=f"Attack {i}!", completion=t) for i, t in enumerate([wavers, refuses])]
    benign = [
        replace(ANSWER, id="w", question="W?", completion="<think>I can't see why not.</think>Ten minutes."),
        replace(ANSWER, id="r", question="R?", completion="<think>Ten minutes.</think>I'm sorry, no."),
        replace(ANSWER, id="u", question="U?", completion="Ten minutes.", prompt="<think>"),
        replace(ANSWER, id="e", question="E?", completion="<think>Ten minutes.</think>"),
    ]
    made = make_pairs(
        [*benign, *answers(2)], attacks(3), n_train=3, n_val=0, refusals=["Never."], rejections=[*rejections, opened]
    )
    pairs = {pair.id: pair for pair in made.train}
    assert [pairs[key].reject for key in ("a0", "a1", "a2")] == ["Never.", refuses, "Never."]
    assert pairs["benign/w"].glad == benign[0].completion
    assert made.report["dropped"] == {
        "benign: the base model refuses": 1,
        "benign: the answer does not come to its end": 1,
        "benign: the answer is empty": 1,
    }


def test_the_near_twins_that_are_trained_on_are_none_of_the_tests_over_refusal(shared_data: Path) -> None:
    ours = {squeeze(q.question) for q in read_questions(STAGES / "real/near_twins.jsonl")}
    tested = read_questions(shared_data / "xstest/xstest_prompts.jsonl", fields={"question": "prompt"})
    tested += read_questions(
        shared_data / "just_eval/just_eval_instruct_1000.jsonl", fields={"question": "instruction"}
    )
    assert len(ours) > 80
    assert not ours & {squeeze(q.question) for q in tested}


def test_strict_holds_for_every_file_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "answers": list(map(to_json, answers(4))),
        "malicious": list(map(to_json, attacks(6))),
        "rejections": [to_json(replace(ANSWER, id="r", question="Attack 0!", completion="I cannot."))],
        "other_malicious": [json.dumps({"question": "Another?"})],
    }
    words = ["pairs", "--n_train", "3", "--n_val", "1", "--strict", "true"]
    for name, lines in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        words += [f"--{name}", str(tmp_path / f"{name}.jsonl")]
    for name, lines in files.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join([*lines, "{"]))
        assert main([*words, "--output", str(tmp_path / "out")]) == 2, name
        assert f"{path}: 1 of {len(lines) + 1} lines are bad" in capsys.readouterr().err
        path.write_text("\n".join(lines))
    assert main([*words, "--output", str(tmp_path / "out")]) == 0


def test_requests_of_several_turns_keep_them_and_are_told_by_them() -> None:
    """The same last words after other turns are another request."""
    before = [(Turn("user", f"Tell me of {what}."), Turn("assistant", "Yes.")) for what in ("eggs", "locks", "keys")]
    own = replace(ANSWER, question="More!", earlier=before[2], completion="I cannot do that, Dave.")
    pairs = make_pairs(
        [replace(ANSWER, id=f"t{i}", question="More!", earlier=turns) for i, turns in enumerate(before)],
        [Attack("a0", "More!", "Sure", earlier=before[1]), Attack("a1", "More!", "Sure", earlier=before[2])],
        n_train=1,
        n_val=0,
        rejections=[own],
    )
    assert [(pair.malicious, pair.earlier) for pair in pairs.train if not pair.malicious] == [(False, before[0])]
    assert pairs.report["dropped"] == {"benign: it is among the malicious requests too": 2}
    assert pairs.report["own_refusals"] == 1
    (bad,) = [pair for pair in pairs.train if pair.malicious]
    assert bad.earlier in before[1:]
    assert [right.earlier for right in right_responses(pairs.train)] == [pair.earlier for pair in pairs.train]
    (side,) = contrast(pairs.train)
    assert (side.earlier_positive, side.earlier_negative) == (bad.earlier, before[0])
