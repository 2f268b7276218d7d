"""The map of the curriculum's gain: commands, numbers, table and figure."""

from pathlib import Path

import pytest

from callbacks.evaluation.metrics import aes
from rod.evidence.rows import Rows
from rod.evidence.s3cot.curriculum_map import ITEMS, PLACE, RATES, SELECTIONS, CurriculumMap
from tests.rod.evidence.results import result, write_results


def test_every_checkpoint_that_is_tested_is_of_a_fit_before_it(tmp_path: Path) -> None:
    steps = CurriculumMap().steps(tmp_path, 1, controls=True)
    assert len({step.product for step in steps}) == len(steps)
    done: set[str] = set()
    tested = 0
    for step in steps:
        words = [str(word) for word in step.words]
        if "--ckpt_path" in words:
            assert str(Path(words[words.index("--ckpt_path") + 1]).parents[1]) in done
            assert words[words.index("--evaluate.baseline") + 1] == f"{PLACE}/test/base/metrics.json"
            assert f"{PLACE}/test/base" in done
            tested += 1
        if "--trainer.default_root_dir" in words:
            done.add(words[words.index("--trainer.default_root_dir") + 1])
    assert tested == len(RATES) * len(ITEMS) * len(SELECTIONS)
    assert CurriculumMap().steps(tmp_path, 1, controls=False) == []


def test_the_gain_is_the_difference_of_aes_over_seeds(tmp_path: Path) -> None:
    method, base = CurriculumMap(), (0.9, 100.0)
    accuracies = {"curriculum": (0.9, 0.8), "all_at_once": (0.6, 0.6)}
    for seed in (0, 1):
        tests = tmp_path / f"seed{seed}" / PLACE / "test"
        numbers = {"accuracy": base[0], "tokens": base[1]}
        write_results(tests / "base/metrics.json", [result("maths", system="system2", metrics=numbers)])
        for name, values in accuracies.items():
            numbers = {"accuracy": values[seed], "tokens": 50}
            cells = [result("maths", system=system, metrics=numbers) for system in ("system1", "system2")]
            write_results(tests / f"{name}-{RATES[1]:g}-{ITEMS[0]}/metrics.json", cells)
    table = Rows(method.method, [method.values(tmp_path / f"seed{seed}") for seed in (0, 1)])
    gains = [aes(ours, 50, *base) - aes(theirs, 50, *base) for ours, theirs in zip(*accuracies.values(), strict=True)]
    row = table.find(f"{RATES[1]:g} {ITEMS[0]}", "gain/all_at_once", "aes")
    assert row is not None
    assert row.mean == pytest.approx(sum(gains) / 2, abs=1e-4)
    assert row.seeds == 2
    (section,) = method.sections(table)
    assert [cells[:2] for cells in section.cells] == [[f"{RATES[1]:g}", "200"]]
    assert section.cells[0][-2:] == [row.text(), "-"]
    method.plot(table, tmp_path)
    assert (tmp_path / "curriculum_map.png").stat().st_size > 5000
    assert "over all at once" in (tmp_path / "curriculum_map.svg").read_text()
