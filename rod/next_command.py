"""The command that comes after a stage, ready to paste."""

import json
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import InputError
from rod.files import expand
from rod.shipped import find, shipped

Options = dict[str, list[str]]
Configs = dict[str, dict[str, Any]]
_AFTER = {
    "s3cot/1_direction": "rod predict --config s3cot/2_calibrate",
    "s3cot/2_calibrate": "rod predict --config s3cot/3_sample --config {folder}/choice.yaml",
    "s3cot/3_sample": "rod filter --traces {folder}/traces/traces.jsonl --by gold --output {output}",
    "s3cot/5_curriculum": "rod test --config s3cot/6_test --ckpt_path {folder}/checkpoints/best.ckpt",
    "crisp/1_distill": "rod test --config s3cot/6_test --ckpt_path {folder}/checkpoints/best.ckpt",
    "mllr/0_pilot": "rod export --checkpoint {folder}/checkpoints/last.ckpt --output {output}",
    "mllr/1_probe_and_search": "rod fit --config mllr/2_tune",
    "mllr/2_tune": "rod test --config mllr/3_test --config mllr/suites/safety --config mllr/suites/task_maths "
    "--ckpt_path {folder}/checkpoints/last.ckpt",
    "mogu/0_answers": "rod pairs --config mogu/pairs",
    "mogu/1_glad": "rod export --format peft --checkpoint {folder}/checkpoints/best.ckpt --output {output}",
    "mogu/2_unwilling": "rod export --format peft --checkpoint {folder}/checkpoints/best.ckpt --output {output}",
    "mogu/3_router": "rod export --format mogu --checkpoint {folder}/checkpoints/best.ckpt --output {output}",
}
"""Shipped configuration -> what comes after it."""
_OUTPUTS = {
    "s3cot/3_sample": "runs/s3cot/4_filter/items.jsonl",
    "mllr/0_pilot": "runs/mllr/0_pilot/model",
    "mogu/1_glad": "runs/mogu/glad",
    "mogu/2_unwilling": "runs/mogu/unwilling",
    "mogu/3_router": "runs/mogu/mogu",
}
"""Shipped configuration -> where the shipped stages look for what comes of it; that of another run is in its folder."""
_READ = {
    "s3cot/1_direction": ("steer.direction", "direction.safetensors"),
    "mllr/1_probe_and_search": ("model.learning_rates.result", "robust_modules.yaml"),
    "mogu/0_answers": ("answers", "traces/traces.jsonl"),
}
"""Shipped configuration -> the option by which the next stage reads a file of another folder."""
_EXPORTED = {
    "mllr/0_pilot": ("rod predict --config mllr/1_probe_and_search", "trainer.callbacks.pilot"),
    "mogu/1_glad": ("rod fit --config mogu/2_unwilling", ""),
    "mogu/2_unwilling": ("rod fit --config mogu/3_router", None),
    "mogu/3_router": ("rod test --config mogu/4_test --config suites/miniature", "model.folder"),
}
"""Shipped configuration -> what comes after the export of its checkpoint, and the option that names another folder of
it: empty if none has to, None if the next stage needs another folder, too, which is not known."""
_PAIRS = "runs/mogu/pairs"
_WORLD = "runs/world"
_REPORTED = {"test", "score", "frontier"}
_KEPT = ("model", "steer.direction", "trainer.precision", "data.chat_template", "data.chat_template_kwargs")
"""Options that go on with the next stage, with all that is within them."""
_KEPT_QUESTIONS = ("data.questions", "data.fields")
"""Kept too if both stages read questions."""
_KEPT_AFTER_EXPORT = (
    *("model.backbone", "model.dtype", "model.tokenizer", "trainer.precision"),
    *("data.chat_template", "data.chat_template_kwargs", "data.pairs", "data.val_pairs"),
)
_OF_A_FIT = ("model.optimizer", "model.schedule", "model.divergence", "model.teacher_refresh")


