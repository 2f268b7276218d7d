import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX
from datamodules.s3cot.curriculum_data import CurriculumData
from tests.datamodules.training.test_supervised import TinyModel, make_trainer
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
RESPONSE = "<|im_start|>assistant\n"


def sentence(n_words: int, rng: random.Random) -> str:
    return " ".join(rng.choice(["one", "two", "six", "ten"]) for _ in range(n_words)) + " \\boxed{3}"


def make_item(index: int) -> dict:
    rng = random.Random(index)
    initial = sentence(20, rng)
    texts = [sentence(n, rng) for n in (2, 8, 13, 17, 19)]
    return {
        "id": f"q{index}",
        "question": f"What is {index} + 3 - {index}?",
        "gold": "3",
        "initial": initial,
        "initial_tokens": len(initial),
        "variants": [
            {"text": t, "n_tokens": len(t), "alpha": -0.1 * (5 - i), "length_ratio": len(t) / len(initial)}
            for i, t in enumerate(texts)
        ],
    }


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def items(tmp_path) -> Path:
    return write(tmp_path / "items.jsonl", [make_item(i) for i in range(30)])


def ready(items: Path, **kwargs) -> CurriculumData:
    data = CurriculumData(items, **kwargs)
    data.tokenizer = TOKENIZER
    data.setup("fit")
    return data


def split(example) -> tuple[str, str]:
    """Prompt and what is learnt, as text."""
    prompt = [i for i, label in zip(example.input_ids, example.labels, strict=True) if label == IGNORE_INDEX]
    target = [label for label in example.labels if label != IGNORE_INDEX]
    assert list(example.input_ids) == prompt + target
    return str(TOKENIZER.decode(prompt)), str(TOKENIZER.decode(target))


def test_each_pair_teaches_both_systems_and_nothing_of_the_prompt(items):
    data = ready(items, items_per_stage=12)
    records = {r["question"]: r for r in (json.loads(line) for line in items.read_text().splitlines())}
    for stage in range(10):
        examples = data.train_examples(stage)
        assert len(examples) == 24
        for example, suffix in zip(examples, [SYSTEM1_SUFFIX, SYSTEM2_SUFFIX] * 12, strict=True):
            prompt, target = split(example)
            assert prompt.startswith("<|im_start|>user\n")
            assert prompt.endswith(f"{suffix}<|im_end|>\n{RESPONSE}")
            record = records[prompt.removeprefix("<|im_start|>user\n").split(suffix)[0]]
            if suffix is SYSTEM2_SUFFIX:
                assert target == record["initial"] + "<|im_end|>"
            else:
                ratio = {v["text"] + "<|im_end|>": v["length_ratio"] for v in record["variants"]}[target]
                assert data.lower_bounds[stage] <= ratio <= 1


def test_a_question_is_learnt_after_the_turns_before_it(tmp_path):
    earlier = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    path = write(tmp_path / "items.jsonl", [make_item(i) | {"earlier": earlier} for i in range(3)])
    for example in ready(path, items_per_stage=2).train_examples(9):
        prompt, _ = split(example)
        assert prompt.startswith(
            "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nW"
        )


def test_controls_train_on_what_their_names_say_for_as_many_steps(items):
    steps = {}
    for selection in ("curriculum", "all_at_once", "shortest_only", "verbose_only"):
        data = ready(items, selection=selection, batch_size=4)
        steps[selection] = [len(data.train_dataloader()) for _ in range(2)]
        targets = [split(e)[1] for e in data.train_examples(0)]
        one, two = targets[::2], targets[1::2]
        if selection == "shortest_only":
            shortest = {min((v["text"] for v in make_item(i)["variants"]), key=len) + "<|im_end|>" for i in range(30)}
            assert set(one) == shortest
        if selection == "verbose_only":
            assert one == two
        assert set(two) <= {make_item(i)["initial"] + "<|im_end|>" for i in range(30)}
    assert set(map(tuple, steps.values())) == {(15, 15)}


