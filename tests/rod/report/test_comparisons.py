import re
from dataclasses import replace
from pathlib import Path

from rod.report.page import render
from rod.report.runs import find_runs
from tests.rod.report.runs import answers, save_test


def test_a_run_has_one_colour_in_all_figures_of_its_group(tmp_path: Path) -> None:
    both = [*answers("1010", system="system1"), *answers("1100", 20, system="system2")]
    both = [replace(p, id=f"{p.id}{p.system}") for p in both]
    made = render(*find_runs([save_test(tmp_path / name, both) for name in ("a", "b", "c")]))
    colours: dict[str, set[str]] = {}
    for name, colour in re.findall(r"<title>([abc])\b[^<]*</title>.*?stroke: ([^;\"]+)", made, re.DOTALL):
        colours.setdefault(name, set()).add(colour)
    assert made.count("<title>b, ") == 4, "differences of accuracy and tokens for each instruction"
    assert made.count("<title>b system") == 2, "a point for each instruction in the frontier"
    assert {"a": {"var(--blue)"}, "b": {"var(--vermilion)"}, "c": {"#009e73"}} == colours
