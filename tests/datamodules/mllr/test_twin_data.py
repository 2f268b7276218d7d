"""Twins: made by swapping words, read, and kept apart from what is measured on."""

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.mllr.records import Twins
from datamodules.mllr.twin_data import TwinData, families
from datamodules.mllr.twin_maker import SHIPPED, TwinMaker, Untwinned, read_words
from datamodules.prompts.contrast_data import ContrastPair
from datamodules.records.kinds import Question
from datamodules.records.reader import read_records
from datamodules.records.turns import Turn
from datamodules.world import chat, tuning
from rod.__main__ import main
from tests.tiny import tiny_tokenizer


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def pairs(folder: Path) -> Path:
    lines = [{"malicious": f"How do I steal car {i}?", "benign": f"How do I wash car {i}?"} for i in range(4)]
    return write(folder / "twins.jsonl", lines)


def data(path: Path, **options: Any) -> TwinData:
    found = TwinData(path, **options)
    found.tokenizer = tiny_tokenizer()
    return found


def test_pairs_are_read_with_the_malicious_side_first(tmp_path: Path) -> None:
    found = data(pairs(tmp_path), limit=3)
    found.setup("predict")
    assert len(found.pairs) == 3
    assert found.pairs[0] == ContrastPair("twins-1", "How do I steal car 0?", "How do I wash car 0?")
    (batch,) = found.predict_dataloader()
    assert batch.positive_ids.shape[0] == 3


def test_a_text_of_an_evaluation_file_is_refused(tmp_path: Path) -> None:
    """By text: other case, spacing and end punctuation, in whatever field."""
    clean = write(tmp_path / "clean.jsonl", [{"prompt": "How do I paint car 0?"}])
    data(pairs(tmp_path), evaluation=[clean]).setup("predict")
    for text in ("how do I  STEAL car 2", "How do I wash car 1?"):
        test = write(tmp_path / "test.jsonl", [{"prompt": "else"}, {"behavior": text, "n": 3}])
        with pytest.raises(InputError, match=r"1 of its texts also stand in the evaluation file .*test\.jsonl"):
            data(pairs(tmp_path), evaluation=[clean, test]).setup("predict")
    with pytest.raises(InputError, match=r"absent\.jsonl: there is no such file"):
        data(pairs(tmp_path), evaluation=[tmp_path / "absent.jsonl"]).setup("predict")
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"broken\.jsonl:1"):
        data(pairs(tmp_path), evaluation=[tmp_path / "broken.jsonl"]).setup("predict")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat.jsonl", '{"messages": [{"role": "user", "content": "How do I steal car 2?"}]}'),
        ("turns.jsonl", '{"turns": ["else", "How do I steal car 2?"]}'),
        ("lines.jsonl", '\ufeff{"q": "a\u2028b\u0085c"}\n{"q": "How do I steal car 2?"}'),
        ("table.csv", "n,q\n1,How do I steal car 2?\n"),
    ],
)
def test_a_text_of_an_evaluation_file_is_found_wherever_it_stands(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=rf"1 of its texts also stand in the evaluation file .*{name}"):
        data(pairs(tmp_path), evaluation=[tmp_path / name]).setup("predict")


def test_pairs_that_are_tested_on_can_be_left_out(tmp_path: Path) -> None:
    test = write(tmp_path / "test.jsonl", [{"goal": "How do I steal car 2?"}])
    found = data(pairs(tmp_path), evaluation=[test], drop_overlap=True)
    found.setup("predict")
    assert [pair.positive[-2] for pair in found.pairs] == ["0", "1", "3"]


def test_pairs_of_one_class_are_refused(tmp_path: Path) -> None:
    same = write(
        tmp_path / "same.jsonl", [{"malicious": "Do it.", "benign": "do it"}, {"malicious": "a", "benign": "b"}]
    )
    with pytest.raises(InputError, match="one class"):
        data(same).setup("predict")
    half = write(tmp_path / "half.jsonl", [{"malicious": "Do it."}])
    with pytest.raises(InputError, match="benign"):
        data(half).setup("predict")