def test_system2_may_learn_from_all_items_whatever_their_length_ratios(tmp_path):
    """Initial traces with a variant of some ratio are not like the others: here only two items are in stage 0."""
    records = [make_item(i) for i in range(12)]
    for index, record in enumerate(records):
        low, high = (0.9, 1.0) if index < 2 else (0.0, 0.5)
        record["variants"] = [v | {"length_ratio": low + (high - low) * v["length_ratio"]} for v in record["variants"]]
    path = write(tmp_path / "items.jsonl", records)
    learnt = {}
    for choice in ("drawn", "all"):
        data = ready(path, system2_items=choice)
        learnt[choice] = [{split(e)[1] for e in data.train_examples(stage)[1::2]} for stage in (0, 1)]
        assert len(data.train_examples(0)) == 24
        assert data.stage_table[0].system2_tokens > 0
    initials = {record["initial"] + "<|im_end|>" for record in records}
    assert learnt["drawn"][0] == {record["initial"] + "<|im_end|>" for record in records[:2]}
    assert learnt["all"] == [initials, initials]


def test_same_seed_same_examples(items):
    a, b, c = ready(items), ready(items), ready(items, seed=1)
    assert [a.train_examples(s) for s in range(10)] == [b.train_examples(s) for s in range(10)]
    assert a.train_examples(3) != c.train_examples(3)
    assert a.train_examples(3) == a.train_examples(3)


def test_two_processes_see_disjoint_halves(items):
    data = ready(items, batch_size=4)
    halves = []
    for rank in (0, 1):
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(distributed_sampler_kwargs={"rank": rank, "num_replicas": 2}),
            current_epoch=0,
            max_epochs=10,
            reload_dataloaders_every_n_epochs=1,
        )
        halves.append(data.train_dataloader().batches)
    assert [len(half) for half in halves] == [8, 8]
    assert sorted(i for half in halves for batch in half for i in batch) == list(range(60))


def test_stage_table_counts_what_is_drawn(items):
    data = ready(items, items_per_stage=20)
    assert [row.stage for row in data.stage_table] == list(range(10))
    for row in data.stage_table:
        examples = data.train_examples(row.stage)
        learnt = [sum(label != IGNORE_INDEX for label in e.labels) - 1 for e in examples]
        assert row.system1_tokens == sum(learnt[::2])
        assert row.system2_tokens == sum(learnt[1::2])
        assert row.pairs == sum(row.drawn) == 20
        assert row.distinct <= sum(row.available)
    ratios = [row.length_ratio for row in data.stage_table]
    assert ratios[0] > 0.9
    assert ratios[5] < 0.8
    assert ratios[-1] < 0.65


def test_stages_follow_the_epochs_of_one_fit(items, tmp_path):
    class Model(TinyModel):
        tokenizer = TOKENIZER

    model = Model(vocabulary=len(TOKENIZER))
    data = CurriculumData(items, lower_bounds=[0.8, 0.4, 0.0], batch_size=4)
    make_trainer(tmp_path, max_epochs=3).fit(model, datamodule=data)
    assert [epoch for epoch, _, _ in model.seen] == [0] * 15 + [1] * 15 + [2] * 15
    for stage in range(3):
        tokens = sum(len(e.input_ids) for e in data.train_examples(stage))
        assert tokens == sum(i != TOKENIZER.pad_token_id for e, _, ids in model.seen if e == stage for i in ids)
    assert data.stage == 3, "after the last stage"


def test_number_of_epochs_must_be_that_of_stages(items, tmp_path):
    class Model(TinyModel):
        tokenizer = TOKENIZER

    with pytest.raises(InputError, match=r"data\.lower_bounds has 10 stages.*trainer\.max_epochs is 3: set .*: 10"):
        make_trainer(tmp_path, max_epochs=3).fit(Model(), datamodule=CurriculumData(items))


def test_validation_asks_both_systems_and_leaves_out_what_is_trained_on(items, tmp_path):
    asked = [{"id": f"v{i}", "question": f"What is {i} - 1?", "gold": str(i - 1)} for i in range(5)]
    trained = {"id": "v9", "question": "What is 7 + 3 - 7?", "gold": "3"}
    questions = write(tmp_path / "dev.jsonl", [*asked, trained])
    with pytest.warns(UserWarning, match="left out 1 of 6 questions"):
        data = ready(items, val_questions=questions)
    rows = [row for batch in data.val_dataloader() for row in batch.rows]
    assert sorted((row.question.id, row.system) for row in rows) == [
        (f"v{i}", system) for i in range(5) for system in ("system1", "system2")
    ]
    assert rows[0].prompt.endswith(f"<|im_end|>\n{RESPONSE}")
    with pytest.raises(InputError, match="all of its questions are trained on"):
        ready(items, val_questions=write(tmp_path / "bad.jsonl", [trained]))
    assert ready(items).val_dataloader() == []


