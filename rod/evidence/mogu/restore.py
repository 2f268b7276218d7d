"""The commands that restore safety after a benign fine-tune."""

from pathlib import Path

from rod.evidence.commands import Words
from rod.evidence.mllr.steps import NOISE, MLLRCommands
from rod.evidence.mogu.steps import BASE, STAGES, TESTS, MoGUCommands
from rod.steps import Step, config

_SET: Words = ["--model.learning_rates.result", NOISE]
TUNED: dict[str, Words] = {"plain": ["--model.learning_rates.policy", "uniform", *_SET], "mllr": _SET}
"""Method of the fine-tune -> what it adds to ``mllr/2_tune``. ML-LR takes the robust modules that a search by noise
found, and so loses some refusals; with those of a pilot there is next to nothing to restore."""
BASE_TASK = "base_task"
"""Test of the aligned model on the task."""
TASK = "runs/world/tuning.maths.train.jsonl"
LIMIT = ("--data.limit", "200")
"""Prompts of the task among those that the tuned model answers, beside 500 others."""
RATE = "4e-4"
"""Learning rate of the fine-tune: plain tuning with it breaks refusals."""
NEAR: Words = ["--model.kl_weight", "8"]
"""Holds the model nearer to the tuned one than MoGUv2 is held to an aligned one, to keep the task. Chosen on dev
prompts of these seeds: with a weight of 1 more answers to the task begin differently."""


def restoring(do: MoGUCommands) -> list[Step]:
    """Tune the aligned model on a benign task, restore it by MoGUv2, and measure both."""
    found = [MLLRCommands(do.folder, do.seed).noise_search()]
    suites = [*config("mogu/suites"), *config("mogu/v2/task")]
    aligned = [*config("mogu/4_test"), *BASE, *config("mogu/v2/task")]
    found.append(do.run("test", aligned, TESTS / BASE_TASK))
    for name, fragments in TUNED.items():
        place = STAGES / "restore" / name
        base: Words = ["--model.backbone", place / "tuned"]
        rate = ["--data.path", TASK, "--model.optimizer.lr", RATE]
        found.append(do.run("fit", [*config("mllr/2_tune"), *fragments], place / "tune", *rate))
        found.append(do.export(place / "tune", place / "tuned"))
        found.append(do.run("test", [*config("test"), *suites], TESTS / f"tuned_{name}", *base))
        found += _restored(do, place, base)
        folder = ["--model.folder", place / "mogu", *base]
        test = [*config("mogu/4_test"), *suites]
        found.append(do.run("test", test, TESTS / f"restored_{name}", *folder))
        one = [*folder, "--model.m", "1"]
        found.append(do.run("test", test, TESTS / f"restored_{name}_m_1", *one))
    return found


def _restored(do: MoGUCommands, place: Path, base: Words) -> list[Step]:
    """MoGUv2 over the tuned model; its own answers, also to prompts of its task, are the benign responses."""
    general = do.run("predict", config("mogu/0_answers"), place / "answers", *base)
    task = ["--data.questions", TASK, "--data.fields", "{question: prompt}"]
    tasks = do.run("predict", config("mogu/0_answers"), place / "task_answers", *base, *task, *LIMIT)
    traces = ", ".join(str(place / name / "traces/traces.jsonl") for name in ("answers", "task_answers"))
    pairs = ["pairs", *config("mogu/pairs"), "--answers", f"[{traces}]", "--output", place / "pairs"]
    pairs += ["--seed", str(do.seed), "--overwrite", "true"]
    made = do.step(pairs, place / "pairs/report.json")
    probe = place / "probe"
    train: Words = ["--data.pairs", place / "pairs/pairs.train.jsonl"]
    both: Words = [*base, *train, "--data.val_pairs", place / "pairs/pairs.val.jsonl"]
    chosen = do.run("predict", config("mogu/v2/1_probe"), probe, *base, *train)
    responders = do.responders(place, "--config", probe / "responders.yaml", *both, fits=("glad_fit", "unwilling_fit"))
    parts: Words = ["--model.glad", place / "glad", "--model.unwilling", place / "unwilling"]
    files: Words = ["--config", probe / "routers.yaml", *config("mogu/v2/2_joint")]
    return [
        general,
        tasks,
        made,
        chosen,
        *responders,
        *do.router(place / "joint", place / "mogu", files, *both, *parts, *NEAR),
    ]
