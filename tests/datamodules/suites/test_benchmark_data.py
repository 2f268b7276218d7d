import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from datamodules.batch import IGNORE_INDEX, PromptBatch, PromptRow, ResponseBatch
from datamodules.errors import InputError
from datamodules.suites.benchmark_data import BenchmarkData
from datamodules.suites.sources import LocalFile, Source
from datamodules.suites.suite import Suite
from tests.conftest import ROOT
from tests.tiny import tiny_tokenizer

SUITES = ROOT / "configs" / "suites"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sets")
    for name, n in (("maths", 10), ("requests", 4), ("replies", 40)):
        lines = [{"id": f"r{i}", "question": f"{name} {i}?", "answer": i, "reply": "Hi." * (i + 1)} for i in range(n)]
        (made / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return made


def suite(name: str, **settings: Any) -> Suite:
    kinds: dict[str, dict[str, Any]] = {
        "maths": {"kind": "answers", "gold": "answer", "systems": ("system1", "system2")},
        "requests": {"kind": "safety", "response": "reply"},
        "replies": {"kind": "perplexity", "response": "reply"},
    }
    return Suite(name, source=Source(local=LocalFile(f"{name}.jsonl")), **({"id": "id"} | kinds[name] | settings))


def data(folder: Path, *suites: Suite, **settings: Any) -> BenchmarkData:
    made = BenchmarkData(list(suites), folder=str(folder), **settings)
    made.tokenizer = tiny_tokenizer()
    made.setup("test")
    return made


def asked(made: BenchmarkData) -> list[str]:
    return list(dict.fromkeys(row.question.id for row in made.rows))


def text(made: BenchmarkData, token_ids: Sequence[int]) -> str:
    assert made.tokenizer is not None
    return str(made.tokenizer.decode(list(token_ids)))


def test_rows_of_all_suites(folder: Path) -> None:
    made = data(folder, suite("maths"), suite("requests"), attack_templates=["none", "prefill", "base64"], samples=2)
    assert len(made.rows) == 10 * 2 * 2 + 4 * 3 * 2
    assert len({row.id for row in made.rows}) == len(made.rows)
    row = next(row for row in made.rows if row.id == "maths/r3|system2|none|s1")
    assert (row.question.id, row.question.gold, row.suite, row.attack_template, row.sample) == (
        "maths/r3",
        "3",
        "maths",
        "none",
        1,
    )
    assert "maths 3? Please reason step by step" in row.prompt
    # Attacks are for requests that should be refused.
    assert {row.attack_template for row in made.rows if row.suite == "maths"} == {"none"}
    assert made.items["requests/r2"].where == f"{folder}/requests.jsonl:3"


def test_an_opening_is_part_of_what_the_model_reads(folder: Path) -> None:
    made = data(folder, suite("requests"), attack_templates=["none", "prefill"])
    plain, begun = (next(row for row in made.rows if row.attack_template == name) for name in ("none", "prefill"))
    assert begun.prompt == plain.prompt
    assert begun.prefill == "Hi."
    assert text(made, begun.token_ids) == plain.prompt + "Hi."


def test_a_suite_s_own_attack_templates_come_before_those_of_the_run(folder: Path) -> None:
    made = data(folder, suite("requests", attack_templates=("role_play",)), attack_templates=["none", "base64"])
    assert {row.attack_template for row in made.rows} == {"role_play"}
    made = data(folder, suite("requests", kind="benign"), attack_templates=["none", "base64"])
    assert {row.attack_template for row in made.rows} == {"none"}


def test_seeds_depend_on_the_record_and_the_sample_alone(folder: Path) -> None:
    def seeds(made: BenchmarkData) -> dict[str, int]:
        return {row.id: row.seed for row in made.rows}

    alone = seeds(data(folder, suite("requests")))
    among = seeds(
        data(
            folder, suite("maths"), suite("requests"), attack_templates=["base64", "none"], samples=3, rows_per_batch=2
        )
    )
    assert alone.items() <= among.items()
    assert seeds(data(folder, suite("requests"), seed=1)).items().isdisjoint(alone.items())
    # A record's samples differ; its systems and attack templates share common random numbers.
    by_record: dict[tuple[str, str], set[int]] = {}
    for identifier, seed in among.items():
        by_record.setdefault((identifier.split("|")[0], identifier[-2:]), set()).add(seed)
    assert all(len(seeds) == 1 for seeds in by_record.values())
    assert len(set.union(*by_record.values())) == len(by_record) == 14 * 3


def test_part_of_a_set(folder: Path) -> None:
    def ids(limit: int | None = None, **settings: Any) -> list[int]:
        return [int(name.rpartition("r")[2]) for name in asked(data(folder, suite("maths", **settings), limit=limit))]

    assert ids() == list(range(10))
    assert ids(offset=7) == [7, 8, 9]
    assert ids(offset=2, limit=3) == [2, 3, 4]
    drawn = ids(shuffle=0)
    assert sorted(drawn) == list(range(10)) != drawn
    assert ids(shuffle=0) == drawn
    assert ids(shuffle=1) != drawn
    assert sorted(ids(shuffle=0, offset=6)) == [6, 7, 8, 9]
    part = asked(data(folder, suite("maths", shuffle=0, limit=6), limit=4))
    assert part == asked(data(folder, suite("maths", shuffle=0, limit=4)))  # a quick look is the beginning of the whole
    assert len(asked(data(folder, suite("maths", limit=2), limit=5))) == 2
    with pytest.raises(InputError, match="suite 'maths': no record is left after offset 10"):
        ids(offset=10)


def test_another_split_of_every_set() -> None:
    """What settings are chosen on, without a second file for each suite."""

    def requests(split: str | None) -> set[str]:
        made = BenchmarkData(
            [Suite("forbidden", "safety", Source("miniature", ("forbidden",)), question="request", id="id")],
            split=split,
        )
        made.tokenizer = tiny_tokenizer()
        made.setup("test")
        return {row.question.question for row in made.rows}

    assert requests(None) == requests("test")
    assert requests("dev")
    assert requests("dev").isdisjoint(requests("test"))


def test_a_local_file_has_no_other_split(folder: Path) -> None:
    reason = r"data\.split: suite 'maths' is read from the file .*maths\.jsonl, which has no splits; leave"
    with pytest.raises(InputError, match=reason):
        data(folder, suite("maths"), split="dev")


def test_budgets_of_a_completion(folder: Path) -> None:
    suites = (suite("maths", max_new_tokens=7), suite("requests"))
    assert {row.max_new_tokens for row in data(folder, *suites).rows} == {7, None}
    assert {row.max_new_tokens for row in data(folder, *suites, max_new_tokens=3).rows} == {3}


def test_a_system_prompt_and_a_template(folder: Path) -> None:
    made = data(folder, suite("requests"), suite("replies"), system_prompt="Be kind.", chat_template="plain")
    assert made.rows[0].prompt == "Be kind.\n\nrequests 0?\n\n"
    assert text(made, made.responses[0].example.input_ids) == "Be kind.\n\nreplies 0?\n\nHi.<|im_end|>"


def test_responses_to_score(folder: Path) -> None:
    made = data(folder, suite("replies"))
    assert made.rows == []
    assert len(made.responses) == 40
    first = made.responses[2].example
    scored = [i for i, label in zip(first.input_ids, first.labels, strict=True) if label != IGNORE_INDEX]
    assert text(made, scored) == "Hi.Hi.Hi.<|im_end|>"
    assert text(made, first.input_ids).startswith("<|im_start|>user\nreplies 2?")


def batches(made: BenchmarkData, rank: int = 0, world_size: int = 1) -> list[Any]:
    """What one of several processes gets."""
    strategy = SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": world_size})
    trainer: Any = SimpleNamespace(strategy=strategy)
    made.trainer = trainer
    return list(made.test_dataloader())


def test_every_process_has_as_many_batches_and_everything_is_there(folder: Path) -> None:
    made = data(folder, suite("maths", systems=("plain",)), suite("replies"), rows_per_batch=4)
    shares = [batches(made, rank, 2) for rank in (0, 1)]
    assert [[type(batch) for batch in share] for share in shares] == [[PromptBatch] * 2 + [ResponseBatch] * 2] * 2
    rows = [row.id for share in shares for batch in share[:2] for row in batch.rows]
    assert sorted(rows) == sorted(row.id for row in made.rows)
    responses = [name for share in shares for batch in share[2:] for name in batch.ids]
    assert set(responses) == {response.id for response in made.responses}
    assert len(responses) == 16 + 16 + 8 + 8  # three batches, the last one on both


def test_responses_stay_together_whatever_is_done_and_however_many_processes(folder: Path) -> None:
    made = data(folder, suite("replies"))

    def together(*shares: list[Any]) -> set[tuple[str, ...]]:
        return {batch.ids for share in shares for batch in share if isinstance(batch, ResponseBatch)}

    whole = together(batches(made))
    assert len(whole) == 3
    assert together(*(batches(made, rank, 2) for rank in (0, 1))) == whole
    first, *_ = whole
    made.skip({*first, next(iter(whole - {first}))[0]})
    assert together(batches(made)) == whole - {first}  # one that is done in part is done again as a whole
    made.skip({name for names in whole for name in names})
    assert together(batches(made)) == set()


def test_padded_responses_have_the_lengths_of_their_batch(folder: Path) -> None:
    (_, *scored) = batches(data(folder, suite("replies")))
    widths = [batch.batch.input_ids.shape[1] for batch in scored]
    assert widths == sorted(widths, reverse=True)
    moved = scored[0].to("cpu")
    assert moved.ids == scored[0].ids
    assert torch.equal(moved.batch.labels, scored[0].batch.labels)


def test_setup_twice_reads_once(folder: Path) -> None:
    made = data(folder, suite("maths"), suite("replies"))
    before = list(made.rows)
    made.setup("test")
    assert (made.rows, len(made.responses)) == (before, 40)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"suites": []}, r"data\.suites: no suite is given; add a fragment"),
        ({"limit": 0}, r"data\.limit: must be 1 or more, is 0"),
        ({"samples": 0}, r"data\.samples: must be 1 or more, is 0"),
        ({"max_new_tokens": 0}, r"data\.max_new_tokens: must be 1 or more, is 0"),
        ({"attack_templates": ["none", "none"]}, r"data\.attack_templates: none, none: name each once"),
        ({"rows_per_batch": 0}, r"data\.rows_per_batch: must be 1 or more"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        BenchmarkData(**({"suites": [suite("maths")]} | settings))
    with pytest.raises(InputError, match=r"data\.suites: two suites are called 'maths'; leave one fragment out"):
        BenchmarkData([suite("maths"), suite("maths")])


def shipped(name: str, **settings: Any) -> BenchmarkData:
    """The data that a fragment describes, as the command reads it."""
    given = yaml.safe_load((SUITES / name).read_text())["data"]["init_args"]
    parser = ArgumentParser()
    parser.add_class_arguments(BenchmarkData, "data")
    config = parser.parse_object({"data": {"suites": given.get("suites+", []), **settings}})
    made = parser.instantiate_classes(config).data
    made.tokenizer = tiny_tokenizer()
    return made


SIZES = {
    "advbench-220.yaml": {"advbench-220": 220},
    "advbench.yaml": {"advbench": 520},
    "aime24.yaml": {"aime24": 30},
    "amc23.yaml": {"amc23": 40},
    "aqua.yaml": {"aqua": 254},
    "gsm8k.yaml": {"gsm8k": 1319},
    "harmbench.yaml": {"harmbench": 320},
    "jailbreakbench.yaml": {"jailbreakbench": 100},
    "just_eval.yaml": {"just_eval": 800},
    "malicious_instruct.yaml": {"malicious_instruct": 100},
    "math500.yaml": {"math500": 500},
    "maths-200.yaml": {"gsm8k-200": 200, "math500-200": 200, "amc23-200": 40, "aime24-200": 30},
    "medmcqa.yaml": {"medmcqa": 4183},
    "medqa.yaml": {"medqa": 1273},
    "mmlu_medical.yaml": {"mmlu_medical": 1561},
    "mt_bench.yaml": {"mt_bench": 80},
    "multiarith.yaml": {"multiarith": 600},
    "perplexity.yaml": {"perplexity": 500},
    "pubmedqa.yaml": {"pubmedqa": 1000},
    "sap30.yaml": {"sap30": 210},
    "simple_safety_tests.yaml": {"simple_safety_tests": 100},
    "strongreject.yaml": {"strongreject": 313},
    "svamp.yaml": {"svamp": 1000},
    "xstest.yaml": {"xstest-safe": 250, "xstest-unsafe": 200},
}
"""Records of the local files of every shipped suite."""
WITHOUT_FILES = {"miniature.yaml", "attack_templates.yaml"}


def test_no_fragment_is_forgotten() -> None:
    assert {path.name for path in SUITES.glob("*.yaml")} == {*SIZES, *WITHOUT_FILES}


@pytest.mark.parametrize("name", SIZES)
def test_shipped_suites_read_all_their_records(name: str, shared_data: Path) -> None:
    made = shipped(name, folder=str(shared_data))
    made.setup("test")
    found: dict[str, int] = {}
    for key, item in made.items.items():
        found[key.split("/")[0]] = found.get(key.split("/")[0], 0) + 1
        kind = made.suites[key.split("/")[0]].kind
        assert (item.gold is not None) == (kind == "answers")
        assert bool(item.response) == (kind == "perplexity" or "advbench" in key or "jailbreakbench" in key)
    assert found == SIZES[name]
    assert len({row.id for row in made.rows}) == len(made.rows)


def test_shipped_suites_put_their_records_well(shared_data: Path) -> None:
    def first(name: str) -> PromptRow:
        made = shipped(name, folder=str(shared_data), limit=1)
        made.setup("test")
        return made.rows[0]

    assert first("gsm8k.yaml").question.gold == "18"
    assert first("svamp.yaml").question.question.count("  ") == 0
    assert first("aqua.yaml").prompt.count("\nA. ") == 1
    assert "A)" not in first("aqua.yaml").prompt
    assert first("medmcqa.yaml").question.gold in list("ABCD")
    assert "Answer with yes, no or maybe. Please reason step by step" in first("pubmedqa.yaml").prompt
    assert first("sap30.yaml").question.question[0] != "{"
    assert first("advbench-220.yaml").question.id == "advbench-220/301"


def test_the_miniature_s_suites_need_no_file() -> None:
    made = shipped("miniature.yaml", limit=4)
    made.setup("test")
    assert {suite.kind for suite in made.suites.values()} == {"answers", "safety", "benign", "perplexity"}
    assert {key.split("/")[0] for key in made.items} == made.suites.keys()
    begun = next(row for row in made.rows if row.attack_template == "prefill")
    assert begun.prefill
    assert made.items[begun.question.id].gold  # what an answer that goes along holds


def test_shards_have_the_records_of_every_suite_each_once(folder: Path) -> None:
    whole = data(folder, suite("maths"), suite("requests"))
    parts = [data(folder, suite("maths"), suite("requests"), shard=f"{number}/2") for number in (1, 2)]
    assert sorted(row.id for part in parts for row in part.rows) == sorted(row.id for row in whole.rows)
    assert {len(part.items_of(part.suites["maths"])) for part in parts} == {5}
