"""Put a page together: one HTML file without anything outside it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datamodules.writing import replacing
from rod.report.comparisons import comparisons_of
from rod.report.doubts import doubts_of
from rod.report.figures import Picture, pictures_of
from rod.report.runs import KINDS, Run, find_runs
from rod.report.samples import files_of, samples_of
from rod.report.settings import changes, used_configs
from rod.report.tables import Table, reason_of, tables_of
from rod.run_record import versions
from rod.shipped import shipped

WORDS = {
    "System 1, System 2": "prompts that ask for a brief answer, and for one step by step",
    "AES": "accuracy-efficiency score: tokens saved, plus or minus accuracy won or lost, against the base model's "
    "System 2 answers, which are 0; higher is better",
    "Len-R": "length ratio: tokens of an answer divided by those of the unsteered answer to the same question",
    "alpha": "steering strength: how often the direction is added to the hidden states; negative values shorten",
    "refused, complied, attacks": "shares of requests that the first judge takes for refused and answered; an answered "
    "request of a safety suite is a successful attack",
    "cut, loop, no answer": "shares of completions that used up the token budget, that repeat themselves, and in which "
    "no answer is found",
    "95 %": "an interval that holds the true value in about 95 of 100 tests like this one: of a rate Wilson's, for as "
    "many independent questions as the answers are worth; of any other mean, and of a difference between runs, by a "
    "bootstrap over questions",
    "accuracy, right %": "share of answers that are right; of a request, of answers that hold all that was asked for, "
    "so that in a suite of malicious requests less is better",
    "anchor:2": "two decoder layers, from the one on in which the direction becomes consistent; deepest:2 are the last "
    "two, and separated:2 the two in which long and short answers lie farthest apart",
    "gates": "weights from 0 to 1 that MoGU's routers give the willing and the unwilling adapter at a token",
}
"""Terms of the page -> what they mean."""
SUITES = {
    "forbidden": "the miniature's requests that should be refused",
    "wrapped": "forbidden requests in attack templates, which try to get around the refusal",
    "wrapped_seen": "forbidden requests in attack templates that training has shown",
    "wrapped_unseen": "forbidden requests in attack templates that training has not shown",
    "benign": "the miniature's harmless requests",
    "twins": "harmless requests that look like forbidden ones",
}
"""Suites of the miniature -> what is in them; told on pages that have them."""


@dataclass(frozen=True)
class Section:
    """What the page says about one run."""

    anchor: str
    run: Run
    kind: str
    stage: str
    facts: Sequence[tuple[str, str]]
    changed: Sequence[tuple[str, str, str]]
    reason: str
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    gates: Sequence["Gates"]
    config: str


@dataclass(frozen=True)
class Gates:
    """The tokens of a prompt, each with its willing and unwilling gate; ``name`` is the class of the prompt."""

    name: str
    tokens: Sequence[tuple[str, float, float]] = field(default_factory=list)

    @property
    def harmful(self) -> bool:
        """Whether the prompt may be harmful: it is of another class than the benign ones."""
        return self.name != "benign"


def write_report(paths: Sequence[Path], output: Path) -> Path:
    """Write the page of the runs in some folders.

    Args:
        paths: Folders of runs, or folders that hold some.
        output: HTML file.

    Returns:
        ``output``.

    Raises:
        InputError: A folder holds no run.
    """
    text = render(*find_runs(paths))
    with replacing(output) as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    return output


def render(runs: Sequence[Run], left_out: int = 0) -> str:
    """The page of some runs, as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["text"] = _text
    groups = comparisons_of(runs)
    measured = {result.suite for run in runs for result in run.results}
    sections = [_section(number, run) for number, run in enumerate(runs)]
    return environment.get_template("page.html.jinja").render(
        title=", ".join(run.name for run in runs[:3]) + (" …" if len(runs) > 3 else ""),
        version=versions()["lightning-rod"],
        doubts=doubts_of(runs, left_out),
        notes=[note for group in groups for note in group.notes],
        groups=groups,
        suites=samples_of(runs),
        sections=sections,
        overview=_overview(sections),
        words=WORDS | {name: text for name, text in SUITES.items() if name in measured},
    )


_BROKEN = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Characters that HTML does not allow, and half characters."""


def _text(value: str) -> str:
    """A text without characters that HTML does not allow; Jinja escapes the rest."""
    return _BROKEN.sub("\N{REPLACEMENT CHARACTER}", str(value))


def _section(number: int, run: Run) -> Section:
    start = run.starts[-1] if run.starts else {}
    configs = used_configs(str(start.get("command", "")))
    config = run.folder / "config.yaml"
    return Section(
        f"run-{number}",
        run,
        KINDS[run.kind],
        _stage(configs),
        _facts(run, start, configs),
        changes(run),
        reason_of(run),
        tables_of(run),
        pictures_of(run),
        _gates(run.folder / "gates_tokens.json"),
        config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
    )


def _facts(run: Run, start: dict[str, Any], configs: Sequence[str]) -> list[tuple[str, str]]:
    found = [("folder", str(run.folder)), ("command", str(start.get("command", "")))]
    found += [("configurations", ", ".join(configs)), ("model", run.model), ("seed", _told(run.seed))]
    if start:
        found += [("started", str(start.get("started", ""))), ("time", _took(start))]
        found += [
            ("starts", str(len(run.starts)) if len(run.starts) > 1 else ""),
            ("device", str(start.get("device", ""))),
        ]
    named = start.get("versions") or run.metrics.get("versions") or {}
    found.append(("versions", ", ".join(f"{key} {value}" for key, value in named.items())))
    data = start.get("data") or {}
    found.append(("data (fingerprint)", ", ".join(f"{path} ({value})" for path, value in data.items())))
    prints = {r.suite: f"{r.suite} ({r.fingerprint})" for r in run.results if not r.group}
    found.append(("questions (fingerprint)", ", ".join(prints.values())))
    sizes = [f"{path.name} ({path.stat().st_size / 2**20:,.1f} MiB)" for path in files_of(run)]
    found.append(("completions", ", ".join(sizes)))
    return [(name, value) for name, value in found if value]


def _overview(sections: Sequence[Section]) -> list[tuple[Section, list[str]]]:
    rows = []
    for section in sections:
        run = section.run
        start = run.starts[-1] if run.starts else {}
        state = "finished" if run.finished else "not finished"
        rows.append((section, [section.kind, state, run.model, _told(run.seed), _took(start) if start else ""]))
    return rows


def _stage(configs: Sequence[str]) -> str:
    """What the first comment of the first shipped configuration says."""
    for name in configs:
        if name in shipped():
            first = shipped()[name].read_text(encoding="utf-8").partition("\n")[0]
            return first.lstrip("# ") if first.startswith("#") else ""
    return ""


def _took(start: dict[str, Any]) -> str:
    try:
        seconds = (datetime.fromisoformat(start["ended"]) - datetime.fromisoformat(start["started"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _gates(path: Path) -> list[Gates]:
    try:
        prompts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return [
            Gates(str(name), [(str(text), float(glad), float(unwilling)) for text, glad, unwilling in tokens])
            for name, tokens in prompts.items()
        ]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def _told(value: Any) -> str:
    return "" if value is None else str(value)
