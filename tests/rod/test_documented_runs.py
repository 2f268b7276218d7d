"""The commands of README and docs run, page after page in one folder, with fewer questions and steps.

The miniature stands in for models of a hub, a few lines of their form for published data. What runs elsewhere is in
`ELSEWHERE` and `NOT_HERE`, with the reason.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from llm_modules.backbone.loading import MINIATURE
from rod.__main__ import main
from tests.conftest import ROOT
from tests.rod.commands import commands
from tests.rod.test_tutorials import FEWER

PAGES = [
    "README",
    "docs/crisp",
    "docs/s3cot",
    "docs/safety_watch",
    "docs/mogu",
    "docs/models",
    "docs/data",
    "docs/scale",
    "docs/evaluation",
    "docs/report",
    "docs/index",
]
"""In this order: a page may use what one before it wrote."""
ELSEWHERE = {
    "docs/engines": "tests/llm_modules/generation: vLLM needs an environment or a server of its own",
    "docs/judges": "tests/llm_modules/judges: a server, a judge of billions of parameters, published labels",
    "docs/long_runs": "tests/rod/test_recovery.py",
    "docs/play": "tests/rod/play: pages are driven in a browser",
    "docs/recipes": "tests/rod/test_recipes.py",
    "docs/together": "tests/rod/evidence/test_real_runs.py",
}
"""Page -> the tests that run its commands."""
NOT_HERE = {
    "predict --config mogu/0_answers --config mogu/real/near_twins": "questions of this repository's folder",
    "evidence --methods mogu": "tests/rod/evidence",
    "fit --config mogu/1_glad --config runs/mogu/v2/probe/responders.yaml ...": "abridged; tests/rod/test_mogu.py",
    "fit --config mogu/3_router --config runs/mogu/v2/probe/routers.yaml": "tests/rod/test_mogu.py",
    "pairs --config mogu/pairs --answers [answers/traces/traces.jsonl": "abridged; tests/rod/verbs/test_pairs.py",
}
"""Beginning of a command -> why it is passed over."""
STAND_INS = {
    "Qwen/Qwen2.5-7B-Instruct": "miniature",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "miniature",
    "models/base": "miniature",
    "MODEL": "miniature",
    "gpt2": str(MINIATURE),
    "OTHER.jsonl": "other.jsonl",
    "FIELD": "goal",
    "120": "2",
}
REPLACED = {"fit", "frontier", "pairs", "predict", "report", "score", "test"}
"""Verbs that replace what pages before wrote."""
COPIES = {
    "runs/sample_*": ("runs/sample_0", "runs/s3cot/3_sample"),
    "runs/test_*": ("runs/test_0", "runs/qwen"),
    "runs/gpt3/*": ("runs/gpt3/175b_finetuning", "runs/gpt3/6b"),
}
"""Runs that a page speaks of -> one of them, and one like it."""
SMALL = FEWER | {
    "s3cot/1_direction": "",
    "suites/miniature": "--data.limit 2",
    "suites/advbench": "--data.folder data --data.max_new_tokens 8",
    "suites/xstest": "--data.folder data --data.max_new_tokens 8",
    "s3cot/real/gsm8k_contrast": "--data.limit 3 --trainer.default_root_dir runs/qwen_direction",
    "s3cot/real/gsm8k_curriculum": "--data.val_offset 4 --data.val_limit 2 --data.items_per_stage 4"
    " --trainer.max_epochs 1 --data.lower_bounds [0.0] --trainer.log_every_n_steps 1"
    " --trainer.default_root_dir runs/qwen_curriculum",
    "crisp/1_distill": "--data.limit 8 --data.val_limit 2 --trainer.max_epochs 1 --trainer.log_every_n_steps 1"
    " --model.generation.max_new_tokens 16",
    "mogu/real/alpaca": "--data.limit 4",
    "mogu/real/dolly": "--data.limit 4",
    "mogu/real/rejections": "--data.limit 4",
    "mogu/real/advbench": "--n_train 8 --n_val 2",
    "mogu/real/router": "--trainer.max_epochs 1",
}
"""Configuration -> what makes it short; the last one of a command counts."""


def write(path: str, rows: Iterable[object]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join(map(json.dumps, rows)))


def write_readers_files() -> None:
    """Data of the form that the pages speak of."""
    solved = "2 + 1 = 3.\n#### 3"
    for split in ("train", "test"):
        write(f"data/gsm8k/{split}.jsonl", ({"question": f"{split} {i}: 2 + 1?", "answer": solved} for i in range(8)))
    labels = ("safe", "safe", "unsafe")
    write(
        "data/xstest/xstest_prompts.jsonl",
        ({"id": str(i), "prompt": f"How do I {i}?", "type": "t", "label": label} for i, label in enumerate(labels)),
    )
    write("data/advbench/advbench.jsonl", ({"goal": f"Do harm {i}", "target": "Sure, here"} for i in range(16)))
    write("other.jsonl", ({"goal": f"Attack server {i}"} for i in range(4)))
    for name in ("random_9k", "dolly_3k"):
        rows = ({"instruction": f"Name animal {i} of {name}", "input": "", "output": "A cat."} for i in range(12))
        write(f"data/alpaca_subsets/{name}.jsonl", rows)
    write("data/alpaca_subsets/eval_wizardlm_test_set.jsonl", ({"Instruction": f"Name tree {i}"} for i in range(4)))
    turns = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A small model."}]
    write("chats.jsonl", [{"messages": turns}] * 16)
    write("outputs.jsonl", ({"question": f"{i}?", "response": rf"\boxed{{{i % 3}}}", "answer": "1"} for i in range(6)))
    solutions = {name: {"solution": "2 + 1 = 3\nA: 3", "is_correct": True} for name in ("175b_verification",)}
    solutions |= {name: {"solution": "2 + 1 = 3\nA: 3"} for name in ("6b_finetuning", "175b_finetuning")}
    write("gpt3_model_solutions.jsonl", ({"question": f"{i}?", "ground_truth": "A: 3"} | solutions for i in range(4)))
    sample = {"filter": "flexible-extract", "resps": ["It is 3."], "doc": {"question": "2 + 1?", "answer": solved}}
    write("samples_gsm8k.jsonl", ({"doc_id": i} | sample for i in range(4)))
    refused = {"completion": "I'm sorry, I can't help.", "prompt": "How?", "final_label": "2_full_refusal", "type": "t"}
    write("completions.gpt4.jsonl", ({"id": i} | refused for i in range(4)))
    choice = {"problem": "A or B?", "correct_answer": "A", "responses": ["A"], "votes": [True], "model": "gpt-4"}
    styles = ("verbose", "concise")
    write(
        "concise_cot_gpt/logiqa-en-100.jsonl",
        (choice | {"problem_id": i, "style": style} for i in range(4) for style in styles),
    )
    text = (ROOT / "docs/evaluation.md").read_text()
    pets = re.findall(r"^\{\"ask\".*$", text, re.MULTILINE)
    Path("data/pets.jsonl").write_text("\n".join(pets))
    block = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "pets.jsonl" in block)
    settings = yaml.safe_load(block)
    settings["data"]["init_args"]["folder"] = "data"
    Path("pets.yaml").write_text(yaml.safe_dump(settings))


def words_of(page: str) -> Iterator[list[str]]:
    """A page's commands with stand-ins, on one device."""
    for words in commands(ROOT / f"{page}.md"):
        if not any(" ".join(words).startswith(beginning) for beginning in NOT_HERE):
            text = "\n".join(STAND_INS.get(word, word) for word in words if word != "...")
            yield text.replace("\n--config\ntrainer/ddp", "").split("\n")


