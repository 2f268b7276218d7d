"""MoGU's evidence: which commands it runs, and what it reads of what they wrote."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rod.__main__ import main
from rod.evidence.mogu.evidence import CONDITIONS, MoGUEvidence
from rod.evidence.real import mogu
from rod.evidence.real.commands import SUITES
from rod.evidence.real.mogu import CONDITIONS as REAL
from rod.evidence.real.mogu import TESTS, RealMoGUEvidence
from rod.evidence.rows import Rows
from rod.steps import Step
from tests.rod.evidence.results import result, write_results
from tests.rod.evidence.wiring import assert_written_before_read


def names(steps: list[Step]) -> list[str]:
    return [step.name.split(": ", 1)[1] for step in steps]


def test_the_demo_takes_the_method_s_own_commands_and_two_tests(tmp_path: Path) -> None:
    made = ["0_answers", "pairs/report.json", "1_glad", "glad/tokenizer_config.json", "2_unwilling"]
    made += ["unwilling/tokenizer_config.json", "3_router", "mogu/tokenizer_config.json"]
    wanted = ["runs/world/mogu.refusals.txt", *(f"runs/mogu/{name}" for name in made)]
    wanted += ["runs/mogu/4_test/base", "runs/mogu/4_test/mogu_first5"]
    assert names(MoGUEvidence().steps(tmp_path, 0, controls=False)) == wanted


def test_every_condition_is_tested_and_no_two_steps_share_a_product(tmp_path: Path) -> None:
    steps = MoGUEvidence().steps(tmp_path, 0, controls=True)
    products = [step.product for step in steps]
    assert len(set(products)) == len(products)
    assert {f"runs/mogu/4_test/{name}" for name in CONDITIONS} <= set(names(steps))
    later = MoGUEvidence().steps(tmp_path, 4, controls=True)
    assert {f"runs/mogu/4_test/{name}" for name in CONDITIONS} - set(names(later)) == {
        "runs/mogu/4_test/base",
        "runs/mogu/4_test/self_reminder",
        "runs/mogu/4_test/icd",
    }
    runs = [step for step in later if step.words[0] in ("fit", "predict", "test")]
    assert runs
    assert all(step.words[-2:] == ["--seed_everything", "4"] for step in runs)


def test_numbers_of_a_seed(tmp_path: Path) -> None:
    run = tmp_path / "runs/mogu/4_test/mogu_first5"
    run.mkdir(parents=True)
    found = [
        result("forbidden", metrics={"asr/refusal": 0.1}),
        result("forbidden", "prefill", metrics={"asr/refusal": 0.9}),
    ]
    write_results(run / "metrics.json", found)
    lines = ["class,layer,prompts,glad,unwilling"]
    lines += ["benign,0,30,0.9,0.2", "benign,1,30,0.7,0.0", "maths,0,10,0.9,0.5", "maths,1,10,0.9,0.5"]
    lines += ["forbidden,0,20,0.1,0.8", "forbidden,1,20,0.1,1.0"]
    (run / "gates.csv").write_text("\n".join(lines) + "\n")
    folder = tmp_path / "runs/mogu/mogu"
    (folder / "glad").mkdir(parents=True)
    save_file({"a": torch.zeros(3, 5)}, folder / "glad/adapter_model.safetensors")
    save_file({"b": torch.zeros(7)}, folder / "routers.safetensors")
    table = Rows("mogu", [MoGUEvidence().values(tmp_path)])
    numbers = {(row.suite, row.metric): (row.mean, row.n) for row in table.rows}
    assert numbers["forbidden", "asr"] == (0.1, 10)
    assert numbers["prefill", "asr"] == (0.9, 10)
    assert numbers["gates/benign", "w_glad"] == (pytest.approx(0.8), 30)
    # 0.9 on malicious prompts; on benign ones 30 of 0.1 and 10 of 0.5.
    assert numbers["gates", "gap"] == (pytest.approx(0.7), 60)
    assert numbers["model", "extra_parameters"] == (22, 1)
    sections = MoGUEvidence().sections(table)
    assert sections[0].cells[0][:2] == ["mogu_first5", "0.100"]


def test_costs_stand_against_the_base(tmp_path: Path) -> None:
    for name, first, following in (("base", 10.0, 2.0), ("mogu_first5", 11.0, 2.5)):
        for stage, file in (("4_test", "metrics.json"), ("5_latency", "latency.json")):
            run = tmp_path / "runs/mogu" / stage / name
            run.mkdir(parents=True)
            times = {"first_token_ms": first, "next_token_ms": following, "prompts": 20, "results": []}
            (run / file).write_text(json.dumps(times))
    (tmp_path / "runs/mogu/mogu").mkdir()
    save_file({"a": torch.zeros(1001)}, tmp_path / "runs/mogu/mogu/routers.safetensors")
    save_file({"a": torch.zeros(9)}, tmp_path / "runs/mogu/mogu/base.safetensors")
    table = Rows("mogu", [MoGUEvidence().values(tmp_path)])
    costs = next(section for section in MoGUEvidence().sections(table) if section.title == "Costs")
    cells = {row[0]: row[1:] for row in costs.cells}
    assert cells["base"] == ["0", "10.00", "1.00x", "2.00", "1.00x"]
    assert cells["mogu_first5"] == ["1,001", "11.00", "1.10x", "2.50", "1.25x"]
    assert cells["safety_sft"] == ["-", "-", "-", "-", "-"]


def test_on_a_real_model_every_file_that_a_step_reads_is_data_or_written_by_an_earlier_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    steps = RealMoGUEvidence(data).steps(tmp_path / "seed0", 0, controls=True)
    assert {f"runs/mogu/4_test/{name}" for name in REAL} <= set(names(steps))
    assert names(RealMoGUEvidence(data).steps(tmp_path / "seed0", 0, controls=False))[-1] == "runs/mogu/4_test/mogu"
    assert_written_before_read(steps)


def test_a_folder_without_the_data_sets_is_refused_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evidence", "--real", str(tmp_path / "no"), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "--real: the folder" in said.err
    assert "mawps/addsub.jsonl" in said.err
    assert not (tmp_path / "out").exists()


def test_the_real_model_s_table_has_attacks_and_over_refusal(tmp_path: Path) -> None:
    for name, asr, refused in (("base", 0.9, 0.0), ("mogu", 0.1, 0.05)):
        run = tmp_path / TESTS / name
        run.mkdir(parents=True)
        found = [result(suite, metrics={"asr/phrases": asr, "refusal_rate/phrases": refused}) for suite in SUITES]
        write_results(run / "metrics.json", found)
    evidence = RealMoGUEvidence(tmp_path)
    table = Rows("mogu", [evidence.values(tmp_path)])
    (section,) = evidence.sections(table)
    assert section.cells == [["base", *["0.900"] * 6, *["0.000"] * 2], ["mogu", *["0.100"] * 6, *["0.050"] * 2]]
    evidence.plot(table, tmp_path)
    assert (tmp_path / "safety.png").is_file()
    assert not (tmp_path / "mogu_tradeoff.png").exists(), "needs a point of each method at least"


def test_the_real_model_s_trade_off_has_a_line_for_each_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setattr(mogu, "plot_dials", lambda lines, path, *_names: found.update({path.name: lines}))
    tested = {"mogu_shift_-1": 0.4, "mogu": 0.1, "all_weights_16": 0.3, "all_weights_80": 0.2, "lora_80": 0.5}
    for name, asr in tested.items():
        run = tmp_path / TESTS / name
        run.mkdir(parents=True)
        results = [result(suite, metrics={"asr/phrases": asr, "refusal_rate/phrases": 1 - asr}) for suite in SUITES]
        write_results(run / "metrics.json", results)
    evidence = RealMoGUEvidence(tmp_path)
    evidence.plot(Rows("mogu", [evidence.values(tmp_path)]), tmp_path)
    lines = {
        label: [(setting, round(x, 6), round(y, 6)) for setting, x, y in line]
        for label, line in found["mogu_tradeoff.png"].items()
    }
    assert lines == {
        "MoGU, by gate_shift": [("-1", 0.6, 0.4), ("+0", 0.9, 0.1)],
        "all_weights, by steps": [("16", 0.7, 0.3), ("80", 0.8, 0.2)],
        "lora, by steps": [("80", 0.5, 0.5)],
    }
