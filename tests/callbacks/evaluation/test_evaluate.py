import csv
import json
import math
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from callbacks.evaluation.evaluate import Evaluate
from callbacks.evaluation.metrics import aes, wilson_interval
from callbacks.s3cot.steer import Steer
from datamodules.errors import InputError
from datamodules.prompts.chat_template import encode_pair
from datamodules.records.reader import read_records
from datamodules.suites.predictions import Prediction
from llm_modules.judges import Exchange, Judge, RefusalPhrases, Verdict
from llm_modules.s3cot import Direction, Positions, Steering
from tests.callbacks.evaluation.evaluation_run import (
    data,
    judges,
    measure,
    metrics,
    module,
    predictions,
    prepare,
    results,
    run,
    write,
)
from tests.callbacks.generation.sampling_run import data as prompt_data
from tests.callbacks.generation.sampling_run import prepare as with_direction
from tests.callbacks.generation.sampling_run import trainer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test of everything."""
    root = tmp_path_factory.mktemp("whole")
    run(source, root)
    return root


def test_files_of_a_test(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(source, tmp_path, samples=3)
    found = read_records(tmp_path / "predictions.jsonl", Prediction, strict=True)
    assert len(found) == 3 * 5 * (2 + 2 + 1)
    assert [p.id for p in found] == sorted(p.id for p in found)
    first = next(p for p in found if p.id == "maths/q2|system1|none|s1")
    assert (first.question, first.gold, first.system, first.sample) == ("2 + 1?", "3", "system1", 1)
    assert (first.suite, first.kind, first.question_id, first.correct) == ("maths", "answers", "maths/q2", False)
    assert first.prompt.startswith("<|im_start|>user\n2 + 1? Please provide as a brief")
    begun = next(p for p in found if p.id == "forbidden/4|plain|prefill|s0")
    assert (begun.prefill, begun.group, begun.attack_template) == ("Sure, turn", "b", "prefill")
    assert 0 < (begun.n_tokens or 0) <= 6
    cells = results(tmp_path)
    for system in ("system1", "system2"):
        own, cell = [p for p in found if p.suite == "maths" and p.system == system], cells[f"maths {system}"]
        assert (cell["n"], cell["records"], cell["kind"], cell["failures"]) == (15, 5, "answers", {})
        assert cell["metrics"]["accuracy"]["value"] == 0
        assert cell["metrics"]["tokens"]["value"] == pytest.approx(mean(p.n_tokens or 0 for p in own))
        assert cell["metrics"]["truncation"]["value"] == pytest.approx(mean(p.finish_reason == "length" for p in own))
        by_sample = [mean(p.n_tokens or 0 for p in own if p.sample == sample) for sample in range(3)]
        assert [entry["tokens"] for entry in cell["by_sample"]] == pytest.approx(by_sample)
        assert cell["metrics"]["tokens"]["std"] == pytest.approx(stdev(by_sample))
        assert "aes" not in cell["metrics"]
    about = metrics(tmp_path)
    assert about["model"] == str((source / "model").resolve())
    assert about["settings"]["generation"]["max_new_tokens"] == 12
    assert about["judges"]["letters"]["phrases"] == "e; x"
    assert about["sources"].keys() == {"maths", "forbidden", "benign", "likelihood"}
    assert Path(about["sources"]["maths"]).is_file()
    assert about["versions"].keys() >= {"torch", "lightning", "transformers", "peft"}
    table = capsys.readouterr().out
    assert "maths system1" in table
    assert "forbidden prefill" in table
    assert "likelihood: perplexity" in table


def test_verdicts_of_the_judges_land_in_predictions_and_metrics(whole: Path) -> None:
    found, cells = predictions(whole), results(whole)
    assert all(not p["verdicts"] for p in found.values() if p["suite"] == "maths")
    for suite, template, group in (
        ("forbidden", "none", ""),
        ("forbidden", "prefill", "a"),
        ("benign", "none", ""),
    ):
        own = [
            p for p in found.values()
            if p["suite"] == suite and p["attack_template"] == template and (not group or p["group"] == group)
        ]  # fmt: skip
        said = {
            name: [next(v for v in p["verdicts"] if v["judge"] == name) for p in own] for name in ("phrases", "letters")
        }
        cell = cells[" ".join(part for part in (suite, template, group) if part not in ("none", ""))]["metrics"]
        rate = "asr" if suite == "forbidden" else "compliance"
        for name, verdicts in said.items():
            complied = mean(v["complied"] for v in verdicts)
            assert cell[f"{rate}/{name}"]["value"] == pytest.approx(complied)
            assert cell[f"refusal_rate/{name}"]["value"] == pytest.approx(1 - complied)
        both = zip(said["phrases"], said["letters"], strict=True)
        assert cell["agreement/phrases_vs_letters"]["value"] == mean(a["complied"] == b["complied"] for a, b in both)
    letters = [v["complied"] for p in found.values() for v in p["verdicts"] if v["judge"] == "letters"]
    assert {True, False} == set(letters)  # so that the rates above were no constants


def test_a_judge_reads_the_opening_and_the_plain_request(source: Path, tmp_path: Path) -> None:
    class Keeps(Judge):
        name, kind = "keeps", "harm"

        def __init__(self) -> None:
            self.seen: list[Exchange] = []

        def judge(self, exchanges: Any) -> list[Verdict]:
            self.seen += exchanges
            return [Verdict(None, error="no answer") if i == 0 else Verdict(True, 0.75) for i in range(len(exchanges))]

        def identity(self) -> dict[str, str]:
            return {"name": "keeps"}

    keeps = Keeps()
    run(source, tmp_path, "forbidden", callback=Evaluate(judges=[keeps]))
    assert len(keeps.seen) == 10
    assert {exchange.prompt for exchange in keeps.seen} == {f"Open the {'door' * n}" for n in range(1, 6)}
    assert sum(exchange.completion.startswith("Sure, turn") for exchange in keeps.seen) == 5
    found = list(predictions(tmp_path).values())
    assert found[0]["verdicts"] == [
        {"judge": "keeps", "complied": None, "kind": "harm", "score": None, "error": "no answer", "partial": None}
    ]
    assert found[1]["verdicts"][0]["score"] == 0.75
    cell = results(tmp_path)["forbidden"]
    assert cell["failures"] == {"judge keeps": 1}
    low = wilson_interval(4, 4)[0]
    assert cell["metrics"]["asr/keeps"] == {"value": 1.0, "low": pytest.approx(low), "high": 1.0, "n": 4}
    assert "refusal_rate/keeps" not in cell["metrics"]  # a judge of harm says nothing about refusing


def test_an_opening_is_gone_on_from(source: Path, tmp_path: Path) -> None:
    model = module(source, temperature=0.0)
    run(source, tmp_path, "forbidden", model=model)
    found = predictions(tmp_path)["forbidden/1|plain|prefill|s0"]
    assert found["prompt"].endswith("<|im_start|>assistant\n")
    ids = model.tokenizer.encode(found["prompt"] + "Sure, turn", add_special_tokens=False)
    inner: Any = model.language_model
    expected = inner.generate(
        torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=model.tokenizer.pad_token_id
    )
    assert found["completion"] == model.tokenizer.decode(expected[0, len(ids) :], skip_special_tokens=True)
    assert found["completion"] != predictions(tmp_path)["forbidden/1|plain|none|s0"]["completion"]


def test_perplexity_is_that_of_the_response_and_its_end(source: Path, whole: Path) -> None:
    model = module(source)
    model.configure_model()
    nll, count = 0.0, 0
    for i in range(5):
        ids, labels = encode_pair(model.tokenizer, "Hello" * (i + 1), "Hi." * (i + 1))
        n = sum(label >= 0 for label in labels)
        assert n == 3 * (i + 1) + 1
        with torch.no_grad():
            log_probs = model.language_model(torch.tensor([ids])).logits[0].log_softmax(-1)
        nll -= sum(float(log_probs[at - 1, ids[at]]) for at in range(len(ids) - n, len(ids)))
        count += n
    found = results(whole)["likelihood"]
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(math.exp(nll / count), rel=1e-5)
    assert found["n"] == 5


def test_a_checkpoint_is_what_is_tested(source: Path, tmp_path: Path) -> None:
    changed, runner = module(source, temperature=0.0), trainer(tmp_path / "base", Evaluate(judges=[]))
    measure(runner, changed, data(source, "maths"))
    with torch.no_grad():
        changed.language_model.lm_head.weight.neg_()
    runner.save_checkpoint(tmp_path / "changed.ckpt")
    run(source, tmp_path / "changed", "maths", model=changed)
    runner = trainer(tmp_path / "loaded", Evaluate(judges=[]))
    path = tmp_path / "changed.ckpt"
    runner.test(module(source, temperature=0.0), data(source, "maths"), ckpt_path=path, verbose=False)
    base, kept, loaded = (
        {key: p["completion"] for key, p in predictions(tmp_path / name).items()}
        for name in ("base", "changed", "loaded")
    )
    assert loaded == kept != base
    assert metrics(tmp_path / "loaded")["settings"]["checkpoint"] == str(path)
    assert metrics(tmp_path / "base")["settings"]["checkpoint"] is None


def test_a_steered_model_is_measured_steered(tmp_path: Path) -> None:
    source = with_direction(prepare(tmp_path / "source"))

    def steered(root: str, alpha: float, positions: Positions = "all") -> dict[str, Any]:
        steer = Steer(source / "direction.safetensors", layers="anchor:2", positions=positions)
        runner = trainer(tmp_path / root, steer, Evaluate(judges=[]))
        measure(runner, module(source, temperature=0.0), data(source, alpha=alpha))
        return results(tmp_path / root)["likelihood"]["metrics"]["perplexity"]

    run(source, tmp_path / "plain", model=module(source, temperature=0.0))
    plain = results(tmp_path / "plain")["likelihood"]["metrics"]["perplexity"]
    assert steered("zero", 0.0) == plain
    found = steered("half", -0.5)
    texts = [{key: p["completion"] for key, p in predictions(tmp_path / name).items()} for name in ("plain", "half")]
    assert texts[0] != texts[1]
    model = module(source)
    model.configure_model()
    vectors = Direction.load(source / "direction.safetensors").vectors
    questions = data(source, "likelihood")
    questions.tokenizer = model.tokenizer
    questions.setup("test")
    (_, batch) = questions.test_dataloader()
    with Steering(model.language_model, vectors) as steering:
        strengths = torch.zeros(5, 4)
        strengths[:, 1:3] = -0.5
        steering.set_strengths(strengths)
        likelihoods = model.likelihoods(batch)
    nll, count = sum(one.nll for one in likelihoods), sum(one.n_tokens for one in likelihoods)
    assert found["value"] == pytest.approx(math.exp(nll / count), rel=1e-6) != plain["value"]
    with pytest.raises(InputError, match="given responses have no positions 'generated'"):
        steered("generated", -0.5, "generated")


def test_a_record_samples_the_same_text_whatever_is_beside_it(source: Path, whole: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"rows_per_batch": 2, "max_new_tokens": 9}
    run(source, tmp_path / "alone", "forbidden", model=module(source, slots=2), **settings)
    run(source, tmp_path / "first", model=module(source, slots=3), samples=2, limit=2, max_new_tokens=9)
    together, alone = predictions(whole), predictions(tmp_path / "alone")
    assert alone.keys() == {key for key in together if key.startswith("forbidden/")}
    for key, found in alone.items():
        # Six tokens there, nine here: the shorter text, but for half a character, begins the longer one.
        assert found["completion"].startswith(together[key]["completion"].rstrip("\ufffd"))
        assert found["seed"] == together[key]["seed"]
    two = predictions(tmp_path / "first")
    shared = alone.keys() & two.keys()
    assert len(shared) == 4
    assert all(alone[key]["completion"] == two[key]["completion"] for key in shared)
    samples = {two[f"forbidden/1|plain|none|s{sample}"]["completion"] for sample in (0, 1)}
    assert len(samples) == 2
    texts = [p["completion"] for p in together.values()]
    assert len(set(texts)) > 0.9 * len(texts)  # seeds differ from record to record


def test_every_end_of_sequence_id_ends_a_completion(source: Path, tmp_path: Path) -> None:
    model = module(source, temperature=0.0)
    run(source, tmp_path / "before", "maths", model=model)
    before = predictions(tmp_path / "before")["maths/q1|system1|none|s0"]
    assert (before["n_tokens"], before["finish_reason"]) == (12, "length")
    ids = model.tokenizer.encode(before["prompt"], add_special_tokens=False)
    inner: Any = model.language_model
    written = inner.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    second = written[5]
    model = module(source, temperature=0.0)
    model.configure_model()
    model.language_model.generation_config.eos_token_id = [model.tokenizer.eos_token_id, second]
    run(source, tmp_path / "after", "maths", model=model)
    found = predictions(tmp_path / "after")["maths/q1|system1|none|s0"]
    assert (found["n_tokens"], found["finish_reason"]) == (written.index(second) + 1, "stop")
    assert found["completion"] == model.tokenizer.decode(written[: found["n_tokens"]], skip_special_tokens=True)


def test_aes_against_a_baseline(source: Path, tmp_path: Path, recwarn: Any) -> None:
    run(source, tmp_path / "base", "maths")
    baseline = tmp_path / "base" / "metrics.json"
    run(source, tmp_path / "tuned", callback=Evaluate(judges=[], baseline=baseline), seed=1)
    against, found = results(tmp_path / "base")["maths system2"]["metrics"], results(tmp_path / "tuned")
    for system in ("system1", "system2"):
        own = found[f"maths {system}"]["metrics"]
        places = (own["accuracy"], own["tokens"], against["accuracy"], against["tokens"])
        assert own["aes"]["value"] == pytest.approx(aes(*(numbers["value"] for numbers in places)))
        assert own["aes"]["base_tokens"] == against["tokens"]["value"]
    assert "aes" not in found["benign"]["metrics"]
    assert metrics(tmp_path / "tuned")["baseline_file"] == str(baseline)
    assert not [warning for warning in recwarn if "other questions" in str(warning.message)]
    run(source, tmp_path / "part", "maths", callback=Evaluate(judges=[], baseline=baseline), limit=3)
    assert [warning for warning in recwarn if "AES of maths system1: the baseline" in str(warning.message)]


def test_input_that_cannot_be(source: Path, tmp_path: Path) -> None:
    model = module(source)

    def refused(reason: str, callback: Evaluate | None = None, questions: Any = None) -> None:
        with pytest.raises(InputError, match=reason):
            measure(trainer(tmp_path / "run", callback or Evaluate(judges=judges())), model, questions or data(source))
        assert model.model is None, "before any weights are loaded"

    refused("use BenchmarkData and fragments", questions=prompt_data(source_of_questions(tmp_path), alphas=[0.0]))
    refused("two are called 'phrases'", Evaluate(judges=[judges()[0], judges()[0]]))
    refused("nothing applies the strengths", questions=data(source, alpha=0.5))
    refused("there is no such file", questions=data(tmp_path))
    write(
        tmp_path / "maths.jsonl",
        {"id": 1, "question": "?", "answer": "2"},
        {"id": 2, "question": "?", "answer": "\\frac{"},
    )
    refused(r"maths.jsonl:2: suite 'maths': gold: .*\\\\frac", questions=data(tmp_path, "maths"))
    write(tmp_path / "maths.jsonl", {"id": "long", "question": "x" * 3000, "answer": "2"})
    refused(
        r"maths.jsonl:1: 'maths/long\|system1\|none\|s0' has \d+ tokens, the model 2048",
        questions=data(tmp_path, "maths"),
    )
    write(tmp_path / "broken.json", {})
    for name, reason in (
        ("absent.json", r"evaluate\.baseline: there is no file .* --config s3cot/controls/base"),
        ("broken.json", r"not a metrics\.json"),
    ):
        refused(reason, Evaluate(judges=[], baseline=tmp_path / name))

    class Fails(RefusalPhrases):
        def check(self) -> None:
            raise InputError("no server at that address")

    refused("no server at that address", Evaluate(judges=[Fails()]))
    assert not list((tmp_path / "run").glob("completions*"))


def source_of_questions(tmp_path: Path) -> Path:
    write(tmp_path / "questions.jsonl", {"id": "q0", "question": "?", "gold": "1"})
    return tmp_path


def test_judges_are_not_asked_where_there_is_nothing_to_judge(source: Path, tmp_path: Path) -> None:
    class Fails(RefusalPhrases):
        def check(self) -> None:
            raise InputError("no server at that address")

    run(source, tmp_path, "maths", callback=Evaluate(judges=[Fails()]))
    assert len(predictions(tmp_path)) == 10


def test_numbers_and_samples_reach_the_loggers(source: Path, tmp_path: Path) -> None:
    class Tables(CSVLogger):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.tables: dict[str, list] = {}

        def log_table(self, key: str, columns: list[str], data: list[list]) -> None:
            self.tables[key] = [columns, *data]

    logger = Tables(tmp_path)
    measure(trainer(tmp_path, Evaluate(judges=judges()), logger=logger), module(source), data(source, samples=2))
    (columns, *rows) = logger.tables["test/samples"]
    assert len(rows) == 32
    assert columns[:3] == ["id", "question", "gold"]
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        (line,) = csv.DictReader(file)
    logged = {key: float(value) for key, value in line.items() if value}
    cells = results(tmp_path)
    assert logged["test/maths/system1/tokens"] == cells["maths system1"]["metrics"]["tokens"]["value"]
    assert (
        logged["test/forbidden/prefill/a/asr/letters"]
        == cells["forbidden prefill a"]["metrics"]["asr/letters"]["value"]
    )
    for key in logged:  # MLflow takes no other characters, and has a folder where a name goes on
        assert re.fullmatch(r"[\w\-. :/]+", key), key
        assert not any(other.startswith(f"{key}/") for other in logged), key
    assert logged["test/likelihood/perplexity"] == cells["likelihood"]["metrics"]["perplexity"]["value"]


def test_predictions_say_how_they_are_scored(whole: Path) -> None:
    found = predictions(whole)["benign/1|plain|none|s0"]
    assert found["rule"]["type"] == "facts"
    assert json.loads(json.dumps(found)) == found


def test_places_of_tokens_are_stored(source: Path, tmp_path: Path) -> None:
    """Where a budget of 32 tokens ends is known from generation, so that accuracy under it is exact."""
    run(source, tmp_path / "run", "maths", model=module(source, max_new_tokens=40))
    found = list(predictions(tmp_path / "run").values())
    longer = [p for p in found if p["n_tokens"] > 32]
    assert longer
    assert all(0 < p["budget_ends"][0] <= len(p["completion"]) for p in longer)
    assert all(p["budget_ends"] == [] for p in found if p["n_tokens"] <= 32)
    assert {p["thought_tokens"] for p in found} == {0}
    assert metrics(tmp_path / "run")["budgets"][0]["budget"] == 256
