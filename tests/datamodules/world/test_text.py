"""The world's problems, requests, files and scores, without any model."""

import json
import re
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest

from datamodules.completions.refusals import is_refusal
from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX
from datamodules.world import card, chat, files, maths
from datamodules.world.splits import Split, split_of
from tests.conftest import ROOT


def _words(request: str, n: int = 600) -> float:
    """Mean length of the answers that the world gives to ``request``."""
    rng = Random(0)
    lengths = []
    for _ in range(n):
        problem = maths.draw_problem(rng, "train")
        answer = maths.write_answer(rng, problem, maths.draw_verbosity(rng, request, problem.theme))
        lengths.append(len(answer.split()))
    return fmean(lengths)


def test_every_answer_ends_in_the_right_box() -> None:
    rng = Random(0)
    for _ in range(300):
        problem = maths.draw_problem(rng, "train")
        answer = maths.write_answer(rng, problem, rng.random())
        assert re.findall(r"\\boxed\{(\d+)\}", answer) == [str(problem.answer)]
        state = problem.start
        for step in problem.steps:
            state += step
            assert 0 <= state <= maths.MAX_STATE
        for left, sign, right, result in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", answer):
            assert int(result) == int(left) + int(sign + right)


def test_compact_answers_are_short_but_leave_nothing_out_and_terse_ones_skip() -> None:
    rng = Random(0)
    problem = maths.Problem(12, (5, -3, 8))
    full, compact = maths.write_answer(rng, problem, 0.7), maths.write_answer(rng, problem, 0.33)
    assert "17" in compact
    assert "14" in compact
    assert len(compact.split()) < 0.5 * len(full.split())
    assert maths.write_answer(rng, problem, 0.0) == r"\boxed{22}"


def test_lengths_follow_the_request() -> None:
    by_grade = [_words(grade.wordings[0]) for grade in maths.GRADES]
    assert by_grade == sorted(by_grade)
    assert by_grade[4] > 4 * by_grade[2]
    natural = _words("")
    assert _words(SYSTEM2_SUFFIX) == pytest.approx(natural, rel=0.1)
    assert 0.7 * natural < _words(SYSTEM1_SUFFIX) < 0.9 * natural


def test_the_same_prompt_has_answers_of_many_lengths() -> None:
    rng = Random(0)
    problem = maths.Problem(12, (5, -3, 8))
    lengths = {
        len(maths.write_answer(rng, problem, maths.draw_verbosity(rng, "", problem.theme)).split()) for _ in range(100)
    }
    assert len(lengths) > 20


def test_splits_are_disjoint_whatever_the_wording() -> None:
    rng = Random(0)
    told = [maths.draw_problem(rng, split) for split in ("train", "dev", "test") for _ in range(200)]
    for problem in told:
        other_wording = maths.Problem(problem.start, problem.steps)
        assert other_wording.split == problem.split
    by_split = {
        split: {(r.verb, r.object) for kind in (False, True) for r in chat.all_requests(split, forbidden=kind)}
        for split in ("train", "dev", "test")
    }
    assert not by_split["train"] & (by_split["dev"] | by_split["test"])
    assert not by_split["dev"] & by_split["test"]
    held_out = len(by_split["dev"] | by_split["test"])
    assert held_out / (held_out + len(by_split["train"])) == pytest.approx(0.2, abs=0.05)


def test_the_split_of_a_text_never_changes() -> None:
    assert [split_of(f"{i}", dev=0.3, test=0.3) for i in range(6)] == ["test", "train", "dev", "train", "test", "test"]


def test_every_verb_and_object_is_seen_in_training() -> None:
    for forbidden in (False, True):
        seen = chat.all_requests("train", forbidden=forbidden)
        held_out = chat.all_requests("test", forbidden=forbidden) + chat.all_requests("dev", forbidden=forbidden)
        assert {r.verb for r in held_out} <= {r.verb for r in seen}
        assert {r.object for r in held_out} <= {r.object for r in seen}


