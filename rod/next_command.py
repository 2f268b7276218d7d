"""The command that comes after a stage, ready to paste."""

import shlex
from collections.abc import Sequence

import yaml

from rod.shipped import CONFIGS, shipped

_AFTER = {
    "s3cot/1_direction": "rod predict --config s3cot/2_calibrate",
    "s3cot/2_calibrate": "rod predict --config s3cot/3_sample --config {folder}/choice.yaml",
    "s3cot/3_sample": "rod filter --traces {folder}/traces/traces.jsonl --by gold "
    "--output runs/s3cot/4_filter/items.jsonl",
    "s3cot/5_curriculum": "rod test --config s3cot/6_test --ckpt_path {folder}/checkpoints/best.ckpt",
    "mllr/0_pilot": "rod export --checkpoint {folder}/checkpoints/last.ckpt --output {folder}/model",
    "mllr/1_probe_and_search": "rod fit --config mllr/2_tune",
    "mllr/2_tune": "rod test --config mllr/3_test --config mllr/suites/safety --config mllr/suites/task_maths "
    "--ckpt_path {folder}/checkpoints/last.ckpt",
    "mogu/0_answers": "rod pairs --config mogu/pairs",
    "mogu/1_glad": "rod export --format peft --checkpoint {folder}/checkpoints/best.ckpt --output runs/mogu/glad",
    "mogu/2_unwilling": "rod export --format peft --checkpoint {folder}/checkpoints/best.ckpt "
    "--output runs/mogu/unwilling",
    "mogu/3_router": "rod export --format mogu --checkpoint {folder}/checkpoints/best.ckpt --output runs/mogu/mogu",
}
"""Shipped configuration -> what comes after it."""
_REPORTED = {"test", "score", "frontier"}
_KEPT = ("model.backbone", "model.dtype", "trainer.precision")
"""Options that go on with the next stage."""


def next_command(words: Sequence[str]) -> str:
    """What comes after a command; empty if nothing does, or it depends on what the user wants.

    A next stage reads files where the shipped configurations put them, so a run in another folder has none.

    Args:
        words: The words after ``rod``.

    >>> next_command(["predict", "--config", "s3cot/1_direction", "--model.backbone", "x"])
    'rod predict --config s3cot/2_calibrate --model.backbone x'
    >>> next_command(["test", "--config", "test", "--trainer.default_root_dir", "runs/a"])
    'rod report runs/a --output runs/a/report.html'
    """
    verb, options = words[0], _options(words[1:])
    if not {"--help", "-h", "--print_config"}.isdisjoint(words):
        return ""
    names = [name for name in map(_short, options.get("config", ())) if name in shipped()]
    own = [value for name in names if (value := _folder(name))]
    folder = next(iter(options.get("trainer.default_root_dir", ())), own[-1] if own else "")
    if verb in _REPORTED:
        place = folder if verb == "test" else next(iter(options.get("output", ())), "")
        return shlex.join(["rod", "report", place, "--output", f"{place}/report.html"]) if place else ""
    if verb == "filter" and options.get("output"):
        return shlex.join(["rod", "fit", "--config", "s3cot/5_curriculum", "--data.items", options["output"][0]])
    if verb == "pairs" and "mogu/pairs" in names:
        return "rod fit --config mogu/1_glad"
    if verb not in ("fit", "predict"):
        return ""
    stage = next((name for name in names if name in _AFTER), "")
    if not stage or (folder != _folder(stage) and "{folder}" not in _AFTER[stage]):
        return ""
    found = shlex.split(_AFTER[stage].format(folder=shlex.quote(folder)))
    if found[1] in ("predict", "fit", "test"):
        found += [word for key in _KEPT for value in options.get(key, ())[:1] for word in (f"--{key}", value)]
    return shlex.join(found)


def _options(words: Sequence[str]) -> dict[str, list[str]]:
    """The values of each option, in order."""
    found: dict[str, list[str]] = {}
    for number, word in enumerate(words):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            following = words[number + 1] if number + 1 < len(words) else ""
            found.setdefault(key, []).append(value if equals else following)
    return found


def _short(name: str) -> str:
    return name.removeprefix("configs/").removesuffix(".yaml")


def _folder(name: str) -> str:
    """The run folder of a shipped configuration."""
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")) or {}
    return str((values.get("trainer") or {}).get("default_root_dir") or "")
