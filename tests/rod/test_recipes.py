"""Each recipe's commands run on a small random model of its family.

Passed over: ``rod verify``, whose hub id is no folder here, and ``rod filter``, for a random model is never right.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from rod.__main__ import main
from rod.shipped import CONFIGS
from tests.conftest import ROOT
from tests.rod.commands import commands
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

PAGE = ROOT / "docs" / "recipes.md"
WRITTEN = "qwen2_5-7b-instruct"
"""The recipe in the page's commands."""
THINKING = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
RECIPES: dict[str, tuple[type[PreTrainedConfig], str]] = {
    "qwen2_5-7b-instruct": (Qwen2Config, CHAT_TEMPLATE),
    "llama-3_1-8b-instruct": (LlamaConfig, CHAT_TEMPLATE),
    "qwen3-4b-thinking": (Qwen3Config, THINKING),
    "r1-distill-qwen-7b": (Qwen2Config, THINKING),
}
"""Name -> family and chat template."""
TOKENS = "--model.generation.max_new_tokens 4"
SMALL = {
    "1_direction": "--data.limit 2",
    "2_calibrate": f"--data.limit 2 --data.alphas [0.0,-0.1] --data.layer_sets ['anchor:1'] {TOKENS}",
    "3_sample": f"--data.limit 2 {TOKENS}",
    "5_curriculum": f"--data.val_offset 4 --data.val_limit 1 --data.items_per_stage 2 --trainer.max_epochs 2 {TOKENS}"
    " --data.lower_bounds [0.5,0.0] --trainer.log_every_n_steps 1",
    "6_test": "--data.limit 1 --data.samples 1 --data.max_new_tokens 4 --data.folder data",
}
"""Stage -> what makes it short."""


def save_model(folder: Path, kind: type[PreTrainedConfig], template: str) -> None:
    tokenizer = tiny_tokenizer(template)
    sizes: dict[str, object] = {
        "vocab_size": len(tokenizer) + 8,  # the tokenizers of some families add tokens of their own
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(kind.from_dict(sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write(path: str, rows: Iterable[object]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join(map(json.dumps, rows)))


def write_data() -> None:
    """GSM8K in its own form, and what the stages that a random model cannot pass would have written."""
    for split in ("train", "test"):
        write(f"data/gsm8k/{split}.jsonl", ({"question": f"{split} {i}?", "answer": "So 3.\n#### 3"} for i in range(6)))
    short = {"text": r"\boxed{3}", "n_tokens": 9, "alpha": -0.1}
    variants = [short | {"length_ratio": ratio / 20} for ratio in range(1, 20, 2)]
    item = {"gold": "3", "initial": r"It is \boxed{3}", "initial_tokens": 15, "variants": variants}
    write("runs/s3cot/4_filter/items.jsonl", ({"id": str(i), "question": f"train {i}?"} | item for i in range(4)))
    choice = {"data": {"alphas": [0.0, -0.1], "layer_sets": ["anchor:1"]}}
    Path("runs/s3cot/2_calibrate").mkdir(parents=True, exist_ok=True)
    Path("runs/s3cot/2_calibrate/choice.yaml").write_text(yaml.safe_dump(choice))


def commands_of(recipe: str) -> list[list[str]]:
    return [[word.replace(WRITTEN, recipe) for word in words] for words in commands(PAGE)]


def test_every_recipe_is_on_the_page_and_the_page_names_all_of_its_files() -> None:
    assert sorted(path.name for path in (CONFIGS / "recipes").iterdir()) == sorted(RECIPES)
    for recipe in RECIPES:
        assert f"| `recipes/{recipe}` |" in PAGE.read_text()
        named = {word for words in commands_of(recipe) for word in words if word.startswith("recipes/")}
        files = {f"recipes/{recipe}/{file.stem}" for file in (CONFIGS / "recipes" / recipe).iterdir()}
        assert named == files


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_commands_of_a_recipe_run(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", *RECIPES[recipe])
    write_data()
    more = ["--model.backbone", str(tmp_path / "model"), "--trainer.enable_progress_bar", "false"]
    ran = []
    for words in commands_of(recipe):
        stage = words[2].removeprefix("s3cot/")
        if stage in SMALL:
            assert main([*words, *more, *SMALL[stage].split()]) == 0, words
            ran.append(stage)
        elif words[0] == "frontier":
            assert main(words) == 0
            ran.append("frontier")
        if stage == "2_calibrate":
            write_data()  # a random model has no right answers to choose by
    assert ran == [*SMALL, "6_test", "frontier"]
    results = json.loads(Path("runs/s3cot/6_test/tuned/metrics.json").read_text())["results"]
    assert [result["system"] for result in results] == ["system1", "system2"]