def next_command(words: Sequence[str]) -> str:
    """What comes after a command; empty if nothing does, or it depends on what the user wants.

    A next stage reads files where the shipped configurations put them, so a run in another folder is followed by a
    command that names its files, and writes into its folder.

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
    configs = {_short(name): _read(name) for name in options.get("config", ())}
    if verb in _REPORTED:
        place = _value("trainer.default_root_dir" if verb == "test" else "output", options, configs)
        return shlex.join(["rod", "report", place, "--output", f"{place}/report.html"]) if place else ""
    if verb == "filter" and (items := _value("output", options, configs)):
        model = _model_of(_value("traces", options, configs))
        return shlex.join(["rod", "fit", "--config", "s3cot/5_curriculum", "--data.items", items, *model])
    if verb == "pairs" and (pairs := _value("output", options, configs)):
        own = ["--data.pairs", f"{pairs}/pairs.train.jsonl", "--data.val_pairs", f"{pairs}/pairs.val.jsonl"]
        own = own if Path(pairs) != Path(_PAIRS) else []
        return shlex.join(
            ["rod", "fit", "--config", "mogu/1_glad", *own, *_model_of(_value("answers", options, configs))]
        )
    if verb == "import-traces" and (traces := _value("output", options, configs)):
        items = str(Path(traces).with_name("items.jsonl"))
        return shlex.join(["rod", "filter", "--traces", traces, "--by", "gold", "--output", items])
    if verb == "world":
        is_shipped = Path(_value("output", options, configs) or _WORLD) == Path(_WORLD)
        return "rod predict --config s3cot/1_direction" if is_shipped else ""
    if verb == "export":
        return _after_export(_value("checkpoint", options, configs), _value("output", options, configs))
    stage = next((name for name in configs if name in _AFTER), "") if verb in ("fit", "predict") else ""
    return _after(stage, options, configs) if stage else ""


def _after(stage: str, options: Options, configs: Configs) -> str:
    """What comes after a stage."""
    folder = _value("trainer.default_root_dir", options, configs)
    is_own = Path(folder) != Path(_value("trainer.default_root_dir", {}, {stage: configs[stage]}))
    output = _OUTPUTS.get(stage, "")
    output = f"{folder}/{Path(output).name}" if is_own else output
    found = shlex.split(_AFTER[stage].format(folder=shlex.quote(folder), output=shlex.quote(output)))
    key, file = _READ.get(stage, ("", ""))
    if is_own and key and key not in options:
        found += [f"--{key}", f"{folder}/{file}"]
    if found[1] == "pairs" and is_own:
        found += ["--output", f"{folder}/pairs"]
    if found[1] not in ("predict", "fit", "test"):
        return shlex.join(found)
    keys = (*_KEPT, *_KEPT_QUESTIONS) if found[1] == "predict" else _KEPT
    is_own = is_own or stage == "crisp/1_distill"  # else the test would be in the folder of S3-CoT's
    others = {name: values for name, values in configs.items() if name != stage}
    return _with_options(found, folder if is_own else "", keys, options, others)


def _after_export(checkpoint: str, output: str) -> str:
    """What comes after the export of a stage's checkpoint; empty if it is of another run."""
    from rod.run_record import starts_of

    folder = Path(checkpoint).parent.parent
    starts = starts_of(folder) if checkpoint else []
    options = _options(shlex.split(str(starts[-1].get("command", "")))[2:]) if starts else {}
    configs = {_short(name): _read(name) for name in options.get("config", ())}
    stage = next((name for name in configs if name in _EXPORTED), "")
    if not stage or not output:
        return ""
    following, key = _EXPORTED[stage]
    found = shlex.split(following)
    is_own = Path(output) != Path(_OUTPUTS[stage])
    if is_own and key is None:
        return ""
    if is_own and key:
        found += [f"--{key}", output]
    others = {name: values for name, values in configs.items() if name != stage}
    return _with_options(found, str(folder) if is_own else "", _KEPT_AFTER_EXPORT, options, others)


def _with_options(found: list[str], folder: str, keys: Sequence[str], options: Options, configs: Configs) -> str:
    """A command with what goes on of the one before: its folder, if that is one's own, options, configurations."""
    place = found.index("--config") + 2
    for name in [name for name in configs if _is_of_a_model(configs[name])]:
        found[place:place] = ["--config", name]
        place += 2
    if folder:
        found += ["--trainer.default_root_dir", f"{folder}/{Path(found[3]).name}"]
    for key, values in options.items():
        if any(key == kept or key.startswith(f"{kept}.") for kept in keys) and not key.startswith(_OF_A_FIT):
            for value in values:
                found += [f"--{key}={value}"] if key.endswith("+") else [f"--{key}", value]
    return shlex.join(found)


def reads_what_exists(command: str) -> bool:
    """Whether the files that a next command reads are there: a stage may have chosen or saved nothing."""
    words = shlex.split(command)
    read = [value for key, value in pairwise(words) if key in ("--ckpt_path", "--checkpoint", "--traces")]
    read += [value for key, value in pairwise(words) if key == "--config" and value not in shipped()]
    return all(Path(value).exists() for value in read)


def _model_of(traces: str) -> list[str]:
    """The option that names the model of a file of traces, by the settings beside it; none for the shipped stages'."""
    try:
        first = expand("answers", yaml.safe_load(traces))[0]
        model = json.loads(first.with_name("settings.json").read_text(encoding="utf-8"))["model"]
    except (InputError, OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
    return [] if model == "miniature" else ["--model.backbone", str(model)]


def _options(words: Sequence[str]) -> Options:
    """The values of each option, in order."""
    found: Options = {}
    for number, word in enumerate(words):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            following = words[number + 1] if number + 1 < len(words) else ""
            found.setdefault(key, []).append(value if equals else following)
    return found


def _short(name: str) -> str:
    """The name of a shipped configuration; that of a file as it is."""
    short = name.removeprefix("configs/").removesuffix(".yaml")
    return short if short in shipped() else name


def _read(name: str) -> dict[str, Any]:
    """A configuration; empty if it cannot be read any more."""
    try:
        values = yaml.safe_load(Path(find(name)).read_text(encoding="utf-8"))
    except (InputError, OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _value(key: str, options: Options, configs: Configs) -> str:
    """The value of a key on the command line, else in the last configuration that has it; empty if there is none."""
    if key in options:
        return options[key][-1]
    found = ""
    for values in configs.values():
        inner: Any = values
        for part in key.split("."):
            inner = inner.get(part) if isinstance(inner, dict) else None
        found = str(inner) if inner else found
    return found


def _is_of_a_model(values: dict[str, Any]) -> bool:
    """Whether a configuration is about the model, and not about the data or the trainer of one stage."""
    trainer = values.get("trainer") or {}
    return "model" in values and values.keys() <= {"model", "trainer"} and trainer.keys() <= {"default_root_dir"}