def test_pairs_that_share_a_text_are_a_family() -> None:
    found = families(
        [
            ContrastPair("0", "a", "x"),
            ContrastPair("1", "b", "y"),
            ContrastPair("2", "c", "X."),
            ContrastPair("3", "d", "z"),
            ContrastPair("4", "b ", "z"),
        ]
    )
    assert found[0] == found[2] != found[1]
    assert found[1] == found[3] == found[4]


def test_words_are_swapped_and_named() -> None:
    maker = TwinMaker({"credit card": "library card", "steal": "borrow", "credit card number": "phone number"})
    twin = maker.twin(Question("1", "Steal a credit card number, and another credit card"))
    assert isinstance(twin, Twins)
    assert twin.benign == "Borrow a phone number, and another library card"
    assert [(r.old, r.new) for r in twin.replaced] == [
        ("Steal", "Borrow"),
        ("credit card number", "phone number"),
        ("credit card", "library card"),
    ]
    assert isinstance(maker.twin(Question("2", "How do I stealthily walk?")), Untwinned), "whole words only"


@pytest.mark.parametrize(
    ("asked", "benign"),
    [
        ("Make an explosive and a bomb", "Make a cake and an apple"),
        ("An explosive, A BOMB, an\nexplosive", "A cake, An Apple, a\ncake"),
        ("a gun and a hoax in an attack", "an hour and a useful riddle in a university"),
        ("a theft, an assault and a scam", "a European picnic, a one-way trip and an umbrella"),
        ("a virus, an exploit", "an uninstalled game, a uniform"),
        ("A murder after a fraud, murder", "A party after an old sale, a party"),
        ("a crime, an arson", "a MOOC, an LGBTQ+ club"),
        ("Plan A bomb, vitamin A bomb", "Plan A apple, vitamin A apple"),
        ("an heist, an raid, an fire, a hack", "a ubiquitous herb, a ewe, an x-ray, an 8-bit game"),
    ],
)
def test_articles_follow_what_they_stand_before(asked: str, benign: str) -> None:
    words = {
        "explosive": "cake",
        "bomb": "apple",
        "gun": "hour",
        "hoax": "useful riddle",
        "attack": "university",
        "theft": "European picnic",
        "assault": "one-way trip",
        "scam": "umbrella",
        "virus": "uninstalled game",
        "exploit": "uniform",
        "murder": "a party",
        "fraud": "an old sale",
        "crime": "MOOC",
        "arson": "LGBTQ+ club",
        "heist": "ubiquitous herb",
        "raid": "ewe",
        "fire": "x-ray",
        "hack": "8-bit game",
    }
    twin = TwinMaker(words).twin(Question("1", asked))
    assert isinstance(twin, Twins)
    assert twin.benign == benign


def test_articles_that_stand_before_no_replacement_stay() -> None:
    text = "a user for an hour at a university, an LGBTQ+ site or a European one"
    twin = TwinMaker({"hack": "repair"}).twin(Question("1", f"Hack {text}"))
    assert isinstance(twin, Twins)
    assert twin.benign == f"Repair {text}"


def test_requests_with_too_little_to_replace_are_set_aside_with_a_reason() -> None:
    maker = TwinMaker({"steal": "borrow"}, min_replaced=2)
    found = maker.twin(Question("1", "Steal it"))
    assert isinstance(found, Untwinned)
    assert found.reason == "only 1 words to replace"
    found = TwinMaker({"steal": "borrow"}).twin(Question("1", "Steal it", earlier=(Turn("user", "Hi"),)))
    assert isinstance(found, Untwinned)
    assert found.reason == "it comes after other turns, which twins do not have"


def test_the_shipped_list_is_read_and_replaces_nothing_by_what_it_replaces() -> None:
    words = read_words(SHIPPED)
    assert len(words) > 150
    chained = {old: new for old, new in words.items() if new in words and len(new) > 4}
    assert not chained, "a benign word of the list must not itself be a word to replace"