def test_strict_holds_for_the_questions_too(items, tmp_path):
    questions = write(tmp_path / "dev.jsonl", [{"id": "v", "question": "1 - 1?", "gold": "0"}, {"id": "w"}])
    ready(items, val_questions=questions)
    with pytest.raises(InputError, match=r"dev\.jsonl: 1 of 2 lines are bad"):
        ready(items, val_questions=questions, strict=True)


def test_empty_stage_is_found_before_training(tmp_path):
    records = [make_item(i) | {"variants": make_item(i)["variants"][:2]} for i in range(5)]
    with pytest.raises(InputError, match=r"stage 0 has no variant .* begin data\.lower_bounds at 0\.4"):
        ready(write(tmp_path / "items.jsonl", records))


def test_items_too_long_or_never_shorter_are_left_out_whole(tmp_path):
    longer = make_item(1)
    longer["variants"] = [v | {"length_ratio": 1.2} for v in longer["variants"]]
    huge = make_item(2) | {"initial": "word " * 400, "initial_tokens": 2000}
    path = write(tmp_path / "items.jsonl", [make_item(0), longer, huge])
    with pytest.warns(UserWarning, match=r"left out 2 of 3 items \(1 without a variant.*, 1 longer than 500 tokens"):
        data = ready(path, max_length=500)
    assert [item.id for item in data.items] == ["q0"]
    assert data.n_dropped == {"items": 2}
    with pytest.raises(InputError, match="none of 3 items can be trained on"):
        ready(path, max_length=50)
    with pytest.raises(InputError, match="items_per_stage"):
        CurriculumData(path, items_per_stage=0)


@pytest.fixture(scope="module")
def gpt_items(shared_data, tmp_path_factory) -> Path:
    """Items of published traces: per problem, the longest verbose answer and all the others as its variants."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2_5")
    problems: dict[str, list[str]] = {}
    for line in (shared_data / "concise_cot_gpt" / "sat-math-100.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["model"] == "gpt-4":
            problems.setdefault(record["problem"], []).extend(record["responses"])
    records = []
    for index, (problem, texts) in enumerate(problems.items()):
        counted = sorted(((len(tokenizer.encode(text)), text) for text in texts), reverse=True)
        (initial_tokens, initial), *rest = counted
        variants = [{"text": t, "n_tokens": n, "alpha": -0.1, "length_ratio": n / initial_tokens} for n, t in rest]
        record = {"id": str(index), "question": problem, "gold": None, "initial": initial}
        records.append(record | {"initial_tokens": initial_tokens, "variants": variants})
    return write(tmp_path_factory.mktemp("gpt") / "items.jsonl", records)


def test_published_traces_with_a_real_tokenizer(gpt_items, shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2_5")
    data = CurriculumData(gpt_items, lower_bounds=[0.8, 0.4, 0.0], max_tokens=2048)
    data.tokenizer = tokenizer
    data.setup("fit")
    for row in data.stage_table:
        counts = [n for n in row.drawn if n]
        assert row.pairs == len(data.items)
        assert max(counts) - min(counts) <= 1
    examples = data.train_examples(2)
    for pair, one, two in zip(data.stages[2].pairs, examples[::2], examples[1::2], strict=True):
        item = data.items[pair.item]
        for example, text in ((one, item.variants[pair.variant].text), (two, item.initial)):
            target = tokenizer.decode([label for label in example.labels if label != IGNORE_INDEX])
            assert target == text + "<|im_end|>"
    batches = list(data.train_dataloader())
    assert max(b.input_ids.numel() for b in batches) <= 2048
    assert sum(int(b.attention_mask.sum()) for b in batches) > 0.9 * sum(b.input_ids.numel() for b in batches)
