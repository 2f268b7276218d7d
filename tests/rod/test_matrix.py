"""Stages of every method on one process, on two data parallel ones and on two sharded ones: the same results."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from datamodules.records.reader import to_json
from datamodules.s3cot.records import CurriculumItem, Variant
from llm_modules.mogu.adapters import random_adapter, write_adapter
from llm_modules.mogu.target import output_projections
from llm_modules.s3cot import Direction
from rod.__main__ import main
from tests.processes import Processes
from tests.rod.test_mogu import write_pairs
from tests.tiny import save_tiny

WORLDS = {
    "one": [],
    "ddp": ["--trainer.devices", "2", "--trainer.strategy", "ddp"],
    "fsdp": ["--config", "trainer/fsdp"],
}
ROWS = {"s3cot/5_curriculum": 14, "mllr/2_tune": 10, "mogu/1_glad": 5, "mogu/3_router": 10, "mogu/v2/2_joint": 10}
"""Examples of an epoch. CRISP has none: its loss is a mean over the tokens of answers that it samples in each batch."""
SAMPLED = {"s3cot/2_calibrate", "s3cot/3_sample", "crisp/1_distill"}
"""Stages whose tokens are drawn; those of the others are the most likely ones."""
# Not Adam, which makes steps of one size of gradients that are nothing but rounding.
_FIT = (
    "--config fit.yaml --trainer.max_epochs 2 --trainer.max_steps -1 --trainer.log_every_n_steps 1"
    " --model.optimizer SGD --model.optimizer.lr {lr} --data.batch_size {batch}"
)
_PAIRS = "--data.pairs pairs/pairs.train.jsonl --data.val_pairs pairs/pairs.val.jsonl"
_MODULES = "--config rates.yaml"
_ROUTER = f"--model.router.d_router 4 --model.glad glad --model.unwilling unwilling --data.val_requests null {_PAIRS}"
STAGES = {
    "s3cot/1_direction": ("predict", "--data.questions questions.jsonl --data.limit 5", 0),
    "s3cot/2_calibrate": (
        "predict",
        "--data.questions questions.jsonl --data.limit 5 --data.alphas [0,-1] --data.layer_sets [0-1]"
        " --steer.direction direction.safetensors",
        0,
    ),
    "s3cot/3_sample": (
        "predict",
        "--data.questions questions.jsonl --data.limit 1 --data.alphas [0] --steer.direction direction.safetensors",
        0,
    ),
    "s3cot/5_curriculum": (
        "fit",
        "--data.items items.jsonl --data.items_per_stage 7 --data.val_questions questions.jsonl --data.val_limit 1"
        " --trainer.callbacks+ ReasoningMetrics --data.system2_items drawn --data.lower_bounds [0.3,0]",
        0.05,
    ),
    "s3cot/6_test": ("test", "--evaluate.baseline null --config suites.yaml", 0),
    "mllr/2_tune": ("fit", f"{_MODULES} --data.path instructions.jsonl --data.val_path instructions.jsonl", 0.01),
    "mogu/0_answers": ("predict", "--data.questions questions.jsonl --data.limit 3", 0),
    "mogu/1_glad": ("fit", f"--model.peft.lora_dropout 0 {_PAIRS}", 0.01),
    "mogu/3_router": ("fit", _ROUTER, 0.1),
    "mogu/v2/2_joint": ("fit", f"--config mogu/3_router --config mogu/v2/2_joint {_ROUTER}", 0.1),
    "mogu/4_test": ("test", "--model.folder mogu --config suites.yaml", 0),
    "crisp/1_distill": (
        "fit",
        "--trainer.callbacks+ ReasoningMetrics --data.questions questions.jsonl --data.limit 7"
        " --data.val_questions more.jsonl",
        0.05,
    ),
}


def write(path: Path, *records: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages read: few records, whose number no batch size divides."""
    folder = tmp_path_factory.mktemp("matrix")
    base = save_tiny(folder / "base", layers=2)
    write(folder / "questions.jsonl", *({"id": f"q{i}", "question": f"{i} + 1?", "gold": str(i)} for i in range(7)))
    write(folder / "more.jsonl", *({"id": f"v{i}", "question": f"{i} + 2?", "gold": str(i)} for i in range(3)))
    texts = [{"prompt": f"{i} * 2?", "response": "Two " * (i % 3 + 1)} for i in range(10)]
    write(folder / "instructions.jsonl", *texts)
    items = [
        CurriculumItem(f"t{i}", f"{i} * 1?", "3", "long " * 5, 26, (Variant("so " * (i % 3 + 1), 7, -0.5, 0.3),))
        for i in range(9)
    ]
    (folder / "items.jsonl").write_text("\n".join(map(to_json, items)))
    write_pairs(folder / "pairs", 5)
    projections = output_projections(AutoModelForCausalLM.from_pretrained(base))
    for seed, name in enumerate(("glad", "unwilling")):
        responder = random_adapter(projections, 2, 4, seed)
        write_adapter(responder, responder.deltas, folder / name)
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    Direction(vectors, model=str(base.resolve()), anchor=1).save(folder / "direction.safetensors")
    # Without the figures of the stages' own callbacks, which are drawn by one process anyway.
    checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"filename": "end"}}
    callbacks = [checkpoint, *({"class_path": name} for name in ("LearningRateMonitor", "GroupGradientNorms"))]
    (folder / "fit.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    rates = {"result": None, "modules": ["layers.1.*"]}
    (folder / "rates.yaml").write_text(yaml.safe_dump({"model": {"learning_rates": rates}}))
    source = {"local": {"file": "questions.jsonl"}}
    suites = [
        {"name": "maths", "kind": "answers", "source": source, "id": "id", "gold": "gold", "limit": 5},
        {"name": "one", "kind": "benign", "source": source, "id": "id", "limit": 1},
    ]
    evaluate = {"judges": [{"class_path": "RefusalPhrases"}]}
    (folder / "suites.yaml").write_text(yaml.safe_dump({"data": {"suites": suites}, "evaluate": evaluate}))
    return folder


def words_of(stage: str, world: str) -> list[str]:
    verb, options, rate = STAGES[stage]
    words = [verb, *([] if "--config mogu/3_router" in options else ["--config", stage]), *options.split()]
    if verb == "fit":
        batch = {"one": 4, "whole": ROWS.get(stage), "accumulated": 1}.get(world, 2)
        words += _FIT.format(lr=rate, batch=batch).split()
    else:
        words += ["--data.rows_per_batch", "2"] if "direction" not in stage else []
    if stage != "s3cot/1_direction":
        temperature = "1" if stage in SAMPLED else "0"
        words += ["--model.generation.temperature", temperature, "--model.generation.max_new_tokens", "8"]
    words += ["--model.backbone", "base", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    if world == "accumulated":
        words += ["--trainer.accumulate_grad_batches", str(ROWS[stage])]
    return [*words, *WORLDS.get(world, ()), "--trainer.default_root_dir", f"{world}/{stage}"]


def run_all(world: str) -> int:
    """Every stage, one after the other, in the processes of one world."""
    for stage in STAGES if world in WORLDS else ROWS:
        print(f"== {stage}", flush=True)
        if status := main(words_of(stage, world)):
            return status
        if stage == "mogu/3_router" and world == "one":
            main(
                ["export", "--checkpoint", f"one/{stage}/checkpoints/end.ckpt", "--format", "mogu", "--output", "mogu"]
            )
    return 0


@pytest.fixture(scope="module")
def results(inputs: Path) -> Path:
    for world in (*WORLDS, "whole", "accumulated"):
        ranks = 2 if world in ("ddp", "fsdp") else 1
        Processes(run_all, world, ranks=ranks, log=inputs / f"{world}.txt", cwd=inputs).succeed()
    return inputs


def logged(run: Path) -> dict[tuple[str, int], float]:
    """Validation losses and metrics, rates and gradient norms by group, by name and step.

    Losses of training steps are those of process 0 alone, and so are the means of gates.
    """
    (path,) = run.rglob("metrics.csv")
    return {
        (name, int(row["step"])): float(value)
        for row in csv.DictReader(path.open())
        for name, value in row.items()
        if value and name.startswith(("val/", "lr-", "grad_norm/")) and not re.search("_on_|second", name)
    }


def trained(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "end.ckpt", weights_only=True)["state_dict"]


def measured(run: Path) -> dict[str, Any]:
    found = json.loads((run / "metrics.json").read_text())
    return {key: found[key] for key in ("results", "macro")}


FITS = [stage for stage, (verb, *_) in STAGES.items() if verb == "fit"]
TESTS = [stage for stage, (verb, *_) in STAGES.items() if verb == "test"]
TRACES = ["s3cot/2_calibrate", "s3cot/3_sample", "mogu/0_answers"]
several = pytest.mark.parametrize("world", ["ddp", "fsdp"])


@pytest.mark.slow
@several
@pytest.mark.parametrize("stage", FITS)
def test_a_fit_has_the_same_losses_rates_and_weights(results: Path, stage: str, world: str) -> None:
    one, other = (logged(results / name / stage) for name in ("one", world))
    assert other == pytest.approx(one, rel=1e-3, abs=1e-6)
    assert {name for name, _ in one} > {"val/loss"} or stage in ("s3cot/5_curriculum", "crisp/1_distill")
    expected, found = (trained(results / name / stage) for name in ("one", world))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ROWS)
def test_accumulated_batches_of_one_row_equal_one_batch(results: Path, stage: str) -> None:
    one, other = (logged(results / name / stage) for name in ("whole", "accumulated"))
    assert other == pytest.approx({(name, step): value for (name, step), value in one.items()}, rel=1e-3, abs=1e-6)
    expected, found = (trained(results / name / stage) for name in ("whole", "accumulated"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@several
@pytest.mark.parametrize("stage", TRACES)
def test_sampling_writes_the_same_traces(results: Path, stage: str, world: str) -> None:
    one, other = ((results / name / stage / "traces/traces.jsonl").read_bytes() for name in ("one", world))
    assert other == one
    assert one


@pytest.mark.slow
@several
def test_a_direction_is_the_same(results: Path, world: str) -> None:
    one, other = (load_file(results / name / "s3cot/1_direction/direction.safetensors") for name in ("one", world))
    torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@several
@pytest.mark.parametrize("stage", TESTS)
def test_a_test_has_the_same_metrics_and_predictions(results: Path, stage: str, world: str) -> None:
    assert measured(results / world / stage) == measured(results / "one" / stage)
    one, other = ((results / name / stage / "predictions.jsonl").read_bytes() for name in ("one", world))
    assert other == one