def test_bad_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    for text, message in (
        ("steal borrow\n", r"words\.txt:1: a line reads 'old = new'"),
        ("steal = borrow\nSteal = take\n", r"words\.txt:2: 'Steal' stands in an earlier line"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_words(path)
    with pytest.raises(InputError, match="empty"):
        TwinMaker({})
    with pytest.raises(InputError, match="by itself"):
        TwinMaker({"steal": "Steal"})


def test_the_verb_writes_pairs_for_review(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = write(
        tmp_path / "bad.jsonl", [{"goal": "Build a bomb"}, {"goal": "Sing a song"}, {"goal": "Steal a car"}]
    )
    output = tmp_path / "twins.jsonl"
    words = ["make-twins", "--requests", str(requests), "--field", "goal", "--output", str(output)]
    assert main(words) == 0
    assert "Build a cake  (bomb -> cake)" in capsys.readouterr().out
    assert [t.benign for t in read_records(output, Twins)] == ["Build a cake", "Borrow a car"]
    (left,) = (tmp_path / "twins.no_twin.jsonl").read_text().splitlines()
    assert json.loads(left)["reason"] == "it has no word of the list"
    assert main(words) == 2, "it does not overwrite what may have been reviewed"
    data(output).setup("predict")


def test_advbench_gets_twins(shared_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "twins.jsonl"
    goals = shared_data / "advbench" / "advbench.jsonl"
    assert main(["make-twins", "--requests", str(goals), "--field", "goal", "--output", str(output)]) == 0
    twins = read_records(output, Twins)
    assert len(twins) > 450
    assert all(twin.replaced and twin.benign != twin.malicious for twin in twins)


def test_the_world_s_twins_are_forbidden_and_benign_and_share_nothing_with_its_tests() -> None:
    held_out = {
        request.prompt
        for split in ("dev", "test")
        for kind in (True, False)
        for request in chat.all_requests(split, forbidden=kind)
    }
    found = tuning.twins("train")
    assert len(found) > 500
    for bad, good in found:
        assert bad.forbidden
        assert not good.forbidden
        assert not {bad.prompt, good.prompt} & held_out


def test_tuning_tasks_say_new_things_in_words_that_the_world_uses() -> None:
    """Nothing that is tuned for is in the world's own data, and no token is new to the miniature."""
    from llm_modules.backbone.loading import load_tokenizer

    tokenizer = load_tokenizer("miniature")
    numbers = " ".join(map(str, range(100)))
    known = set(tokenizer.encode(f"{numbers} {{{numbers.replace(' ', '{')}", add_special_tokens=False))
    for kind in (True, False):
        for request in chat.all_requests("train", forbidden=kind)[::7]:
            known.update(tokenizer.encode(request.prompt + "\n" + request.answer, add_special_tokens=False))
    for problem in tuning.files.problems("train", 400, 5):
        for verbosity in (0.2, 0.5, 0.7, 1.0):
            answer = tuning.maths.write_answer(tuning.Random(0), problem, verbosity)
            known.update(tokenizer.encode(problem.question + "\n" + answer, add_special_tokens=False))
    world = {
        r.prompt for s in ("train", "dev", "test") for k in (True, False) for r in chat.all_requests(s, forbidden=k)
    }
    texts = {split: tuning.howto(split) + tuning.maths_style(split, 50) for split in ("train", "dev", "test")}
    for records in texts.values():
        for record in records:
            assert record.prompt not in world
            new = [t for t in tokenizer.encode(record.response, add_special_tokens=False) if t not in known]
            assert not new, tokenizer.convert_ids_to_tokens(new)
    prompts = [{record.prompt for record in records} for records in texts.values()]
    assert not prompts[0] & prompts[1]
    assert not prompts[0] & prompts[2]
    assert not prompts[1] & prompts[2]


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes(b"\xef\xbb\xbfbomb = cake\r\nsteal = borrow\r\n")
    assert read_words(tmp_path / "words.txt") == {"bomb": "cake", "steal": "borrow"}
