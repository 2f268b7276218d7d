"""The commands behind MoGU's evidence: those of its page, run in a folder of the seed's own."""

from collections.abc import Sequence
from pathlib import Path

from rod.evidence.commands import Commands, Words
from rod.steps import Step, config

STAGES = Path("runs/mogu")
"""Where the shipped configurations put a stage's folder, below the folder that a seed's commands run in."""
TESTS = STAGES / "4_test"
LATENCIES = STAGES / "5_latency"
V2: list[str | Path] = ["--model.folder", STAGES / "v2/mogu"]
SFT = STAGES / "safety_sft/adapter"

GATES = "--trainer.callbacks+=SuiteGates"

MIXED: dict[str, Words] = {
    "mogu_first5": [GATES],
    "mogu_always": config("mogu/controls/always"),
    "mogu_keep_cache": config("mogu/controls/keep_cache"),
    "mogu_v2": [GATES, *V2],
}
"""Condition -> what its test adds to ``4_test.yaml``."""
RESPONDERS: dict[str, Words] = {
    "glad": config("mogu/controls/glad_only"),
    "unwilling": config("mogu/controls/unwilling_only"),
}
RIVALS: dict[str, Words] = {
    "safety_sft": config("mogu/controls/safety_sft_test"),
    "safedecoding": config("mogu/controls/safedecoding"),
    "safedecoding_sft": [*config("mogu/controls/safedecoding"), "--model.adapter", SFT],
    "conditional_steering": config("mogu/controls/conditional_steering"),
}
UNTRAINED: dict[str, Words] = {
    "self_reminder": config("mogu/controls/self_reminder"),
    "icd": config("mogu/controls/icd"),
}
"""Nothing is learnt or drawn in them, nor in the base model: every seed would give the first one's answers."""
ABLATED_TESTS: dict[str, Words] = {
    "m_1": config("mogu/controls/m_1"),
    "m_10": config("mogu/controls/m_10"),
}
ABLATED_ROUTERS = ("no_penalty", "lambda_05", "mask_all", "d_router_64")
ABLATED_V2: dict[str, dict[str, Words]] = {
    "v2_layers_random": {"layers": ["--trainer.callbacks.selection", "random"]},
    "v2_layers_all": {"layers": ["--trainer.callbacks.selection", "all"]},
    "v2_backbone_frozen": {"joint": ["--model.backbone_peft", "null"]},
}
"""Condition -> what it adds to the choice of ``layers``, or to the ``joint`` stage."""
DEMO_PROMPTS = ("--data.limit", "100")
"""In the demo both models are put a part of the prompts."""


class MoGUCommands(Commands):
    """Steps of one seed."""

    def test(self, condition: str, *words: str | Path) -> Step:
        """What is refused and what is answered, on held-out prompts."""
        files = [*config("mogu/4_test"), *config("mogu/suites"), *words]
        return self.run("test", files, TESTS / condition, drawn=False)

    def latency(self, condition: str, *words: str | Path) -> Step:
        """What an answer to one prompt takes; of the suites, a few prompts each."""
        files = [*config("mogu/4_test"), *config("mogu/suites"), *words, "--trainer.callbacks+=Latency"]
        return self.run("test", files, LATENCIES / condition, "--data.limit", "5", drawn=False)

    def data(self) -> list[Step]:
        """Requests, the base model's answers, pairs: another draw of them for each seed."""
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
        """Both responders and their folders."""
        steps = []
        for stage, fit, name in zip(("1_glad", "2_unwilling"), fits, ("glad", "unwilling"), strict=True):
            steps.append(self.run("fit", [*config(f"mogu/{stage}"), *words], place / fit))
            steps.append(self.export(place / fit, place / name, "peft", "best"))
        return steps

    def router(self, root: Path, output: Path, files: Words = (), *words: str | Path) -> list[Step]:
        """The routers and the folder of the whole."""
        fit = self.run("fit", [*config("mogu/3_router"), *files], root, *words)
        return [fit, self.export(root, output, "mogu", "best")]


def conditions(do: MoGUCommands, controls: bool) -> list[Step]:
    """The method and its rivals; without controls, the method's own commands and two short tests."""
    base = config("mogu/controls/base")
    prompts: Words = () if controls else DEMO_PROMPTS
    found = [*do.data(), *do.responders(), *do.router(STAGES / "3_router", STAGES / "mogu")]
    found += [do.test("base", *base, *prompts)] if do.seed == 0 else []
    found.append(do.test("mogu_first5", *MIXED["mogu_first5"], *prompts))
    if not controls:
        return found
    found += _rivals(do) + _v2(do)
    tests = RESPONDERS | MIXED | RIVALS | (UNTRAINED if do.seed == 0 else {})
    found += [do.test(name, *words) for name, words in tests.items() if name != "mogu_first5"]
    # Nothing is drawn of the times, but one process is faster than another.
    timed = {"base": base} | RESPONDERS | MIXED | RIVALS | UNTRAINED
    return found + [do.latency(name, *words) for name, words in timed.items()]


def _rivals(do: MoGUCommands) -> list[Step]:
    """What the rivals learn from the same pairs."""
    fit = config("mogu/controls/safety_sft")
    return [
        do.run("fit", fit, STAGES / "safety_sft"),
        do.export(STAGES / "safety_sft", SFT, "peft", "best"),
        do.run("predict", config("mogu/controls/refusal_direction"), STAGES / "refusal_direction", drawn=False),
    ]


def _v2(do: MoGUCommands, place: Path = STAGES / "v2", layers: Words = (), joint: Words = ()) -> list[Step]:
    """The second version, reconstructed; ``layers`` is added to the choice of layers, ``joint`` to the joint stage."""
    probe = place / "probe"
    found = [do.run("predict", [*config("mogu/v2/1_probe"), *layers], probe)]
    found += do.responders(place, "--config", probe / "responders.yaml", fits=("glad_fit", "unwilling_fit"))
    files: Words = ["--config", probe / "routers.yaml", *config("mogu/v2/2_joint"), *joint]
    return [*found, *do.router(place / "joint", place / "mogu", files, *_parts(place))]


def _parts(place: Path) -> Words:
    """The responders of a folder."""
    return ["--model.glad", place / "glad", "--model.unwilling", place / "unwilling"]


def ablations(do: MoGUCommands) -> list[Step]:
    """One choice changed at a time; with the second version's."""
    found = [do.test(name, *words) for name, words in ABLATED_TESTS.items()]
    folders = {name: STAGES / f"3_router/{name}/mogu" for name in ABLATED_ROUTERS}
    for name in ABLATED_ROUTERS:
        files = config(f"mogu/controls/{name}")
        found += do.router(STAGES / f"3_router/{name}", folders[name], files)
    place = STAGES / "no_contrast"
    found += do.responders(place, *config("mogu/controls/no_contrast"))
    found += do.router(place / "router", place / "mogu", (), *_parts(place))
    folders["no_contrast"] = place / "mogu"
    for name, words in ABLATED_V2.items():
        found += _v2(do, STAGES / name, **words)
        folders[name] = STAGES / name / "mogu"
    return found + [do.test(name, "--model.folder", folder) for name, folder in folders.items()]
