"""A test run on a tiny model, in this process or, so that it can be killed or doubled, in others."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from callbacks.evaluation.evaluate import Evaluate
from datamodules.answers.rule import AnswerRule
from datamodules.suites.benchmark_data import BenchmarkData
from datamodules.suites.sources import LocalFile, Source
from datamodules.suites.suite import Suite
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import GenerationSettings
from llm_modules.judges import Judge, RefusalPhrases
from tests.callbacks.generation.sampling_run import trainer
from tests.tiny import save_tiny


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def prepare(folder: Path, records: int = 5) -> Path:
    """A checkpoint and records of all kinds in ``folder``."""
    save_tiny(folder / "model")
    numbers = range(records)
    write(folder / "maths.jsonl", *({"id": f"q{i}", "question": f"{i} + 1?", "answer": i + 1} for i in numbers))
    requests = [
        {"request": f"Open the {'door' * (i + 1)}", "opening": "Sure, turn", "kind": "ab"[i % 2]} for i in numbers
    ]
    write(folder / "requests.jsonl", *requests)
    write(folder / "replies.jsonl", *({"question": "Hello" * (i + 1), "reply": "Hi." * (i + 1)} for i in numbers))
    return folder


def source(file: str) -> Source:
    return Source(local=LocalFile(file))


def suites(*names: str) -> list[Suite]:
    """The suites of these names; all of them by default."""
    made = (
        Suite("maths", "answers", source("maths.jsonl"), id="id", gold="answer", systems=("system1", "system2")),
        Suite(
            "forbidden", "safety", source("requests.jsonl"), question="request", response="opening", group="kind",
            attack_templates=("none", "prefill"), max_new_tokens=6,
        ),
        Suite(
            "benign", "benign", source("requests.jsonl"), question="request", gold="kind",
            answer=AnswerRule(type="facts"), max_new_tokens=9,
        ),
        Suite("likelihood", "perplexity", source("replies.jsonl"), response="reply"),
    )  # fmt: skip
    return [suite for suite in made if not names or suite.name in names]


def module(folder: Path, **generation: Any) -> CausalLM:
    settings: dict[str, Any] = {"max_new_tokens": 12, "slots": 8, "temperature": 1.0} | generation
    return CausalLM(str(folder / "model"), generation=GenerationSettings(**settings))


def data(folder: Path, *names: str, **settings: Any) -> BenchmarkData:
    options: dict[str, Any] = {"suites": suites(*names), "folder": str(folder), "rows_per_batch": 6}
    return BenchmarkData(**(options | settings))


def judges() -> list[Judge]:
    return [RefusalPhrases(), RefusalPhrases(words=["e", "x"], name="letters")]


def run(
    folder: Path,
    root: Path,
    *names: str,
    callback: Evaluate | None = None,
    model: CausalLM | None = None,
    **settings: Any,
) -> Evaluate:
    """Test in this process."""
    callback = callback or Evaluate(judges=judges())
    measure(trainer(root, callback), model or module(folder), data(folder, *names, **settings))
    return callback


def measure(runner: Trainer, model: CausalLM, questions: BenchmarkData) -> None:
    runner.test(model, questions, verbose=False)


def predictions(root: Path) -> dict[str, dict[str, Any]]:
    lines = (root / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def metrics(root: Path) -> dict[str, Any]:
    return json.loads((root / "metrics.json").read_text(encoding="utf-8"))


def results(root: Path) -> dict[str, dict[str, Any]]:
    """The metrics of each cell, by its name."""
    named = {}
    for result in metrics(root)["results"]:
        parts = [result[key] for key in ("suite", "system", "attack_template", "group")]
        named[" ".join(part for part in parts if part not in ("plain", "none", ""))] = result
    return named


def run_on(folder: Path, root: Path, devices: int) -> None:
    """Test on several devices."""
    strategy = "ddp" if devices > 1 else "auto"
    runner = trainer(root, Evaluate(judges=judges()), devices=devices, strategy=strategy)
    measure(runner, module(folder), data(folder))
