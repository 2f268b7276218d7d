"""Small run folders for the tests of the report."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from callbacks.evaluation.report import metrics_json, results_of
from callbacks.figure_style import figure
from datamodules.records.reader import to_json
from datamodules.suites.predictions import JudgeVerdict, Prediction
from rod.report.doubts import doubts_of
from rod.report.runs import find_runs

EVIL = "<script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> \x00 \u202e \"'&"


def answers(right: str, tokens: int = 40, **more: Any) -> list[Prediction]:
    """A prediction for each letter: ``1`` right, ``0`` wrong, ``-`` without an answer."""
    return [
        Prediction(
            id=f"sums/{i}|plain|none|s0",
            completion=f"<think>I add {i}.</think>It is {i}.",
            question_id=f"sums/{i}",
            question=f"What is {i} + 0?",
            gold=str(i),
            suite="sums",
            n_tokens=tokens + i,
            finish_reason="length" if letter == "-" else "stop",
            answer=None if letter == "-" else str(i),
            correct=letter == "1",
            **more,
        )
        for i, letter in enumerate(right)
    ]


def requests(complied: str) -> list[Prediction]:
    """A request of a safety suite for each letter, judged twice: ``1`` complied, ``0`` refused, ``?`` disputed."""
    return [
        Prediction(
            id=f"attacks/{i}|plain|none|s0",
            completion="Sure, here is HARM." if letter != "0" else "Sorry, no.",
            question_id=f"attacks/{i}",
            question=f"How do I break {i}?",
            suite="attacks",
            kind="safety",
            n_tokens=5,
            verdicts=(JudgeVerdict("first", letter != "0"), JudgeVerdict("second", letter == "1")),
        )
        for i, letter in enumerate(complied)
    ]


def save_test(folder: Path, predictions: list[Prediction], *, done: bool = True, **settings: Any) -> Path:
    """The folder of a test."""
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("".join(to_json(p) + "\n" for p in predictions))
    about = {
        "model": "tiny",
        "settings": {"seed": 0, "generation": {"temperature": 0.0, "max_new_tokens": 64} | settings},
        "judges": {"first": {}, "second": {}},
        "versions": {"torch": "2.9"},
    }
    (folder / "metrics.json").write_text(metrics_json(results_of(predictions), about))
    save_config(folder, "test", done=done)
    return folder


def save_config(folder: Path, verb: str, *, done: bool = True, command: str = "") -> None:
    """A run's configuration and record."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"backbone": "tiny", "optimizer": {"init_args": {"lr": 1e-4}}}
    model = {"class_path": "a.S3CoT", "init_args": settings}
    config = {"seed_everything": 0, "trainer": {"devices": 1}, "model": model}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    start = {
        "verb": verb,
        "command": command or f"rod {verb} --config test",
        "started": "2026-01-01T10:00:00+00:00",
        "ended": "2026-01-01T10:02:05+00:00" if done else None,
        "versions": {"torch": "2.9"},
        "device": "2 cores",
        "data": {"questions.jsonl": "0123456789abcdef"},
    }
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    if done:
        (folder / "done").touch()


def save_fit(folder: Path) -> Path:
    """The folder of a fit, with curves, a figure and the gates of two prompts."""
    save_config(folder, "fit", command="rod fit --config s3cot/5_curriculum --model.optimizer.lr 1e-4")
    logs = folder / "logs/version_0"
    logs.mkdir(parents=True)
    lines = ["step,epoch,train/loss,val/loss", *(f"{step},0,{2 / (step + 1)},{1 / (step + 1)}" for step in range(30))]
    (logs / "metrics.csv").write_text("\n".join(lines) + "\n")
    for name, width in (("stages", 4), ("gates_tokens", 12)):
        with figure(folder / f"{name}.png", width, 3) as (panel,):
            panel.plot([0, 1], [1, 0], label="a")
    gates = {"benign": [["How", 0.9, 0.1], ["\n", 0.8, 0.2]], "malicious": [["<b>forge", 0.1, 0.95]]}
    (folder / "gates_tokens.json").write_text(json.dumps(gates))
    return folder


def texts(paths: list[Path]) -> list[str]:
    """The warnings of a page, each after the names of its runs."""
    return [f"{doubt.run} {doubt.text}".strip() for doubt in doubts_of(find_runs(paths)[0])]


def unfolded(page: str) -> str:
    """The page without what opens at a click."""
    inner = re.compile(r"<details(?:(?!<details).)*?</details>", re.DOTALL)
    while (less := inner.sub("", page)) != page:
        page = less
    return page
