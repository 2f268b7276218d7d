"""The commands behind MoGU's evidence: those of its page, run in one folder per seed."""

from collections.abc import Sequence
from pathlib import Path

from rod.evidence.commands import Commands, Words
from rod.steps import Step, config

STAGES = Path("runs/mogu")
"""Folder of the stages, as the shipped configurations name it."""
TESTS = STAGES / "4_test"
LATENCIES = STAGES / "5_latency"
V2: list[str | Path] = ["--model.folder", STAGES / "v2/mogu"]
SFT = STAGES / "safety_sft/adapter"

GATES = "--trainer.callbacks+=SuiteGates"

MIXED: dict[str, Words] = {
    "mogu_first5": [GATES],
    "mogu_always": ["--model.mode", "always"],
    "mogu_keep_cache": ["--model.mode", "keep_cache"],
    "mogu_v2": [GATES, *V2],
}
"""Condition -> what its test adds to ``mogu/4_test``."""
BASE: Words = ["--model.mode", "off"]
RESPONDERS: dict[str, Words] = {
    "glad": ["--model.mode", "glad"],
    "unwilling": ["--model.mode", "unwilling"],
}
BASELINES: dict[str, Words] = {
    "safety_sft": config("mogu/controls/safety_sft_test"),
    "safedecoding": config("mogu/controls/safedecoding"),
    "safedecoding_sft": [*config("mogu/controls/safedecoding"), "--model.adapter", SFT],
    "conditional_steering": config("mogu/controls/conditional_steering"),
}
UNTRAINED: dict[str, Words] = {
    "self_reminder": config("mogu/controls/self_reminder"),
    "icd": config("mogu/controls/icd"),
}
"""Nothing is trained or drawn in them, nor in the base model: all seeds give the same answers."""
ABLATED_TESTS: dict[str, Words] = {
    "m_1": ["--model.m", "1"],
    "m_10": ["--model.m", "10"],
}
ABLATED_ROUTERS: dict[str, Words] = {
    "no_penalty": ["--model.penalty_weight", "0.0"],
    "lambda_05": ["--model.penalty_weight", "0.5"],
    "mask_all": ["--model.penalty_mask", "all"],
    "d_router_64": ["--model.router.d_router", "64"],
}
"""Ablation -> what it adds to ``mogu/3_router``."""
ABLATED_V2: dict[str, dict[str, Words]] = {
    "v2_layers_random": {"layers": ["--trainer.callbacks.selection", "random"]},
    "v2_layers_all": {"layers": ["--trainer.callbacks.selection", "all"]},
    "v2_backbone_frozen": {"joint": ["--model.backbone_peft", "null"]},
}
"""Condition -> what it adds to the choice of ``layers``, or to the ``joint`` stage."""
DEMO_PROMPTS = ("--data.limit", "100")
"""The demo asks both models a part of the prompts."""


class MoGUCommands(Commands):
    """Steps of one seed."""

    def test(self, condition: str, *words: str | Path) -> Step:
        """Refusals and answers on held-out prompts."""
        files = [*config("mogu/4_test"), *config("mogu/suites"), *words]
        return self.run("test", files, TESTS / condition)

    def latency(self, condition: str, *words: str | Path) -> Step:
        """Time of an answer to one prompt, over a few prompts of each suite."""
        files = [*config("mogu/4_test"), *config("mogu/suites"), *words, "--trainer.callbacks+=Latency"]
        return self.run("test", files, LATENCIES / condition, "--data.limit", "5")

    def data(self) -> list[Step]:
        """Requests, the base model's answers, and pairs, drawn anew for each seed."""
        pairs = ["pairs", *config("mogu/pairs"), "--seed", str(self.seed), "--overwrite", "true"]
        made = STAGES / "pairs/report.json"
        return [
            self.step(["world"], Path("runs/world/mogu.refusals.txt")),
            self.run("predict", config("mogu/0_answers"), STAGES / "0_answers"),
            self.step(pairs, made),
        ]

    def responders(
        self, place: Path = STAGES, *words: str | Path, fits: Sequence[str] = ("1_glad", "2_unwilling")
    ) -> list[Step]:
        """Train and export both responders."""
        steps = []
        for stage, fit, name in zip(("1_glad", "2_unwilling"), fits, ("glad", "unwilling"), strict=True):
            steps.append(self.run("fit", [*config(f"mogu/{stage}"), *words], place / fit))
            steps.append(self.export(place / fit, place / name, "peft", "best"))
        return steps

    def router(self, root: Path, output: Path, files: Words = (), *words: str | Path) -> list[Step]:
        """Train the routers and export the MoGU folder."""
        fit = self.run("fit", [*config("mogu/3_router"), *files], root, *words)
        return [fit, self.export(root, output, "mogu", "best")]


