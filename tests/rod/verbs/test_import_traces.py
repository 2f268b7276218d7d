"""``rod import-traces``, and what becomes of real responses afterwards."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from configs import __file__ as configs_init
from datamodules.errors import InputError
from datamodules.records import Trace, read_records
from datamodules.s3cot.records import CurriculumItem
from rod.parser import run_verb
from rod.verbs import filter, import_traces


def main(words: list[str]) -> None:
    run_verb(import_traces.run, words, "import-traces")


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A tokenizer that counts words."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_responses_become_traces(tmp_path: Path, words: Path) -> None:
    rows: list[dict[str, object]] = [
        {"n": 1, "problem": "1+1?", "style": "long", "texts": ["One and one. Answer: B", "No idea"], "right": "B"},
        {
            "n": 1,
            "problem": "1+1?",
            "style": "short",
            "texts": ["Answer: A Answer: C", "It is \\boxed{B}"],
            "right": "B",
        },
        {"n": 2, "problem": "2+2?", "style": "long", "texts": [], "right": None},
        {"n": 2, "problem": "2+2?", "style": "short", "texts": ["Answer: D"], "right": None},
    ]
    config = tmp_path / "import.yaml"
    config.write_text(
        "fields: {question: problem, question_id: n, responses: texts, gold: right}\n"
        "alphas: {long: 0, short: -0.5}\nappend_boxed: 'Answer: ([A-E])'\n"
    )
    output = tmp_path / "out" / "traces.jsonl"
    source = write(tmp_path / "exam.jsonl", rows)
    main(["--config", str(config), "--responses", str(source), "--tokenizer", str(words), "--output", str(output)])
    traces = read_records(output, Trace, strict=True)
    assert [(t.question_id, t.alpha, t.sample, t.answer, t.correct, t.n_tokens) for t in traces] == [
        ("1", 0.0, 0, "B", True, 7),
        ("1", 0.0, 1, None, False, 3),
        ("1", -0.5, 0, "C", False, 6),
        ("1", -0.5, 1, "B", True, 4),
        ("2", -0.5, 0, "D", None, 4),
    ]
    assert traces[0].completion == "One and one. Answer: B\n\\boxed{B}"
    assert traces[3].completion == "It is \\boxed{B}"
    assert traces[0].id == "1|plain|-|a0|s0"
    with pytest.raises(InputError, match="exists"):
        main(["--config", str(config), "--responses", str(source), "--tokenizer", str(words), "--output", str(output)])


def test_without_a_pattern_responses_stay_as_they_are(tmp_path: Path, words: Path) -> None:
    source = write(tmp_path / "r.jsonl", [{"question": "q", "responses": ["Answer: B"], "model": "m"}])
    output = tmp_path / "t.jsonl"
    args = ["--responses", str(source), "--tokenizer", str(words), "--output", str(output)]
    main([*args, "--alphas", '{"": 0.0}'])
    (trace,) = read_records(output, Trace, strict=True)
    assert (trace.completion, trace.answer, trace.question_id, trace.model) == ("Answer: B", None, "r/q/m", "m")
    with pytest.raises(InputError, match="none for the styles ''"):
        main([*args, "--alphas", '{"verbose": 0.0}', "--overwrite", "true"])
    with pytest.raises(InputError, match="there is no folder"):
        main([*args[:2], "--tokenizer", "nowhere", *args[4:], "--alphas", '{"": 0.0}', "--overwrite", "true"])
    with pytest.raises(InputError, match="not a regular expression"):
        main([*args, "--alphas", '{"": 0.0}', "--overwrite", "true", "--append_boxed", "("])


def imported(folder: Path, words: Path, **files: list[dict[str, object]]) -> list[Trace]:
    sources = [str(write(folder / f"{name}.jsonl", rows)) for name, rows in files.items()]
    args = ["--tokenizer", str(words), "--output", str(folder / "t.jsonl"), "--overwrite", "true"]
    main(["--responses", json.dumps(sources), *args, "--alphas", '{"verbose": 0, "concise": -0.3}'])
    return read_records(folder / "t.jsonl", Trace, strict=True)


def test_styles_in_files_of_their_own_answer_the_same_questions(tmp_path: Path, words: Path) -> None:
    files: dict[str, list[dict[str, object]]] = {
        style: [
            {"question_id": f"q{n}", "question": f"{n}+1?", "gold": n + 1, "style": style, "responses": [text]}
            for n, text in enumerate(f"{so} \\boxed{{{n + 1}}}" for n in range(3))
        ]
        for style, so in (("verbose", "Well, one more, so"), ("concise", "So"))
    }
    traces = imported(tmp_path, words, **files)
    assert {trace.question_id for trace in traces} == {"q0", "q1", "q2"}
    output = tmp_path / "items.jsonl"
    run_verb(filter.run, ["--traces", str(tmp_path / "t.jsonl"), "--by", "gold", "--output", str(output)], "filter")
    assert [len(item.variants) for item in read_records(output, CurriculumItem, strict=True)] == [1, 1, 1]
    again = imported(tmp_path, words, one=files["verbose"], two=files["verbose"])
    assert len({trace.id for trace in again}) == 6, "ids of lines stay unique"


def test_files_whose_ids_start_anew_have_their_own_questions(tmp_path: Path, words: Path) -> None:
    line: dict[str, object] = {"style": "verbose", "responses": "a"}
    one, two = ([{**line, "question_id": 1, "question": question}] for question in ("1+1?", "2+2?"))
    without = [{**line, "question": "1+1?"}]
    traces = imported(tmp_path, words, one=one, two=two, three=without, four=without)
    assert [trace.question_id for trace in traces] == ["one/1", "two/1", "three/1+1?", "four/1+1?"]


def test_an_id_that_another_model_uses_for_another_question_parts_no_styles(tmp_path: Path, words: Path) -> None:
    line: dict[str, object] = {
        "question_id": 1,
        "question": "1+1?",
        "style": "verbose",
        "responses": "a",
        "model": "m1",
    }
    short, other = {**line, "style": "concise"}, {**line, "question": "9+9?", "model": "m2"}
    traces = imported(tmp_path, words, one=[line], two=[short], three=[other])
    assert [trace.question_id for trace in traces] == ["1/m1", "1/m1", "1/m2"]


def test_chats_become_traces(tmp_path: Path, words: Path) -> None:
    chat = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "It is \\boxed{2}"}]
    source = write(tmp_path / "chats.jsonl", [{"messages": chat, "style": "long"}])
    output = tmp_path / "traces.jsonl"
    config = tmp_path / "import.yaml"
    config.write_text(
        "fields: {question: 'messages[0].content', responses: 'messages[-1].content'}\nalphas: {long: 0}\n"
    )
    main(["--config", str(config), "--responses", str(source), "--tokenizer", str(words), "--output", str(output)])
    (trace,) = read_records(output, Trace, strict=True)
    assert (trace.question, trace.answer, trace.n_tokens) == ("1+1?", "2", 4)


def test_real_chains_of_thought(tmp_path: Path, shared_data: Path) -> None:
    config = Path(configs_init).parent / "s3cot" / "real" / "import_concise_cot.yaml"
    lines = (shared_data / "concise_cot_gpt" / "sat-math-100.jsonl").read_text(encoding="utf-8").splitlines()
    source = write(tmp_path / "sat.jsonl", [row for row in map(json.loads, lines) if row["problem_id"] <= 40])
    traces_file = tmp_path / "traces.jsonl"
    tokenizer = shared_data / "tokenizers" / "qwen2_5"
    main(
        [
            "--config",
            str(config),
            "--responses",
            str(source),
            "--tokenizer",
            str(tokenizer),
            "--output",
            str(traces_file),
        ]
    )
    traces = read_records(traces_file, Trace, strict=True)
    assert len(traces) == 40 * 4 * 10
    assert {trace.alpha for trace in traces} == {0.0, -0.1}
    right = {by: tmp_path / f"{by}.jsonl" for by in ("gold", "agreement")}
    for by, output in right.items():
        run_verb(filter.run, ["--traces", str(traces_file), "--by", by, "--output", str(output)], "filter")
        items = read_records(output, CurriculumItem, strict=True)
        report = json.loads(output.with_suffix(".report.json").read_text())
        dropped = output.with_suffix(".dropped.jsonl").read_text().count("\n")
        assert report["traces_kept"] + dropped == len(traces)
        assert report["traces_kept"] == sum(1 + len(item.variants) for item in items)
        assert all(0 < variant.length_ratio <= 1 for item in items for variant in item.variants)
        assert all(report["length_ratios"][3:])  # lengths of most of the curriculum's windows
        assert report["precision"] == 1.0 if by == "gold" else report["precision"] > 0.9
