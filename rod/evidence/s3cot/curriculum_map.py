"""Where the curriculum matters: what it gains over its controls, by learning rate and number of steps."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from callbacks.evaluation.metrics import aes
from callbacks.evaluation.report import read_results
from rod.evidence.figures import Gain, plot_gains
from rod.evidence.rows import Rows, Section, Value
from rod.evidence.s3cot.steps import STAGES, S3CoTCommands
from rod.steps import Step

PLACE = STAGES / "map"
RATES = (5e-4, 2e-3, 8e-3)
ITEMS = (80, 240)
"""Items of each of the ten stages; a step takes 8."""
SELECTIONS = {
    "curriculum": "curriculum",
    "all_at_once": "all at once",
    "shortest_only": "shortest only",
}
"""Selection of the items -> its name in the report; the curriculum, then its controls."""
CONTROLS = tuple(SELECTIONS)[1:]
Numbers = tuple[float, float]
"""Accuracy and tokens."""


class CurriculumMap:
    """The curriculum against the same items all at once and against the shortest of them only.

    The last checkpoints are tested, not those that validation would choose: the latter hide what training does to a
    model that has none.
    """

    method = "curriculum_map"
    seeds = 3
    figures: Mapping[str, str] = {}
    compared: Sequence[str] = ()
    files: Sequence[str] = ()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed, from the questions on; none without controls."""
        if not controls:
            return []
        do = _Commands(folder, seed)
        found = [*do.prepared(), *do.sampled(), do.filter("gold"), do.test_cell("base")]
        for rate, items in product(RATES, ITEMS):
            for selection in SELECTIONS:
                found += [do.fit_cell(selection, rate, items), do.test_cell(_name(selection, rate, items))]
        return found

    def values(self, folder: Path) -> Iterator[Value]:
        """Accuracy, tokens and AES of System 1 after each fit, and the curriculum's AES less that of a control."""
        base = _numbers(folder, "base", "system2")
        if base is None:
            return
        yield from _values_of("base", base, base)
        for rate, items in product(RATES, ITEMS):
            found = {name: _numbers(folder, _name(name, rate, items), "system1") for name in SELECTIONS}
            for name, numbers in found.items():
                if numbers is not None:
                    yield from _values_of(_name(name, rate, items), numbers, base)
            ours = found["curriculum"]
            for control in CONTROLS:
                theirs = found[control]
                if ours is not None and theirs is not None:
                    gain = aes(*ours, *base) - aes(*theirs, *base)
                    yield Value(f"{rate:g} {items}", f"gain/{control}", "aes", gain, 1)

    def sections(self, table: Rows) -> list[Section]:
        """A row for each learning rate and number of items."""
        headings = ["learning rate", "steps"]
        for title in SELECTIONS.values():
            headings += [f"{title}: accuracy", "tokens", "AES"]
        headings += [f"gain over {SELECTIONS[control]}" for control in CONTROLS]
        rows = []
        for rate, items in product(RATES, ITEMS):
            cells = [f"{rate:g}", str(_steps(items))]
            for name in SELECTIONS:
                condition = _name(name, rate, items)
                cells += [table.cell(condition, "maths", metric, digits) for metric, digits in _DIGITS.items()]
            cells += [table.cell(f"{rate:g} {items}", f"gain/{control}", "aes", 3) for control in CONTROLS]
            if any(cell != "-" for cell in cells[2:]):
                rows.append(cells)
        start = ", ".join(f"{table.cell('base', 'maths', metric, digits)}" for metric, digits in _BASE.items())
        notes = (
            f"System 1 after the last step; AES against the base model's System 2 (accuracy and tokens {start}). The "
            "gain is the curriculum's AES less the control's."
        )
        return [Section("Where the curriculum matters, on the miniature", headings, rows, notes)] if rows else []

    def plot(self, table: Rows, folder: Path) -> None:
        """A map for each control, with the gain as colour."""
        maps: dict[str, list[Gain]] = {}
        for control in CONTROLS:
            for rate, items in product(RATES, ITEMS):
                row = table.find(f"{rate:g} {items}", f"gain/{control}", "aes")
                if row is not None:
                    gain = Gain(f"{rate:g}", str(_steps(items)), row.mean, row.std, row.seeds)
                    maps.setdefault(f"over {SELECTIONS[control]}", []).append(gain)
        if maps:
            plot_gains(maps, folder / "curriculum_map.png", "learning rate", "steps", "AES gained by the curriculum")


_BASE = {"accuracy": 3, "tokens": 1}
_DIGITS = _BASE | {"aes": 3}


class _Commands(S3CoTCommands):
    """Steps of one seed."""

    def fit_cell(self, selection: str, rate: float, items: int) -> Step:
        """A fit, with next to no validation."""
        words = ["--data.selection", selection, "--model.optimizer.lr", f"{rate:g}", "--data.val_limit", "2"]
        root = PLACE / _name(selection, rate, items)
        return self.run("fit", self.files("s3cot/5_curriculum"), root, *words, "--data.items_per_stage", str(items))

    def test_cell(self, name: str) -> Step:
        """Both systems on test problems."""
        files = [*self.files("s3cot/6_test")]
        if name == "base":
            return self.run("test", [*files, *self.files("s3cot/controls/base")], _test_folder(name), *_FEWER)
        checkpoint: Sequence[str | Path] = ["--ckpt_path", PLACE / name / "checkpoints/epoch=9.ckpt"]
        words = [*_FEWER, "--evaluate.baseline", str(_test_folder("base") / "metrics.json")]
        return self.run("test", files, _test_folder(name), *checkpoint, *words)


_FEWER = ("--data.limit", "300", "--data.samples", "1")


def _name(selection: str, rate: float, items: int) -> str:
    return f"{selection}-{rate:g}-{items}"


def _test_folder(name: str) -> Path:
    return PLACE / "test" / name


def _steps(items: int) -> int:
    """Steps of all stages; each item has a row for each system."""
    return 10 * items * 2 // 8


def _numbers(folder: Path, name: str, system: str) -> Numbers | None:
    path = folder / _test_folder(name) / "metrics.json"
    if not path.is_file():
        return None
    result = next(result for result in read_results(path) if result.system == system)
    accuracy, tokens = (result.metrics[name]["value"] for name in _BASE)
    return None if accuracy is None or tokens is None else (accuracy, tokens)


def _values_of(condition: str, numbers: Numbers, base: Numbers) -> Iterator[Value]:
    for metric, value in zip(_DIGITS, (*numbers, aes(*numbers, *base)), strict=True):
        yield Value(condition, "maths", metric, value, 1)
