"""ML-LR's evidence on a real model: its commands fit together, its tables hold losses and refusals."""

import json
from pathlib import Path

from datamodules.records import read_records
from datamodules.records.kinds import Instruction
from rod.__main__ import main
from rod.evidence.real.commands import BENIGN, SUITES
from rod.evidence.real.mllr import ALIGN, STAGES, TASKS, RealMLLREvidence
from rod.evidence.rows import Rows
from rod.run_folder import DONE
from tests.rod.evidence.results import result, write_results
from tests.rod.evidence.wiring import assert_written_before_read
from tests.rod.traces import answer_line


def test_every_file_that_a_step_reads_is_data_or_written_by_an_earlier_one(tmp_path: Path) -> None:
    steps = RealMLLREvidence(tmp_path / "data").steps(tmp_path / "seed0", 0, controls=True)
    assert_written_before_read(steps)
    fewer = RealMLLREvidence(tmp_path / "data").steps(tmp_path / "seed0", 0, controls=False)
    assert {step.product for step in fewer} < {step.product for step in steps}


def test_requests_that_alignment_trains_on_are_not_in_the_held_out_suite(tmp_path: Path) -> None:
    """The suite's file is written beside other pairs, drawn with the same seed."""
    lines = [json.dumps({"goal": f"do {n}", "target": "Sure"}) for n in range(60)]
    (tmp_path / "advbench.jsonl").write_text("\n".join(lines))
    (tmp_path / "other.jsonl").write_text("\n".join(json.dumps({"harmful": f"other {n}"}) for n in range(30)))
    traces = [answer_line(f"task {n}", "Here you are.") for n in range(60)]
    (tmp_path / "traces.jsonl").write_text("\n".join(map(json.dumps, traces)))
    words = ["pairs", "--answers", str(tmp_path / "traces.jsonl"), "--malicious", str(tmp_path / "advbench.jsonl")]
    words += ["--malicious_fields", "{prompt: goal, target: target}", "--n_val", "5", "--seed", "3"]
    others = ["--other_malicious", str(tmp_path / "other.jsonl"), "--other_field", "harmful", "--n_other", "20"]
    assert main([*words, "--output", str(tmp_path / "paper"), "--n_train", "20"]) == 0
    assert main([*words, *others, "--output", str(tmp_path / "aligned"), "--n_train", "40"]) == 0
    suite = (tmp_path / "paper/held_out.jsonl").read_text()
    assert suite == (tmp_path / "aligned/held_out.jsonl").read_text()
    taught = {line.prompt for line in read_records(tmp_path / "aligned/sft.train.jsonl", Instruction)}
    assert not taught & {json.loads(line)["prompt"] for line in suite.splitlines()}


def test_losses_and_refusals_become_a_table_and_a_figure_for_each_task(tmp_path: Path) -> None:
    def tested(folder: Path, refused: float) -> None:
        numbers = {"refusal_rate/phrases": refused, "asr/phrases": 1 - refused}
        found = [result(suite, metrics=numbers) for suite in SUITES]
        write_results(folder / "test/metrics.json", found)

    def lost(folder: Path, *losses: float) -> None:
        lines = ["epoch,step,val/loss", *(f"0,{step},{loss}" for step, loss in enumerate(losses))]
        (folder / "logs/version_0").mkdir(parents=True)
        (folder / "logs/version_0/metrics.csv").write_text("\n".join(lines) + "\n")
        (folder / DONE).touch()

    task = tmp_path / STAGES / "news"
    tested(tmp_path / ALIGN, 0.9)
    lost(task / "start", 3.0)
    for name, refused, loss in (("plain-0.0001", 0.1, 0.5), ("mllr-0.0001", 0.7, 0.75)):
        tested(task / name, refused)
        lost(task / name, 2.0, loss)
    lost(task / "freeze-0.0001", 1.0)
    (task / "freeze-0.0001" / DONE).unlink()
    evidence = RealMLLREvidence(tmp_path)
    table = Rows("mllr", [evidence.values(tmp_path)])
    (section,) = evidence.sections(table)
    assert list(section.cells) == [
        ["aligned", "3.000", *["0.900"] * 8],
        ["plain 0.0001", "0.500", *["0.100"] * 8],
        ["mllr 0.0001", "0.750", *["0.700"] * 8],
    ]
    assert set(BENIGN) < set(SUITES)
    assert len(TASKS) == 5
    evidence.plot(table, tmp_path)
    assert (tmp_path / "mllr_tradeoff_news.png").is_file()
    assert not (tmp_path / "mllr_tradeoff_sql.png").exists()
