"""Python, YAML and JSON blocks of README and docs: they parse, their imports resolve, and they run on small models."""

import importlib
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from llm_modules.backbone.loading import MINIATURE, load_model, load_tokenizer
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu import MoGUModel, output_projections, random_adapter
from llm_modules.s3cot import Direction
from tests.architectures import ARCHITECTURES
from tests.conftest import ROOT
from tests.llm_modules.mllr.test_search import told_apart

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, text in found]


PYTHON = [(page, place) for page in PAGES for place in range(len(blocks(page, "python")))]


def of_s3cot() -> dict[str, Any]:
    model = load_model("miniature").eval()
    folder = Path("runs/s3cot/1_direction")
    folder.mkdir(parents=True)
    layers, hidden = model.config.num_hidden_layers, model.config.hidden_size
    Direction(vectors=torch.ones(layers, hidden), model="miniature").save(folder / "direction.safetensors")
    return {"model": model, "three_prompts": {"input_ids": torch.tensor([[1, 972, 201]] * 3), "max_new_tokens": 2}}


def of_data() -> dict[str, Any]:
    turns = [{"from": "human", "value": "Who are you?"}, {"from": "gpt", "value": "A small model."}]
    Path("dummy_conversation.jsonl").write_text(json.dumps({"id": "a", "conversations": turns}) + "\n")
    return {}


def of_mllr() -> dict[str, Any]:
    malicious, benign = told_apart()
    ids = {"malicious_ids": malicious, "benign_ids": benign, "families": list(range(24))}
    return {"model": ARCHITECTURES["llama"](), **ids}


def of_mogu() -> dict[str, Any]:
    model = load_model("miniature")
    glad, unwilling = (random_adapter(output_projections(model), r=2, alpha=4, seed=seed) for seed in (0, 1))
    MoGUModel(model, glad, unwilling).save_pretrained(Path("runs/mogu/mogu"), base="miniature")
    return {"prompt_ids": [1, 972, 201]}


def of_safety_watch() -> dict[str, Any]:
    return {"model": load_model("miniature").eval(), "tokenizer": load_tokenizer("miniature")}


def of_add_a_method() -> dict[str, Any]:
    return {"CausalLM": CausalLM, "DistillationBatch": object, "Loss": object}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "add_a_method": of_add_a_method,
    "data": of_data,
    "mllr": of_mllr,
    "mogu": of_mogu,
    "s3cot": of_s3cot,
    "safety_watch": of_safety_watch,
}
"""What the reader of a page has: files in the working directory, and names."""


def test_there_are_blocks() -> None:
    assert len(PYTHON) >= 8


@pytest.mark.parametrize(("page", "place"), PYTHON, ids=lambda one: one if isinstance(one, int) else one.stem)
def test_a_python_block_runs(page: Path, place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks(page, "python")[place].replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(MINIATURE))
    code = code.replace("SearchSettings(tau=0.3)", "SearchSettings(tau=0.3, seeds=[0, 1, 2], check_seeds=[3])")
    code = code.replace('ProxySettings("gaussian")', 'ProxySettings("gaussian", stability=False)')
    names = GIVEN[page.stem]()
    exec(compile(code, f"{page.name}, block {place}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_data_blocks_parse(page: Path) -> None:
    for text in blocks(page, "json"):
        for line in text.splitlines() if "\n{" in text.strip() else [text]:
            json.loads(line)
    for text in blocks(page, "yaml"):
        assert yaml.safe_load(text) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_names_in_texts_exist(page: Path) -> None:
    """Dotted names of ours between backticks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`((?:llm_modules|datamodules|callbacks|rod)(?:\.\w+)+)`", text):
        module, _, last = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), last), name