def conditions(do: MoGUCommands, controls: bool) -> list[Step]:
    """The method and its baselines; without controls, the method's own commands and two short tests."""
    prompts: Words = () if controls else DEMO_PROMPTS
    found = [*do.data(), *do.responders(), *do.router(STAGES / "3_router", STAGES / "mogu")]
    found += [do.test("base", *BASE, *prompts)] if do.seed == 0 else []
    found.append(do.test("mogu_first5", *MIXED["mogu_first5"], *prompts))
    if not controls:
        return found
    found += _baselines(do) + _v2(do)
    tests = RESPONDERS | MIXED | BASELINES | (UNTRAINED if do.seed == 0 else {})
    found += [do.test(name, *words) for name, words in tests.items() if name != "mogu_first5"]
    # Times are measured for every seed: nothing is drawn in them, but processes differ in speed.
    timed = {"base": BASE} | RESPONDERS | MIXED | BASELINES | UNTRAINED
    return found + [do.latency(name, *words) for name, words in timed.items()]


def _baselines(do: MoGUCommands) -> list[Step]:
    """Train the baselines on the same pairs."""
    fit = config("mogu/controls/safety_sft")
    return [
        do.run("fit", fit, STAGES / "safety_sft"),
        do.export(STAGES / "safety_sft", SFT, "peft", "best"),
        do.run("predict", config("mogu/controls/refusal_direction"), STAGES / "refusal_direction"),
    ]


def _v2(do: MoGUCommands, place: Path = STAGES / "v2", layers: Words = (), joint: Words = ()) -> list[Step]:
    """MoGUv2, reconstructed; ``layers`` and ``joint`` are added to the choice of layers and to the joint stage."""
    probe = place / "probe"
    found = [do.run("predict", [*config("mogu/v2/1_probe"), *layers], probe)]
    found += do.responders(place, "--config", probe / "responders.yaml", fits=("glad_fit", "unwilling_fit"))
    files: Words = ["--config", probe / "routers.yaml", *config("mogu/v2/2_joint"), *joint]
    return [*found, *do.router(place / "joint", place / "mogu", files, *_parts(place))]


def _parts(place: Path) -> Words:
    """The responders in a folder."""
    return ["--model.glad", place / "glad", "--model.unwilling", place / "unwilling"]


def ablations(do: MoGUCommands) -> list[Step]:
    """One choice changed at a time, in both versions."""
    found = [do.test(name, *words) for name, words in ABLATED_TESTS.items()]
    folders = {}
    for name, words in ABLATED_ROUTERS.items():
        folders[name] = STAGES / f"3_router/{name}/mogu"
        found += do.router(STAGES / f"3_router/{name}", folders[name], words)
    place = STAGES / "no_contrast"
    found += do.responders(place, "--model.loss", "wanted")
    found += do.router(place / "router", place / "mogu", (), *_parts(place))
    folders["no_contrast"] = place / "mogu"
    for name, added in ABLATED_V2.items():
        found += _v2(do, STAGES / name, **added)
        folders[name] = STAGES / name / "mogu"
    return found + [do.test(name, "--model.folder", folder) for name, folder in folders.items()]
