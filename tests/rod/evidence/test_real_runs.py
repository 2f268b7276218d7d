"""The commands behind the evidence on a real model run, on a small random one and the published data."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rod.__main__ import main
from rod.evidence.real import mllr, mogu, together
from rod.evidence.real.mllr import RealMLLREvidence
from rod.evidence.real.mogu import RealMoGUEvidence
from rod.evidence.real.s3cot import RealS3CoTEvidence
from rod.evidence.real.together import RealTogetherEvidence
from rod.evidence.rows import Evidence, Rows
from rod.steps import run_steps
from tests.tiny import save_tiny

CUT = {
    "fit": "--trainer.max_steps 2 --trainer.limit_val_batches 1 --trainer.val_check_interval 1 --data.batch_size 2",
    "validate": "--trainer.limit_val_batches 1",
    "test": "--data.limit 1 --data.max_new_tokens 2",
    "pairs": "--n_train 4 --n_val 2",
}
"""Verb -> what makes it short; others run whole."""
FITS = {
    "teach": "--trainer.max_steps 1 --trainer.limit_val_batches 1 --trainer.val_check_interval 1.0",
    "5_curriculum": "--data.items_per_stage 2 --data.val_limit 1 --data.lower_bounds [0.5,0.0] --trainer.max_epochs 2 "
    "--model.generation.max_new_tokens 2",
    "3_router": "--data.val_requests null --data.val_fields null",
}
"""Stage -> its own, in place of, or (of routers) besides, that of all fits."""
PREDICTED = {
    "0_answers": "--data.limit 8 --model.generation.max_new_tokens 2",
    "1_direction": "--data.limit 2",
    "2_calibrate": "--data.limit 2 --data.layer_sets ['anchor:1'] --model.generation.max_new_tokens 2",
    "3_sample": "--data.limit 2 --model.generation.max_new_tokens 2",
    "1_probe_and_search": "--data.limit 20 --data.evaluation [] --trainer.callbacks.proxy.floor 0 "
    "--trainer.callbacks.proxy.stability false",
}


def shortened(words: list[str]) -> list[str]:
    stage = next((Path(word).stem for word in words if word.endswith(".yaml")), "")
    if words[0] == "predict":
        return [*words, *PREDICTED[stage].split()]
    more = FITS.get(stage, "") if words[0] == "fit" else ""
    if "--n_other" in words:
        more = "--n_other 2"
    own = more if stage in ("teach", "5_curriculum") else f"{CUT.get(words[0], '')} {more}"
    return [*words, *own.split()]


def command(words: list[str]) -> int:
    """Run a command, or write what a random model would not get to."""
    if words[0] == "filter":
        short = {"text": r"\boxed{3}", "n_tokens": 9, "alpha": -0.1}
        variants = [short | {"length_ratio": ratio / 20} for ratio in range(1, 20, 2)]
        item = {"gold": "3", "initial": r"It is \boxed{3}", "initial_tokens": 15, "variants": variants}
        lines = [json.dumps({"id": str(n), "question": f"train {n}?"} | item) for n in range(4)]
        output = Path(words[words.index("--output") + 1])
        output.parent.mkdir(parents=True)
        output.write_text("\n".join(lines))
        return 0
    status = main(shortened(words))
    if any(word.endswith("2_calibrate.yaml") for word in words):
        choice = {"data": {"alphas": [0.0, -0.1], "layer_sets": ["anchor:1"]}}
        Path("runs/s3cot/2_calibrate/choice.yaml").write_text(yaml.safe_dump(choice))
    if any(word.endswith("0_answers.yaml") for word in words):
        traces = Path(words[words.index("--trainer.default_root_dir") + 1]) / "traces/traces.jsonl"
        ended = {"completion": "Here you are.", "finish_reason": "stop"}
        lines = [json.dumps(json.loads(line) | ended) for line in traces.read_text().splitlines()]
        traces.write_text("\n".join(lines))
    return status


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "controls"),
    [(RealS3CoTEvidence, False), (RealMLLREvidence, True), (RealMoGUEvidence, True), (RealTogetherEvidence, False)],
)
def test_the_commands_run_to_a_table(
    make: Callable[[Path], Evidence],
    controls: bool,
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mllr, "TASKS", {"news": mllr.TASKS["news"]})
    few = {"plain": (1e-4,), "adapters_only": (1e-3,), "freeze": (1e-4,)}
    monkeypatch.setattr(mllr, "RATES", few)
    monkeypatch.setattr(mllr, "CONTROLS", {name: mllr.CONTROLS[name] for name in few})
    monkeypatch.setattr(mogu, "STEPS", (1, 2))
    monkeypatch.setattr(mogu, "SHIFTS", (1,))
    monkeypatch.setattr(together, "LAST", "epoch=1")
    save_tiny(tmp_path / "model", layers=3)
    evidence = make(shared_data)
    run_steps(evidence.steps(tmp_path / "seed0", 0, controls), command)
    sections = evidence.sections(Rows(evidence.method, [evidence.values(tmp_path / "seed0")]))
    assert sections
    assert all(section.cells for section in sections)
    if evidence.method == "mllr":
        (table,) = sections
        assert [row[0].split()[0] for row in table.cells] == ["aligned", *few, "safelora"]
        assert not any("-" in row for row in table.cells[:-1])
