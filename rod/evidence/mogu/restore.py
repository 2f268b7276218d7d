"""Safety restored after a benign fine-tune: the commands, by what the model was tuned with."""

from pathlib import Path

from rod.evidence.commands import Words
from rod.evidence.mllr.steps import NOISE, MLLRCommands
from rod.evidence.mogu.steps import STAGES, TESTS, MoGUCommands
from rod.steps import Step, config

_SET: Words = ["--model.learning_rates.result", NOISE]
TUNED: dict[str, Words] = {"plain": ["--model.learning_rates.policy", "uniform", *_SET], "mllr": _SET}
"""How the model was tuned -> what that adds to ``mllr/2_tune.yaml``. ML-LR with the robust set of noise, which loses
some refusals; with that of a pilot there is next to nothing to restore."""
TASK = "runs/world/tuning.maths.train.jsonl"
LIMIT = ("--data.limit", "200")
"""Of the task's prompts; beside 500 others."""
RATE = "4e-4"
"""Of the fine-tune: at this rate plain tuning breaks refusals."""
NEAR: Words = ["--model.kl_weight", "8"]
"""Held nearer to the tuned model than the second version is to an aligned one: its task is to be kept. Chosen on dev
prompts of these seeds: with a weight of 1 the answers to the task begin otherwise more often."""


def restoring(do: MoGUCommands) -> list[Step]:
    """Tune the aligned model on a benign task, restore it by the second version, measure both."""
    found = [MLLRCommands(do.folder, do.seed).noise_search()]
    suites = [*config("mogu/suites"), *config("mogu/v2/task")]
    aligned = [
        *config("mogu/4_test"),
        *config("mogu/controls/base"),
        *config("mogu/v2/task"),
    ]
    found.append(do.run("test", aligned, TESTS / "base_task", drawn=False))
    for name, fragments in TUNED.items():
        place = STAGES / "restore" / name
        base: Words = ["--model.backbone", place / "tuned"]
        rate = ["--data.path", TASK, "--model.optimizer.lr", RATE]
        found.append(do.run("fit", [*config("mllr/2_tune"), *fragments], place / "tune", *rate))
        found.append(do.export(place / "tune", place / "tuned"))
        found.append(do.run("test", [*config("test"), *suites], TESTS / f"tuned_{name}", *base, drawn=False))
        found += _restored(do, place, base)
        folder = ["--model.folder", place / "mogu", *base]
        test = [*config("mogu/4_test"), *suites]
        found.append(do.run("test", test, TESTS / f"restored_{name}", *folder, drawn=False))
        one = [*test, *config("mogu/controls/m_1")]
        found.append(do.run("test", one, TESTS / f"restored_{name}_m_1", *folder, drawn=False))
    return found


def _restored(do: MoGUCommands, place: Path, base: Words) -> list[Step]:
    """The second version over the tuned model; its own answers, to its task's prompts too, are what stays glad."""
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
