"""Commands on SmolLM2-135M-Instruct and published requests that several methods begin or end with."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from rod.evidence.commands import Commands, Words
from rod.steps import Step, config

STAGES = Path("runs/mogu")
"""Folder of MoGU's stages, as the shipped configurations name it."""
MIXED = STAGES / "mixed/pairs"
"""Pairs of several sources of each class."""
SOURCES: Mapping[str, str | None] = {
    "alpaca": "alpaca_subsets/random_9k.jsonl",
    "dolly": "alpaca_subsets/dolly_3k.jsonl",
    "near_twins": None,  # written for this project
}
"""Benign requests: configuration in ``mogu/real`` -> file in the folder of data sets."""
ADVBENCH = "advbench/advbench.jsonl"
OTHER = "activation_steering_demo/condition_harmful__train.jsonl"
TWINNED = STAGES / "other.jsonl"
"""Those of OTHER with a word of the twin list: without borderline requests, which teach to refuse harmless ones."""
N_OTHER, N_OTHER_ALIGNED = "120", "300"
"""Malicious requests of a second source, among MoGU's pairs and among those that a model is aligned with."""
SUITES = {
    "advbench-held-out": "AdvBench, held out",
    "malicious_instruct": "MaliciousInstruct",
    "jailbreakbench": "JailbreakBench",
    "strongreject": "StrongREJECT",
    "simple_safety_tests": "SimpleSafetyTests",
    "xstest-unsafe": "XSTest unsafe",
    "xstest-safe": "XSTest safe",
    "just_eval": "just_eval",
}
"""Suite -> name in the report; the last two are benign."""
BENIGN = ("xstest-safe", "just_eval")
SUITE_FILES = {
    "malicious_instruct": "malicious_instruct/malicious_instruct.jsonl",
    "jailbreakbench": "jailbreakbench/jailbreakbench.jsonl",
    "strongreject": "strongreject/strongreject.jsonl",
    "simple_safety_tests": "simple_safety_tests/simple_safety_tests.jsonl",
    "xstest": "xstest/xstest_prompts.jsonl",
    "just_eval": "just_eval/just_eval_instruct_1000.jsonl",
}
"""Shipped suite -> its local file."""
LIMIT, TOKENS = "100", "48"
"""Records of a suite, and tokens of an answer: a refusal shows in its first words."""
JUDGE = "phrases"
"""The phrase rule, which anybody can apply."""
REQUESTS = (*filter(None, SOURCES.values()), OTHER, ADVBENCH, *SUITE_FILES.values())
"""Files in the folder of data sets that pairs and suites are read from."""


class RealCommands(Commands):
    """Steps of one seed; all seeds share the model, which ``model`` replaces."""

    def __init__(self, folder: Path, seed: int, data: Path, model: Path | None = None) -> None:
        """Work in ``folder`` with ``seed``, on data sets in ``data``."""
        super().__init__(folder, seed)
        self.data, self.place = data, model or folder.parent / "model"
        self.base: Words = ["--model.backbone", self.place]

    def model(self) -> Step:
        """Fetch the model once."""
        words: Words = ["real-model", "--output", self.place, "--overwrite", "true"]
        return self.step(words, self.place / "tokenizer_config.json")

    def answers(self, source: str) -> Step:
        """The base model's answers to the benign requests of a source."""
        file = SOURCES[source]
        questions: Words = ["--data.questions", self.data / file] if file else []
        files = config("mogu/0_answers", f"mogu/real/{source}")
        return self.run("predict", files, _answers(source), *questions, *self.base)

    def pairs(self, output: Path, sources: Iterable[str], *more: str | Path) -> Step:
        """Pairs of these sources, drawn anew for each seed."""
        traces = ", ".join(str(_answers(source) / "traces/traces.jsonl") for source in sources)
        words: Words = ["pairs", *config("mogu/pairs", "mogu/real/advbench"), "--answers", f"[{traces}]", *more]
        words = [*words, "--malicious", self.data / ADVBENCH, "--output", output]
        return self.step([*words, "--seed", str(self.seed), "--overwrite", "true"], output / "report.json")

    def mixed(self) -> list[Step]:
        """Pairs of several sources of each class."""
        twins: Words = ["make-twins", "--requests", self.data / OTHER, "--field", "harmful", "--output", TWINNED]
        other: Words = ["--other_malicious", TWINNED, "--other_field", "malicious", "--n_other", N_OTHER]
        return [self.step([*twins, "--overwrite", "true"], TWINNED), self.pairs(MIXED, SOURCES, *other)]

    def requests(self, files: Words, root: Path, *words: str | Path) -> Step:
        """Malicious and benign requests, a part of each suite."""
        suites = config("mogu/real/held_out", *(f"suites/{name}" for name in SUITE_FILES))
        data: Words = ["--data.folder", self.data, "--data.limit", LIMIT, "--data.max_new_tokens", TOKENS]
        return self.run("test", [*files, *suites], root, *data, *words)


def _answers(source: str) -> Path:
    return STAGES / f"0_answers_{source}"
