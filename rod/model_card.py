"""The model card of an export: what was trained, on what, how, and what was measured."""

import csv
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

_KINDS = {
    "peft": ("peft", "A PEFT adapter for"),
    "merged": ("transformers", "A fine-tuned"),
    "mogu": ("transformers", "A MoGU (two responders and their routers) on"),
}
"""Format -> library and the beginning of the first sentence."""
_LOAD = {
    "peft": (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        "base = AutoModelForCausalLM.from_pretrained({base!r})\nmodel = PeftModel.from_pretrained(base, {path!r})"
    ),
    "merged": "from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained({path!r})",
    "mogu": "from llm_modules.mogu import MoGUModel\n\nmogu = MoGUModel.from_pretrained({path!r})",
}
"""Format -> the lines that load it."""
_SHOWN = ("model", "data", "trainer", "seed_everything")


def model_card(name: str, kind: str, method: str, backbone: str, config: Path, steps: int) -> str:
    """A page in Markdown with the metadata of the hub, for an export of a format (``kind``) by a ``method``.

    Of local paths, as that of ``backbone``, only the name is told. Metrics are read from the folder of ``config``.
    """
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    base = _without_folders(backbone)
    library, first = _KINDS[kind]
    on_hub = base == backbone and backbone != "miniature"
    tags = ["lightning-rod", method.lower()]
    data = ModelCardData(base_model=base if on_hub else None, library_name=library, tags=tags)
    shown = {key: value for key in _SHOWN if (value := _given(settings.get(key))) is not None}
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"{first} `{base}`{'' if on_hub else ' (a local folder)'}, trained by Lightning Rod's `{method}` in {steps:,} "
        "optimiser steps.",
        f"```python\n{_LOAD[kind].format(path=name, base=base)}\n```",
        *_metrics(config.parent, steps),
        "## Training",
        "The configuration of `rod fit`; local paths are shortened to their last part:",
        f"```yaml\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)}```",
    ]
    return "\n\n".join(lines) + "\n"


def _given(value: Any) -> Any:
    """Settings without those that are empty, and without the folders of local paths."""
    if isinstance(value, dict):
        return {key: own for key, item in value.items() if (own := _given(item)) is not None} or None
    if isinstance(value, list):
        return [_given(item) for item in value] or None
    return _without_folders(value) if isinstance(value, str) else value


def _without_folders(text: str) -> str:
    path = Path(text).expanduser()
    return path.resolve().name if path.is_absolute() or ("/" in text and path.exists()) else text


def _metrics(folder: Path, steps: int) -> list[str]:
    """The last value of each number that the run logged in so many steps, and the step of it."""
    last: dict[str, tuple[str, str]] = {}
    for file in sorted(folder.glob("logs/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                step = row.pop("step")
                if int(step) > steps:
                    continue
                last |= {key: (value, step) for key, value in row.items() if value and key != "epoch"}
    if not last:
        return []
    rows = [f"| {key} | {float(value):.4g} | {step} |" for key, (value, step) in sorted(last.items())]
    return [
        "## Logged by the run, last values up to this checkpoint",
        "\n".join(["| metric | value | step |", "|---|---|---|", *rows]),
    ]
