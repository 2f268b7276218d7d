"""The callback behind ``rod test``: writes every completion, scores all of them, and reports the results."""

import glob
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from callbacks.evaluation.budgets import budgets_json
from callbacks.evaluation.measures import Baseline
from callbacks.evaluation.predictions import log_samples, prediction_of
from callbacks.evaluation.report import (
    Result,
    library_versions,
    metrics_json,
    model_of,
    perplexities,
    read_baseline,
    results_of,
    scalars,
)
from callbacks.evaluation.scoring import JUDGED, check_answers, default_judges, score_predictions
from callbacks.evaluation.table import answer_hints, print_table
from callbacks.generation.completion_writer import CompletionWriter, Finished
from callbacks.generation.run_settings import generation_settings
from callbacks.trainer_parts import datamodule_of, language_model
from datamodules.answers import AnswerChecker
from datamodules.answers.rule import AnswerRule
from datamodules.batch import PromptRow, ResponseBatch
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import GenerationData
from datamodules.records.reader import read_records, to_json
from datamodules.records.shards import JsonlShard, id_lines, merge_shards, write_lines
from datamodules.records.validation import parser
from datamodules.suites.benchmark_data import BenchmarkData
from datamodules.suites.items import check_golds
from datamodules.suites.predictions import Prediction, ScoredResponse
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion
from llm_modules.judges import Judge

PRODUCTS = ("predictions.jsonl", "responses.jsonl", "metrics.json")
_RESPONSES = "responses.rank*.jsonl"


