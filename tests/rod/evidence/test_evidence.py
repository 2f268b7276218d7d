"""The evidence: numbers over seeds, files that keep other methods' rows, steps that are done once."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import stdev

import pytest

from datamodules.errors import InputError
from rod.evidence.methods import METHODS
from rod.evidence.report import report
from rod.evidence.rows import Evidence, Rows, Section, Value
from rod.evidence.verb import run
from rod.steps import Step, run_steps


class Coin:
    """A method whose seeds have measured a number each."""

    seeds = 3
    figures: Mapping[str, str] = {}
    compared: Sequence[str] = ()
    files: Sequence[str] = ()

    def __init__(self, method: str) -> None:
        """A method of that name."""
        self.method = method

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """Nothing to run."""
        return []

    def values(self, folder: Path) -> Iterator[Value]:
        """The seed itself."""
        yield Value("tuned", "maths", "accuracy", float(folder.name.removeprefix("seed")), 10)

    def sections(self, table: Rows) -> list[Section]:
        """One cell."""
        return [Section("Coins", ("condition", "accuracy"), [["tuned", table.cell("tuned", "maths", "accuracy")]])]

    def plot(self, table: Rows, folder: Path) -> None:
        """Nothing to draw."""


def test_rows_are_mean_and_sample_deviation_over_the_seeds_that_measured() -> None:
    seeds = [[Value("a", "s", "m", value, 5)] for value in (0.5, 0.6, 1.0)]
    seeds[0].append(Value("a", "s", "only once", 0.25, 2))
    rows = Rows("method", seeds)
    found = rows.find("a", "s", "m")
    assert found is not None
    assert (found.mean, found.std) == (0.7, round(stdev([0.5, 0.6, 1.0]), 4))
    assert (found.seeds, found.n) == (3, 15)
    assert rows.cell("a", "s", "m", 2) == "0.70 ± 0.26"
    assert rows.cell("a", "s", "only once", 2) == "0.25"
    assert rows.cell("b", "s", "m") == "-"


def test_a_report_replaces_its_own_rows_only(tmp_path: Path) -> None:
    report([Coin("first")], tmp_path, None, None)
    report([Coin("second")], tmp_path, 1, tmp_path / "published")
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["method"], row["mean"], row["seeds"]) for row in rows] == [("first", 1.0, 3), ("second", 0.0, 1)]
    report([Coin("first")], tmp_path, 2, None)
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert {row["method"]: row["mean"] for row in rows} == {"second": 0.0, "first": 0.5}
    published = json.loads((tmp_path / "published/summary.json").read_text())
    assert [row["method"] for row in published] == ["second"]
    assert "Mean ± standard deviation over seeds" in (tmp_path / "first.md").read_text()
    assert "One seed, so the spread is not known" in (tmp_path / "second.md").read_text()


def test_what_is_done_is_not_run_again_and_what_was_interrupted_resumes(tmp_path: Path) -> None:
    ran: list[list[str]] = []

    def command(words: list[str]) -> int:
        ran.append(words)
        Path(words[0]).touch()
        return 0

    steps = [Step("one", ["one"], Path("one"), folder=tmp_path), Step("two", ["two"], Path("two"), folder=tmp_path)]
    (tmp_path / "one").touch()
    run_steps(steps, command)
    assert ran == [["two"]]
    run_steps([Step("three", ["fit"], Path("fit"), folder=tmp_path)], command)
    assert ran[-1] == ["fit", "--resume", "auto"]
    with pytest.raises(SystemExit):
        run_steps([Step("four", ["four"], Path("four"), folder=tmp_path)], lambda words: 2)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.method)
@pytest.mark.parametrize("controls", [False, True])
def test_the_commands_of_a_method_name_files_that_exist(method: Evidence, controls: bool, tmp_path: Path) -> None:
    """A fragment that was renamed would otherwise show after an hour."""
    steps = method.steps(tmp_path, 0, controls)
    assert len({step.product for step in steps}) == len(steps)
    shipped = [word for step in steps for word in step.words if isinstance(word, Path) and "configs" in word.parts]
    assert shipped or (method.method, controls) == ("curriculum_map", False)
    assert all(word.is_file() for word in shipped)


PUBLISHED = Path(__file__).parents[3] / "docs/evidence"


@pytest.mark.parametrize("folder", [PUBLISHED, PUBLISHED / "real"])
def test_every_published_figure_is_a_png_and_an_svg(folder: Path) -> None:
    names = {suffix: {path.stem for path in folder.glob(f"*{suffix}")} for suffix in (".png", ".svg")}
    assert len(names[".png"]) >= 5
    assert names[".png"] == names[".svg"]


def test_figures_are_drawn_again_from_the_published_numbers(tmp_path: Path) -> None:
    shutil.copy(PUBLISHED / "summary.json", tmp_path)
    run(redraw=tmp_path)
    drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert drawn == [f"{name}.svg" for name in ("accuracy_tokens", "mllr_swap", "mllr_tradeoff_howto",
                                                "mllr_tradeoff_maths", "safety")]  # fmt: skip
    for name in drawn:
        told = [re.findall("<title>(.*?)</title>", (place / name).read_text()) for place in (tmp_path, PUBLISHED)]
        assert len(told[0]) > 5
        assert told[0] == told[1], f"{name} shows other numbers than summary.json: rod evidence --redraw docs/evidence"
    with pytest.raises(InputError, match=r"has no summary\.json"):
        run(redraw=tmp_path / "none")


def test_a_method_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="--methods: there is no mogo; there are s3cot"):
        run(methods=["mogo"])


def test_a_method_of_controls_only_says_so() -> None:
    with pytest.raises(InputError, match="--controls: curriculum_map has controls only"):
        run(methods=["curriculum_map"], controls=False)


@pytest.mark.parametrize("seeds", [0, -1])
def test_seeds_are_at_least_one(seeds: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--seeds: must be at least 1"):
        run(seeds=seeds, output=tmp_path)
