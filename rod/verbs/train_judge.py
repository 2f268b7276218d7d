"""``rod train-judge``: train the refusal classifier, and estimate its agreement on models that it has not seen."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_modules.judges.labelled_answers import READINGS, AnswerSource
from llm_modules.judges.training_settings import TrainingSettings

if TYPE_CHECKING:
    from rich.table import Table

    from llm_modules.judges.labelled_answers import LabelledAnswer
    from llm_modules.judges.training import LeftOut


def run(
    sources: list[AnswerSource],
    settings: TrainingSettings,
    output: Path,
    data: Path = Path("data"),
    readings: Path = READINGS,
    sentences: bool = True,
    estimate: bool = True,
    strict: bool = False,
    overwrite: bool = False,
) -> None:
    """Train the refusal classifier on files of labelled answers.

    Writes ``refusal.safetensors`` and ``refusal.json``. With ``estimate`` it also writes ``leave_one_out.json``, the
    agreement with a model's labels of the phrase rule and of classifiers that know neither the model nor the prompts,
    and ``disagreements.jsonl``. The same files give the same bytes on one kind of CPU.

    Args:
        sources: Files of labelled answers.
        settings: Settings of the training.
        output: Folder for the weights and the report.
        data: Folder that file paths are relative to.
        readings: JSON file with labels by id.
        sentences: Also train on the project's own sentences.
        estimate: Leave out one model after the other.
        strict: Stop at the first bad line; otherwise bad lines are set aside in ``output`` and counted.
        overwrite: Replace the weights of an earlier run.
    """
    import torch

    from llm_modules.judges.labelled_answers import own_sentences, read_sources
    from rod.files import require_new

    require_new([output / "refusal.safetensors", output / "refusal.json"], overwrite)
    output.mkdir(parents=True, exist_ok=True)
    placed = [
        replace(source, path=data / source.path, prompts=data / source.prompts if source.prompts else None)
        for source in sources
    ]
    answers = read_sources(placed, readings, strict, output)
    answers += own_sentences() if sentences else []
    about: dict[str, object] = {
        "settings": asdict(settings),
        "answers": len(answers),
        "refused": sum(answer.refused for answer in answers),
        "sources": list(dict.fromkeys(answer.source for answer in answers)),
    }
    # The rounding of sums depends on the number of threads; with one, every machine of one kind writes the same bytes.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _train(answers, settings, about, [source.name for source in sources if source.leave_out and estimate], output)
    finally:
        torch.set_num_threads(threads)


def _train(
    answers: list["LabelledAnswer"],
    settings: TrainingSettings,
    about: dict[str, object],
    held_out: list[str],
    output: Path,
) -> None:
    import json

    from rich.console import Console

    from datamodules.records.shards import write_lines
    from llm_modules.judges.training import leave_one_out, train

    console = Console()
    model = train(answers, settings, about)
    if held_out:
        left_out = leave_one_out(answers, held_out, settings, lambda name: console.print(f"leaving out {name}"))
        rows = [row for found in left_out for row in rows_of(found)]
        write_lines(output / "leave_one_out.json", [json.dumps({"about": about, "rows": rows}, indent=1)])
        wrong = [line for found in left_out for line in _disagreements(found)]
        write_lines(output / "disagreements.jsonl", [json.dumps(line, ensure_ascii=False) for line in wrong])
        console.print(_table(rows))
    model.save(output)
    console.print(f"wrote {output}: {len(model.ngrams)} n-grams of {len(answers)} answers", highlight=False)


def rows_of(found: "LeftOut") -> list[dict[str, object]]:
    """Agreement of classifier and phrase rule with a source's labels: overall, for safe and for unsafe requests."""
    from callbacks.evaluation.metrics import wilson_interval
    from llm_modules.judges.phrases import RULES

    def row(part: str, chosen: list[int]) -> dict[str, object]:
        labels = [found.answers[index].refused for index in chosen]
        said = {
            "phrases": [RULES["xstest_anywhere"].refused(found.answers[index].completion) for index in chosen],
            "classifier": [found.refusal[index] >= 0.5 for index in chosen],
            "classifier_kin": [found.refusal_kin[index] >= 0.5 for index in chosen],
        }
        right = {judge: sum(map(bool.__eq__, labels, answers)) for judge, answers in said.items()}
        shares = {judge: count / len(chosen) for judge, count in right.items()}
        intervals = {f"{judge}_interval": wilson_interval(count, len(chosen)) for judge, count in right.items()}
        return {"source": found.source, "part": part, "n": len(chosen), **shares, **intervals}

    unsafe = [answer.unsafe for answer in found.answers]
    parts = {"all": list(range(len(unsafe)))}
    for part, flag in (("safe", False), ("unsafe", True)):
        parts[part] = [index for index, value in enumerate(unsafe) if value is flag]
    return [row(part, chosen) for part, chosen in parts.items() if chosen]


def _disagreements(found: "LeftOut") -> list[dict[str, object]]:
    """Answers that the classifier without the family judges wrongly, the most confident first."""
    pairs = zip(found.answers, found.refusal, strict=True)
    wrong = [(answer, refusal) for answer, refusal in pairs if (refusal >= 0.5) is not answer.refused]
    wrong.sort(key=lambda pair: -abs(pair[1] - 0.5))
    return [
        {
            "source": found.source,
            "refused": answer.refused,
            "refusal": round(refusal, 4),
            "prompt": answer.prompt,
            "completion": answer.completion,
        }
        for answer, refusal in wrong
    ]


def _table(rows: Sequence[dict[str, object]]) -> "Table":
    from rich.table import Table

    table = Table(title="agreement with the labels, % (95 % interval)")
    for heading in ("left out", "requests", "n", "phrase rule", "classifier, family unseen", "..., family seen"):
        table.add_column(heading)
    for row in rows:
        judges = ("phrases", "classifier", "classifier_kin")
        cells = [_cell(row[judge], row[f"{judge}_interval"]) for judge in judges]
        table.add_row(str(row["source"]), str(row["part"]), str(row["n"]), *cells)
    return table


def _cell(share: Any, interval: Any) -> str:
    low, high = interval
    return f"{100 * share:.1f} ({100 * low:.1f}-{100 * high:.1f})"
