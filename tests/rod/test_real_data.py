"""GSM8K through every stage with a real checkpoint, which knows no arithmetic: it is the path that counts."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from rod.__main__ import main
from tests.conftest import ROOT

STAGES = ROOT / "configs" / "s3cot"


def rod(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def qwen_tokens(folder: Path, shared_data: Path) -> Path:
    """A small random Qwen2 with the real tokenizer of Qwen2.5: 151,665 tokens."""
    source = shared_data / "tokenizers" / "qwen2_5"
    folder.mkdir()
    for file in source.iterdir():
        shutil.copyfile(file, folder / file.name)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=AutoTokenizer.from_pretrained(source).eos_token_id,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def solved(gsm8k: Path, out: Path, n: int) -> Path:
    """The two published solutions of each question, with sub-questions and without: chains of two lengths."""
    lines = []
    plain, socratic = (
        [json.loads(line) for line in (gsm8k / name).read_text().splitlines()[:n]]
        for name in ("test.jsonl", "test_socratic.jsonl")
    )
    for number, (short, long) in enumerate(zip(plain, socratic, strict=True)):
        for style, row in (("long", long), ("short", short)):
            gold = row["answer"].rpartition("#### ")[2]
            record = {"question": row["question"], "id": f"q{number}", "style": style, "gold": gold}
            lines.append(json.dumps(record | {"responses": [row["answer"]]}))
    out.write_text("\n".join(lines))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stories260K", "qwen_tokens"])
def test_gsm8k_goes_through_every_stage(
    kind: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gsm8k = shared_data / "gsm8k"
    monkeypatch.chdir(tmp_path)
    model = shared_data / "models/stories260K" if kind == "stories260K" else qwen_tokens(tmp_path / "qwen", shared_data)
    template = ["--data.chat_template", "plain"] if kind == "stories260K" else []
    common = ["--model.backbone", model, "--trainer.enable_progress_bar", "false", *template]
    short = ["--model.generation.max_new_tokens", 8]

    contrast = STAGES / "real/gsm8k_contrast.yaml"
    questions = ["--data.questions", gsm8k / "train.jsonl", "--data.limit", 3]
    rod("predict", "--config", STAGES / "1_direction.yaml", "--config", contrast, *common, *questions)
    vectors = load_file("runs/s3cot/1_direction/direction.safetensors").values()
    assert all(torch.isfinite(vector).all() and vector.any() for vector in vectors)

    prompts = ["--config", STAGES / "real/gsm8k.yaml", *common, *questions, *short]
    grid = ["--data.alphas", "[0,-0.5]", "--data.layer_sets", '["0-1"]']
    rod("predict", "--config", STAGES / "3_sample.yaml", *prompts, *grid)
    traces = [json.loads(line) for line in Path("runs/s3cot/3_sample/traces/traces.jsonl").read_text().splitlines()]
    assert sorted(trace["alpha"] for trace in traces) == [-0.5] * 3 + [0.0] * 3
    assert traces[0]["gold"] == "72"
    # Nothing that a model of children's stories says is right, and the filter says so.
    filtered = ["--traces", "runs/s3cot/3_sample/traces/traces.jsonl", "--by", "gold"]
    assert main(["filter", *filtered, "--output", "items_none.jsonl"]) == 2

    pairs = solved(gsm8k, tmp_path / "solved.jsonl", 24)
    fields = json.dumps({"question_id": "id"})
    boxed = ["--append_boxed", r"[#]+ (.+)"]
    rod(
        "import-traces", "--responses", pairs, "--output", "traces.jsonl", "--tokenizer", model,
        "--alphas", '{"long": 0.0, "short": -0.1}', "--fields", fields, *boxed,
    )  # fmt: skip
    rod("filter", "--traces", "traces.jsonl", "--by", "gold", "--output", "runs/s3cot/4_filter/items.jsonl")

    curriculum = ["--config", STAGES / "real/gsm8k_curriculum.yaml", *common, *short]
    curriculum += ["--data.val_questions", gsm8k / "train.jsonl", "--data.val_limit", 2]
    curriculum += ["--data.items_per_stage", 2, "--data.lower_bounds", "[0.5,0.0]"]
    curriculum += ["--trainer.max_epochs", 2, "--data.max_length", 2000, "--trainer.log_every_n_steps", 1]
    rod("fit", "--config", STAGES / "5_curriculum.yaml", *curriculum)
    best = Path("runs/s3cot/5_curriculum/tuned/checkpoints/best.ckpt")
    assert best.is_file()

    test = ["--config", STAGES / "real/gsm8k_test.yaml", *common, *short, "--data.folder", shared_data]
    test += ["--data.samples", 2, "--data.limit", 3]
    test += ["--data.max_new_tokens", 8]
    rod("test", "--config", STAGES / "6_test.yaml", "--config", STAGES / "controls/base.yaml", *test)
    rod("test", "--config", STAGES / "6_test.yaml", *test, "--ckpt_path", best)
    measured = json.loads(Path("runs/s3cot/6_test/tuned/metrics.json").read_text())["results"]
    assert [result["system"] for result in measured] == ["system1", "system2"]
    assert measured[0]["n"] == 6
    assert "base_tokens" in measured[0]["metrics"]["aes"]
    rod("compare", "runs/s3cot/6_test/base", "runs/s3cot/6_test/tuned")
    with next(Path("runs/s3cot/5_curriculum/tuned/logs").rglob("metrics.csv")).open() as file:
        assert any(row.get("val/system1_tokens") for row in csv.DictReader(file))