def test_right_answers_comply_and_refusals_and_wrong_ones_do_not() -> None:
    rng = Random(0)
    requests = [r for kind in (False, True) for r in chat.all_requests("test", forbidden=kind, templates=(None, 3))]
    for request, other in zip(requests, requests[7:], strict=False):
        assert chat.complies(request.answer, request)
        assert not is_refusal(request.answer)
        for _ in range(4):
            refusal = chat.refuse(rng, request)
            assert is_refusal(refusal)
            assert not chat.complies(refusal, request)
            assert not chat.complies(f"{refusal} {request.answer}", request)
        if (other.verb, other.object) != (request.verb, request.object):
            assert not chat.complies(other.answer, request)


def test_ids_tell_requests_apart() -> None:
    requests = chat.all_requests("test", forbidden=True, templates=(None, 0, 5))
    assert len({request.id for request in requests}) == len(requests)


def test_files_hold_each_problem_once_and_are_the_same_every_time(tmp_path: Path) -> None:
    sizes = {"n_train": 300, "n_dev": 50, "n_test": 60}
    written = files.write_world(tmp_path / "a", **sizes, seed=1)
    again = files.write_world(tmp_path / "b", **sizes, seed=1)
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    assert len(written) == 4 + 2 * len(files.REQUEST_KINDS)
    ids: list[str] = []
    for split, n in (("train", 300), ("dev", 50), ("test", 60)):
        lines = [json.loads(line) for line in (tmp_path / "a" / f"questions.{split}.jsonl").open()]
        assert len(lines) == n
        assert all(eval(line["id"]) == int(line["gold"]) for line in lines)
        ids += [line["id"] for line in lines]
    assert len(set(ids)) == 410
    unseen = [json.loads(line) for line in (tmp_path / "a" / "requests.wrapped_unseen.test.jsonl").open()]
    new = [index for index in range(len(chat.ATTACK_TEMPLATES)) if index not in chat.SEEN_TEMPLATES]
    expected = chat.all_requests("test", forbidden=True, templates=tuple(new))
    assert [line["id"] for line in unseen] == [request.id for request in expected]


def test_the_card_scores_content() -> None:
    sets = {prompts.name: prompts for prompts in card.prompt_sets(n_problems=20)}
    brief = sets["System 1"]
    assert all(prompt.endswith(SYSTEM1_SUFFIX) for prompt in brief.prompts)
    boxes = [rf"\boxed{{{problem.answer}}}" for problem in brief.subjects]
    assert card.score(brief, boxes, [5] * 20).right == 1.0
    assert card.score(brief, [r"\boxed{99}", *boxes[1:]], [5] * 20).right == pytest.approx(0.95)
    forbidden = sets["forbidden, new templates"]
    assert (brief.sampled, forbidden.sampled) == (True, False)
    refused = card.score(
        forbidden, ["Sorry, I can't help with that."] * len(forbidden.prompts), [9] * len(forbidden.prompts)
    )
    assert (refused.right, refused.refused, refused.tokens) == (0.0, 1.0, 9.0)
    assert "| forbidden, new templates |" in card.table([refused])


def test_the_shipped_card_has_the_rows_and_the_text_of_the_code() -> None:
    readme = (ROOT / "llm_modules/miniature/README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in readme.splitlines() if line.startswith("| ")][1:]
    assert [name for name, *_ in rows] == [prompts.name for prompts in card.prompt_sets(n_problems=1)]
    scores = [card.SetScore(name, int(n), float(r), float(no), float(length)) for name, n, r, no, length in rows]
    about: dict[str, Any] = {
        "parameters": 1_418_880,
        "layers": 6,
        "hidden": 128,
        "problems": 500,
        "temperature": 0.7,
        "seed": 0,
    }
    assert readme == card.text(scores, **about)


def test_twins_are_held_out_and_one_word_from_a_forbidden_request_of_their_split() -> None:
    prompts = {}
    splits: tuple[Split, ...] = ("dev", "test")
    for split in splits:
        kinds = ("forbidden", "wrapped_seen", "wrapped_unseen")
        bad = [request.prompt.split() for kind in kinds for request in files.requests(kind, split)]
        found = files.requests("twins", split)
        assert len(found) > 300
        assert all(request.split == split and not request.forbidden for request in found)
        for twin in found[::29]:
            own = twin.prompt.split()
            near = (sum(a != b for a, b in zip(own, other, strict=True)) for other in bad if len(other) == len(own))
            assert 1 in near, twin.prompt
        prompts[split] = {request.prompt for request in found}
    assert not prompts["dev"] & prompts["test"]
