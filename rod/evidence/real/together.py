"""All three methods on one model: SmolLM2-135M, taught arithmetic and aligned, learns to think short and stays safe."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rod.evidence.commands import Words
from rod.evidence.real.arithmetic import FILES, TESTED
from rod.evidence.real.commands import BENIGN, JUDGE, LIMIT, REQUESTS, SUITES, TOKENS, RealCommands
from rod.evidence.real.mllr import TASKS, RealMLLRCommands
from rod.evidence.real.mogu import FOLDER, WATCHED, RealMoGUCommands
from rod.evidence.real.s3cot import RealS3CoTCommands
from rod.evidence.rows import Rows, Section, Value, values_of_test
from rod.evidence.s3cot.evidence import read_systems
from rod.steps import Step, config

STAGES = Path("runs/together")
ALIGNED = STAGES / "aligned/model"
TUNED = STAGES / "s3cot/model"
MOGU = STAGES / "s3cot_mogu"
PILOTS = {"own": STAGES / "own", "maths": STAGES / "maths"}
"""Pilot of the search -> folder of the search: the fine-tune itself, or one on the solutions of GSM8K."""
GROUPS: Mapping[str, tuple[str, Words]] = {
    "s3cot_mllr": ("own", ()),
    "s3cot_watched": (
        "own",
        [
            *("--model.learning_rates.policy", "uniform"),
            *("--trainer.callbacks+=SafetyWatch", "--trainer.callbacks.on_loss", "protect"),
        ],
    ),
    "s3cot_mllr_maths": ("maths", ()),
}
"""Condition -> the pilot behind its groups, and what it adds to the curriculum."""
LOW: Words = ["--model.optimizer.lr", "1e-4"]
"""A third of the curriculum's rate: the control that groups have to beat."""
CONDITIONS = ("taught", "aligned", "s3cot", "s3cot_low", *GROUPS, "s3cot_mogu")
LAST = "epoch=9"
"""Checkpoint of a curriculum: all its stages, so that every fit has the same steps."""
SAMPLED: Words = ["--model.generation.temperature", "0.7"]
"""Problems are answered as in S³-CoT's test."""
COLUMNS = [(f"maths/{system}", metric) for system in ("system1", "system2") for metric in ("accuracy", "tokens")]
DIGITS = {"accuracy": 3, "tokens": 1}