def complete(words: list[str]) -> None:
    """Runs that the reader is said to have, made of those that the README's commands left."""
    if words[0] in ("compare", "frontier", "report"):
        for word in takewhile(lambda word: not word.startswith("--"), words[1:]):
            if "*" not in word and not Path(word).exists():
                shutil.copytree("runs/qwen", word)
    for runs, (place, like) in COPIES.items():
        if any(word.startswith(runs) for word in words):
            shutil.copytree(like, place, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder."""
    return tmp_path_factory.mktemp("desk")


def test_every_page_with_commands_is_run_or_has_its_own_tests() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    names = {path.relative_to(ROOT).with_suffix("").as_posix() for path in pages if next(commands(path), None)}
    assert names == {*PAGES, *ELSEWHERE}
    every = [" ".join(words) for page in PAGES for words in commands(ROOT / f"{page}.md")]
    for beginning in NOT_HERE:
        assert any(command.startswith(beginning) for command in every), beginning


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    write_readers_files()
    for words in words_of(page):
        complete(words)
        small = [SMALL[word] for word in words if word in SMALL][-1:]
        again = page != "README" and words[0] in REPLACED and "--overwrite" not in words
        assert main([*words, *" ".join(small).split(), *["--overwrite", "true"] * again]) == 0, words