class Evaluate(CompletionWriter):
    """Measures a model on `BenchmarkData`.

    Writes ``completions.rank*.jsonl`` during generation. At the end it writes ``predictions.jsonl`` (prompt,
    completion, answer and verdicts of each row) and ``metrics.json`` (the metrics with their intervals, the settings,
    the model and the judges). A killed run resumes; if its completions are complete, they are only scored.
    """

    verb = "test"
    name = "completions"

    def __init__(
        self,
        judges: list[Judge] | None = None,
        baseline: Path | None = None,
        judge_thoughts: bool = False,
        output: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        """Choose the judges and the baseline.

        Args:
            judges: Judges of the completions of safety and benign suites; the printed table has the verdicts of the
                first. By default the refusal classifier and the phrase rule of the literature.
            baseline: ``metrics.json`` of a test of the base model on the same suites, for AES.
            judge_thoughts: Let the judges judge the thoughts too, apart from the answers (``thought_asr/...``).
            output: Folder of the files; the run folder by default.
            overwrite: Remove the files of an earlier run.
        """
        super().__init__(output, overwrite)
        self.judges = judges if judges is not None else default_judges()
        self.baseline_file, self.judge_thoughts = baseline, judge_thoughts
        self.baseline: dict[str, Baseline] = {}
        self.results: list[Result] = []
        self._responses: JsonlShard | None = None
        self._by_text = _ByText()

    def folder(self, trainer: Trainer) -> Path:
        """Folder of the files."""
        return self.output or Path(trainer.default_root_dir)

    def check(self, trainer: Trainer, module: CausalLM, data: GenerationData) -> None:
        """Check gold answers, prompt lengths, judges and the baseline. InputError if one of them cannot be used."""
        if not isinstance(data, BenchmarkData):
            raise InputError("data: rod test measures suites; use BenchmarkData and fragments of configs/suites")
        if any(suite.kind in JUDGED for suite in data.suites.values()):
            for judge in self.judges:
                judge.check()
        names = [judge.name for judge in self.judges]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"evaluate.judges: two are called '{twice[0]}'; give each a name of its own")
        if self.baseline_file is not None:
            self.baseline = read_baseline(self.baseline_file, module.model_id)
        _check_lengths(data, module.max_positions)
        with AnswerChecker() as checker:
            for suite in data.suites.values():
                check_golds(suite.name, suite.answer, data.items_of(suite), checker)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set up like `CompletionWriter`; skips responses that are scored already, too."""
        if stage == self.verb and self.overwrite and trainer.is_global_zero:
            folder = self.folder(trainer)
            for path in (*folder.glob(_RESPONSES), *(folder / name for name in PRODUCTS)):
                path.unlink(missing_ok=True)
        super().setup(trainer, pl_module, stage)

    def records(self, finished: Sequence[Finished]) -> list[Prediction]:
        """An unscored prediction for each row; for the progress, answers that their text decides are checked."""
        made = [self._prediction(row, completion) for row, completion in finished]
        with suppress(InputError):  # of a pattern that takes too long, which the report tells when all is written
            own = [p for p in made if p.kind == "answers" and p.gold is not None]
            self.count_verdicts(p.correct for p in check_answers(own, self._by_text))
        return made

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's files."""
        super().on_test_start(trainer, pl_module)
        self._responses = JsonlShard(self.folder(trainer) / f"responses.rank{trainer.global_rank}.jsonl")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the batch's completions or likelihoods."""
        self.flush()
        if isinstance(batch, ResponseBatch) and self._responses is not None:
            given = {response.id: response for response in _data_of(trainer).responses}
            for key, likelihood in zip(batch.ids, outputs, strict=True):
                own = given[key]
                scored = ScoredResponse(key, own.suite, likelihood.nll, likelihood.n_tokens, own.digest)
                self._responses.append(scored)
            self._responses.flush()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the processes' files, score, write and print."""
        self.close()
        language_model(pl_module).end_vllm()  # judges may need its memory
        merged = self.merge(trainer)
        if trainer.is_global_zero:
            self._report(trainer, language_model(pl_module), merged)
        trainer.strategy.barrier("predictions are scored")

    def close(self) -> None:
        """Write finished rows and close the files."""
        super().close()
        if self._responses is not None:
            self._responses.close()
            self._responses = None

    def done(self, folder: Path, data: GenerationData) -> set[str]:
        """Ids of the rows and responses that an earlier run finished; InputError if one has changed since."""
        digests = {response.id: response.digest for response in cast(BenchmarkData, data).responses}
        scored = set()
        for path in folder.glob(_RESPONSES):
            for response_id, line in id_lines(path):
                scored.add(response_id)
                before = json.loads(line).get("digest")
                if before and digests.get(response_id, before) != before:
                    raise InputError(
                        f"{path}: '{response_id}' has another prompt or response there than in data now; name another "
                        f"output, or pass --overwrite true to replace the {self.name}"
                    )
        return super().done(folder, data) | scored

    def unchanged(self, data: GenerationData, row: PromptRow, values: Mapping[str, Any]) -> dict[str, bool]:
        """A question's options, and the rule that its answer was read by."""
        tested = cast(BenchmarkData, data)
        rule = tested.suites[row.suite].answer
        return {
            "list of options": values.get("options", []) == [*tested.items[row.question.id].options],
            "answer rule": "rule" not in values or parser(AnswerRule, {})(values["rule"]) == rule,
        }

    def _prediction(self, row: PromptRow, completion: Completion) -> Prediction:
        assert self.module is not None
        assert self.trainer is not None
        data = _data_of(self.trainer)
        suite, item = data.suites[row.suite], data.items[row.question.id]
        prediction = prediction_of(self.module, row, completion)
        return replace(
            prediction, options=item.options, kind=suite.kind, group=item.group, cluster=item.cluster, rule=suite.answer
        )

    def _report(self, trainer: Trainer, module: CausalLM, merged: Path) -> None:
        folder = self.folder(trainer)
        wanted = {row.id for row in _data_of(trainer).rows}
        failures = self.told_of_failures(_data_of(trainer))
        found = read_records(merged, Prediction, strict=True) if merged.stat().st_size else []
        with AnswerChecker() as checker:
            asked = [p for p in found if p.id in wanted]
            scored = score_predictions(asked, checker, self.judges, self.judge_thoughts)
            budgets = budgets_json(scored, checker)
        write_lines(folder / "predictions.jsonl", map(to_json, scored))
        self.results = results_of(scored, self.baseline) + self._perplexities(trainer)
        about = {
            "model": module.model_id,
            "settings": generation_settings(trainer, module) | self.fingerprints,
            "sources": {name: suite.source.describe() for name, suite in _data_of(trainer).suites.items()},
            "judges": {judge.name: dict(judge.identity()) for judge in self.judges},
            "baseline_file": str(self.baseline_file) if self.baseline_file else None,
            "versions": library_versions(),
            "budgets": budgets,
            "failures": failures,
        }
        write_lines(folder / "metrics.json", [metrics_json(self.results, about)])
        hints = [*failures, *answer_hints(scored)]
        if self.baseline_file is not None and (base := model_of(self.baseline_file)) != module.model_id:
            hints.append(f"AES is against {base or 'a model without a name'}, of which {self.baseline_file} is")
        print_table(self.results, f"{module.model_id}", hints=hints)
        rank_zero_info(f"predictions.jsonl and metrics.json in {folder}")
        self._log(trainer, scored)

    def _perplexities(self, trainer: Trainer) -> list[Result]:
        folder = self.folder(trainer)
        wanted = {response.id for response in _data_of(trainer).responses}
        if not wanted:
            return []
        path = folder / "responses.jsonl"
        merge_shards(Path(glob.escape(str(folder))) / _RESPONSES, path)
        return perplexities(r for r in read_records(path, ScoredResponse, strict=True) if r.id in wanted)

    def _log(self, trainer: Trainer, predictions: Sequence[Prediction]) -> None:
        numbers = scalars(self.results)
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(numbers)
        log_samples(trainer, "test/samples", predictions)


class _ByText(AnswerChecker):
    """Checks answers that their text decides, without a process that would take time from the sampling."""

    def _ask(self, requests: Sequence[Any]) -> list[bool | None]:
        return [None] * len(requests)


def _data_of(trainer: Trainer) -> BenchmarkData:
    """The data of the test; `Evaluate.check` accepts no other kind."""
    return cast(BenchmarkData, datamodule_of(trainer))


def _check_lengths(data: BenchmarkData, most: int | None) -> None:
    """Check that the model has enough positions for every prompt, and for every response with its prompt."""
    lengths = [(row.id, row.question.id, len(row.token_ids)) for row in data.rows]
    lengths += [(response.id, response.question_id, len(response.example.input_ids)) for response in data.responses]
    for row_id, question_id, length in lengths:
        if most is not None and length > most:
            raise InputError(
                f"{data.items[question_id].where}: '{row_id}' has {length} tokens, the model {most} positions; leave "
                "long records out with the suite's 'keep', or measure another suite"
            )