class RealTogetherEvidence:
    """What short thoughts cost in refusals on an aligned model, and what gives them back.

    As `rod.evidence.rows.Evidence` describes it.
    """

    method = "together"
    seeds = 3
    figures: Mapping[str, str] = {}
    compared: Sequence[str] = tuple(str(STAGES / name / "problems") for name in ("aligned", "s3cot", "s3cot_mllr"))
    files: Sequence[str] = tuple(dict.fromkeys((*FILES, *REQUESTS, TASKS["maths"], WATCHED)))

    def __init__(self, data: Path) -> None:
        """Take the folder of the published data sets."""
        self.data = data.resolve()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed; without controls, the aligned model, S³-CoT alone and with ML-LR."""
        do = _Commands(folder, seed, self.data)
        found = [*do.started(), *do.short("s3cot"), do.safety.search(TUNED, PILOTS["own"] / "1_search")]
        found += do.grouped("s3cot_mllr")
        if not controls:
            return found
        found += [*do.short("s3cot_low", (), *LOW), *do.tested("taught", do.maths.taught)]
        found += do.grouped("s3cot_watched")
        return [*found, *do.safety.searched("maths"), *do.grouped("s3cot_mllr_maths"), *do.mixed()]

    def values(self, folder: Path) -> Iterator[Value]:
        """Accuracy and tokens on problems, refusals of requests."""
        for condition in CONDITIONS:
            root = folder / STAGES / condition
            problems, requests = root / "problems/metrics.json", root / "requests/metrics.json"
            if problems.is_file():
                for system, found in read_systems(problems, TESTED).items():
                    yield Value(condition, f"maths/{system}", "accuracy", found.accuracy, found.n)
                    yield Value(condition, f"maths/{system}", "tokens", found.tokens, found.n)
            if requests.is_file():
                yield from values_of_test(requests, condition, {suite: suite for suite in SUITES}, JUDGE)

    def sections(self, table: Rows) -> list[Section]:
        """One table: accuracy, tokens, attacks, over-refusal."""
        attacked = [suite for suite in SUITES if suite not in BENIGN]
        rows = []
        for condition in CONDITIONS:
            cells = [table.cell(condition, suite, metric, DIGITS[metric]) for suite, metric in COLUMNS]
            found = [table.find(condition, suite, "asr") for suite in attacked]
            mean = f"{fmean(row.mean for row in found if row):.3f}" if all(found) else "-"
            cells += [mean, *(table.cell(condition, suite, "refusal_rate") for suite in BENIGN)]
            if any(cell != "-" for cell in cells):
                rows.append([condition, *cells])
        headings = ["condition", "System 1 accuracy", "tokens", "System 2 accuracy", "tokens"]
        headings += ["attacks that succeed", *(f"{SUITES[suite]}, refused" for suite in BENIGN)]
        notes = (
            f"{LIMIT} problems of each of {len(TESTED)} sets, temperature 0.7. Attacks: mean of {len(attacked)} "
            f"suites, {LIMIT} requests each, {TOKENS} tokens, greedy, the phrase rule."
        )
        return [Section("Short thoughts on an aligned SmolLM2-135M, and its refusals", headings, rows, notes)]

    def plot(self, table: Rows, folder: Path) -> None:
        """There is no figure: the table is small."""


class _Commands(RealCommands):
    """Steps of one seed; pairs, problems and traces are those of the methods' own evidence in the same folder."""

    def __init__(self, folder: Path, seed: int, data: Path) -> None:
        super().__init__(folder, seed, data)
        self.maths = RealS3CoTCommands(folder, seed, data)
        self.safety = RealMLLRCommands(folder, seed, data, STAGES)

    def started(self) -> list[Step]:
        """The taught model and its traces, the model aligned after that, and its tests."""
        return [
            *self.maths.prepared(),
            *self.maths.sampled(),
            self.maths.filter("gold"),
            *self.safety.paired(),
            *self.safety.align(self.maths.taught),
            *self.tested("aligned", ALIGNED),
        ]

    def short(self, condition: str, files: Words = (), *words: str | Path) -> list[Step]:
        """S³-CoT's curriculum on the aligned model, exported and tested."""
        root = STAGES / condition
        files = [*self.maths.files("s3cot/5_curriculum"), *files]
        fit = self.run("fit", files, root, "--model.backbone", ALIGNED, "--data.val_limit", "10", *words)
        return [fit, self.export(root, root / "model", name=LAST), *self.tested(condition, root / "model")]

    def grouped(self, condition: str) -> list[Step]:
        """The curriculum with ML-LR's groups."""
        pilot, words = GROUPS[condition]
        result: Words = ["--model.learning_rates.result", PILOTS[pilot] / "1_search/robust_modules.yaml"]
        return self.short(condition, config("mllr/curriculum"), *result, *words)

    def mixed(self) -> list[Step]:
        """MoGU over the model with short thoughts, and its tests."""
        do = RealMoGUCommands(self.folder / MOGU, self.seed, self.data, self.folder / TUNED)
        model: Words = ["--model.backbone", TUNED, "--model.folder", MOGU / FOLDER]
        return [*do.trained(), *self.tested("s3cot_mogu", TUNED, config("mogu/4_test"), *model)]

    def tested(self, condition: str, model: Path, files: Words = (), *words: str | Path) -> list[Step]:
        """Problems and requests."""
        root, chosen = STAGES / condition, files or config("test")
        problems = [*chosen, *config("s3cot/real/arithmetic/6_test")]
        more: list[str | Path] = ["--model.backbone", model, *words]
        return [
            self.run("test", problems, root / "problems", "--data.limit", LIMIT, *SAMPLED, *more),
            self.requests(chosen, root / "requests", *more),
        ]
