"""The commands that `benchmarks/reliability.py` disturbs: every stage of every method, made short on the miniature.

Each runs in a folder that has the products of the others in ``inputs``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A command: its words, the files that it leaves in the folder of its name, what it reads, and its processes."""

    words: str
    products: tuple[str, ...]
    reads: str | None = None
    """A file with a checksum, in ``inputs``, in which bits may flip."""
    ranks: int = 1


BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
_FIT = "--trainer.max_epochs 2 --recovery_minutes 0.002 --resume auto"
_PAIRS = "--data.pairs inputs/pairs/pairs.train.jsonl --data.val_pairs inputs/pairs/pairs.val.jsonl --data.batch_size 4"
_SAMPLE = Job(
    "predict --config s3cot/3_sample --steer.direction inputs/direction/direction.safetensors --data.limit 8"
    " --data.questions inputs/world/questions.train.jsonl --data.alphas [0,-1] --data.rows_per_batch 4"
    " --model.generation.max_new_tokens 200",
    ("traces/traces.jsonl",),
    "direction/direction.safetensors",
)
_CURRICULUM = Job(
    "fit --config s3cot/5_curriculum --data.items inputs/filter/items.jsonl --data.items_per_stage 4"
    " --data.lower_bounds [0.5,0] --data.val_questions inputs/world/questions.dev.jsonl --data.val_limit 2"
    f" --data.batch_size 1 --model.generation.max_new_tokens 24 {_FIT}",
    (BEST,),
)
_TEST = Job(
    "test --config s3cot/6_test --evaluate.baseline null --data.suites.source.local.file"
    f" inputs/world/questions.test.jsonl --model.generation.max_new_tokens 60 --ckpt_path inputs/curriculum/{BEST}",
    ("predictions.jsonl",),
    f"curriculum/{BEST}",
)
_ROUTER = Job(
    "fit --config mogu/3_router --model.glad inputs/glad_adapter --model.unwilling inputs/unwilling_adapter"
    f" --data.val_requests null {_PAIRS} {_FIT}",
    (BEST,),
    "glad_adapter/adapter_model.safetensors",
)


def _on_two(job: Job) -> Job:
    return Job(f"{job.words} --trainer.devices 2 --trainer.strategy ddp", job.products, job.reads, ranks=2)


def _export(name: str, output: str, form: str, checkpoint: str = BEST) -> Job:
    words = f"export --checkpoint inputs/{name}/{checkpoint} --format {form} --output {output} --overwrite true"
    return Job(words, ("*.safetensors",), f"{name}/{checkpoint}")


JOBS = {
    "world": Job("world --output world --n_train 40 --n_dev 12 --n_test 12", ("*.jsonl",)),
    "direction": Job(
        "predict --config s3cot/1_direction --data.questions inputs/world/questions.train.jsonl --data.limit 12",
        ("direction.safetensors",),
    ),
    "sample": _SAMPLE,
    "sample_ddp": _on_two(_SAMPLE),
    "filter": Job(
        "filter --traces inputs/sample/traces/traces.jsonl --output filter/items.jsonl --overwrite true",
        ("items.jsonl", "items.dropped.jsonl", "items.report.json"),
    ),
    "curriculum": _CURRICULUM,
    "curriculum_ddp": _on_two(_CURRICULUM),
    "crisp": Job(
        "fit --config crisp/1_distill --data.questions inputs/world/questions.train.jsonl --data.limit 8"
        " --data.val_questions inputs/world/questions.dev.jsonl --data.val_limit 2 --data.batch_size 2"
        f" --model.generation.max_new_tokens 16 {_FIT}",
        (BEST,),
    ),
    "export": _export("curriculum", "export", "merged"),
    "test": _TEST,
    "test_ddp": _on_two(_TEST),
    "answers": Job(
        "predict --config mogu/0_answers --data.questions inputs/world/mogu.benign.jsonl --data.limit 24"
        " --model.generation.max_new_tokens 40",
        ("traces/traces.jsonl",),
    ),
    "pairs": Job(
        "pairs --config mogu/pairs --answers inputs/answers/traces/traces.jsonl --output pairs --n_train 8 --n_val 4"
        " --malicious inputs/world/mogu.malicious.jsonl --refusals inputs/world/mogu.refusals.txt --overwrite true",
        ("pairs.*.jsonl", "held_out.jsonl"),
    ),
    "glad": Job(f"fit --config mogu/1_glad {_PAIRS} {_FIT}", (BEST,)),
    "unwilling": Job(f"fit --config mogu/2_unwilling {_PAIRS} {_FIT}", (BEST,)),
    "glad_adapter": _export("glad", "glad_adapter", "peft"),
    "unwilling_adapter": _export("unwilling", "unwilling_adapter", "peft"),
    "router": _ROUTER,
    "router_ddp": _on_two(_ROUTER),
    "mogu": _export("router", "mogu", "mogu"),
    "search": Job(
        "predict --config mllr/1_probe_and_search --config mllr/controls/noise --data.limit 24"
        " --data.pairs inputs/world/twins.train.jsonl --data.evaluation null",
        ("robust_modules.yaml", "robustness.csv"),
    ),
    "tune": Job(
        "fit --config mllr/2_tune --model.learning_rates.result inputs/search/robust_modules.yaml --trainer.max_steps 8"
        " --data.batch_size 4 --data.path inputs/world/tuning.maths.train.jsonl --recovery_minutes 0.002 --resume auto",
        (LAST,),
    ),
    "tuned": _export("tune", "tuned", "merged", LAST),
}


def words_of(name: str) -> list[str]:
    """The words of a job; Lightning's verbs get their folder."""
    words = JOBS[name].words.split()
    if words[0] in ("fit", "predict", "test"):
        words += ["--trainer.default_root_dir", name, "--trainer.accelerator", "cpu"]
        words += ["--trainer.enable_progress_bar", "false"]
    return words


def needed(jobs: list[str]) -> list[str]:
    """The jobs and those whose products they read, in order."""
    found, more = set(jobs), True
    while more:
        read = {part.split("/")[0].split()[0] for name in found for part in JOBS[name].words.split("inputs/")[1:]}
        more = not read <= found
        found |= read
    return [name for name in JOBS if name in found]
