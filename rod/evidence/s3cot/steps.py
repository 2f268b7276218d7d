"""The commands of S³-CoT's evidence."""

from collections.abc import Sequence
from pathlib import Path

from rod.run_folder import DONE
from rod.steps import Step, config

STAGES = Path("runs/s3cot")
"""Where the shipped configurations put a stage's folder, below the folder that a seed's commands run in."""


TRAINED = {
    "tuned": [],
    "tuned_no_gold": ["no_gold.yaml"],
    "shortest_only": ["shortest_only.yaml"],
    "no_curriculum": ["no_curriculum.yaml"],
}
"""Condition -> fragments over ``5_curriculum.yaml``."""


DIALS = {
    "steered": ["dial.yaml"],
    "steered_all": ["dial.yaml", "dial_all.yaml"],
    "steered_prompt": ["dial.yaml", "dial_prompt.yaml"],
    "steered_generated": ["dial.yaml", "dial_generated.yaml"],
    "random_direction": ["dial.yaml", "random_direction.yaml"],
}
"""Condition -> fragments over ``2_calibrate.yaml``: the dial on test problems."""


def tuned_steps(folder: Path, seed: int) -> list[Step]:
    """The commands up to the tuned model, for others to go on from."""
    return _steps(folder, seed, controls=False)


def _steps(folder: Path, seed: int, controls: bool, words_of_fit: Sequence[str] = ()) -> list[Step]:
    """The commands of one seed; they are those of the README, run in a folder of the seed's own."""

    def run(verb: str, stage: str, place: str, fragments: Sequence[str | Path] = (), *words: str) -> Step:
        files = [*config("s3cot", stage), *(w for f in fragments for w in _fragment(f))]
        words = (*words, "--seed_everything", str(seed))
        if stage != "1_direction.yaml":
            words = (*words, "--data.init_args.seed", str(seed))
        root = STAGES / place
        return Step(
            f"seed {seed}: {place}",
            [verb, *files, "--trainer.default_root_dir", root, *words],
            root / DONE,
            resume_from=root / "checkpoints/last.ckpt" if verb == "fit" else None,
            folder=folder,
        )

    def keep(by: str) -> Step:
        name = {"gold": "items.jsonl", "agreement": "items_agreement.jsonl"}[by]
        path = STAGES / "4_filter" / name
        words: list[str | Path] = [
            "filter",
            "--traces",
            STAGES / "3_sample/traces/traces.jsonl",
            "--by",
            by,
            "--output",
            path,
        ]
        return Step(f"seed {seed}: filter by {by}", [*words, "--overwrite", "true"], path, folder=folder)

    def test(condition: str, checkpoint: Path | None) -> Step:
        fragments = [] if checkpoint else ["base.yaml"]
        words = ["--ckpt_path", str(checkpoint)] if checkpoint else []
        return run("test", "6_test.yaml", f"6_test/{condition}", fragments, *words)

    choice = STAGES / "2_calibrate/choice.yaml"
    trained = TRAINED if controls else {"tuned": TRAINED["tuned"]}
    steps = [
        Step(f"seed {seed}: the world", ["world"], Path("runs/world/questions.test.jsonl"), folder=folder),
        run("predict", "1_direction.yaml", "1_direction", (), "--data.init_args.offset", str(100 * seed)),
        run("predict", "2_calibrate.yaml", "2_calibrate"),
        run("predict", "3_sample.yaml", "3_sample", [choice]),
        keep("gold"),
        *([keep("agreement")] if controls else []),
        *(run("fit", "5_curriculum.yaml", f"5_curriculum/{name}", f, *words_of_fit) for name, f in trained.items()),
        test("base", None),
        *(test(name, STAGES / f"5_curriculum/{name}/checkpoints/best.ckpt") for name in trained),
    ]
    if controls:
        steps += [run("predict", "2_calibrate.yaml", f"dial/{name}", files) for name, files in DIALS.items()]
    return steps


def _fragment(name: str | Path) -> list[str | Path]:
    """A control that comes with the project, by its file name, or a file that a stage wrote."""
    return config("s3cot", "controls", name) if isinstance(name, str) else ["--config", name]
