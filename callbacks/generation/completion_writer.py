"""A base class of callbacks that write completions as they finish; a killed run resumes where it stopped."""

import glob
import json
import time
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.generation.failed_rows import FailedRows
from callbacks.generation.run_settings import FINGERPRINT, FORMERLY, RECORDED, fingerprints, generation_settings
from callbacks.generation.steering import steering_of
from callbacks.trainer_parts import language_model
from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import GenerationData
from datamodules.records.shards import JsonlShard, id_lines, merge_shards, write_lines
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion, GenerationListener
from llm_modules.generation.interface import ELSEWHERE

FLUSH_ROWS = 64
FLUSH_SECONDS = 2.0
_SETTINGS = "settings.json"
_CHECKPOINT = "checkpoint"

Finished = tuple[PromptRow, Completion]


class CompletionWriter(Callback, GenerationListener):
    """Writes what is generated to ``{name}.rank{r}.jsonl`` and merges the files at the end of the run.

    A finished row is written after at most ``FLUSH_ROWS`` further rows, or ``FLUSH_SECONDS`` seconds and a pass,
    however long other rows take. A run that is started again in the same folder, with any number of processes, skips
    the rows that are already there. The folder's ``settings.json`` records the generation settings; a run with other
    settings is refused, never mixed in. Rows that fail alone are set aside by `FailedRows`.

    Attributes:
        verb: The `Trainer` method during which the callback is active.
        name: First part of the file names.
        fingerprints: Those of the folders and files of weights, by setting.
        checked, right: Answers of this start that were held against a gold answer so far, and those that are right.
    """

    verb: Literal["predict", "test"]
    name: str

    def __init__(self, output: Path | None = None, overwrite: bool = False) -> None:
        """Set the folder, and whether to remove what an earlier run left in it."""
        self.output = output
        self.overwrite = overwrite
        self.module: CausalLM | None = None
        self.trainer: Trainer | None = None
        self.fingerprints: dict[str, str] = {}
        self.checked = self.right = 0
        self._shard: JsonlShard | None = None
        self._failed: FailedRows | None = None
        self._complete = 0
        self._rows: tuple[PromptRow, ...] = ()
        self._finished: list[Finished] = []
        self._flushed = 0.0

    @abstractmethod
    def folder(self, trainer: Trainer) -> Path:
        """Return the folder of the files."""

    @abstractmethod
    def records(self, finished: Sequence[Finished]) -> list[Any]:
        """Return a record with an ``id`` for each row."""

    def check(self, trainer: Trainer, module: CausalLM, data: GenerationData) -> None:
        """Raise InputError if the input is wrong; called before any weights are loaded."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read which rows the folder holds and leave them out of the data, before any weights are loaded.

        InputError if the data are no `GenerationData`, a row has a strength but nothing steers, or the folder holds
        completions of other settings.
        """
        if stage != self.verb:
            return
        module = language_model(pl_module)
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, GenerationData):
            raise InputError(
                f"data: {type(self).__name__} writes completions of prompts; use PromptData or BenchmarkData"
            )
        if steering_of(trainer) is None and any(row.alpha != 0 for row in data.rows):
            raise InputError(
                "data.alphas: nothing applies the strengths, because the run has no steering; name a direction with "
                "steer.direction"
            )
        if module.engine in ELSEWHERE and getattr(data, "responses", None):
            raise InputError(
                f"model.generation.engine: {module.engine} generates, and cannot measure given responses; leave out "
                "suites of kind perplexity, or use slots"
            )
        self.check(trainer, module, data)
        folder = self.folder(trainer)
        settings = generation_settings(trainer, module)
        if self.overwrite and trainer.is_global_zero:
            for path in (*folder.glob(self.shards), self.merged_file(trainer), folder / _SETTINGS):
                path.unlink(missing_ok=True)
        trainer.strategy.barrier("old completions are removed")
        # Lightning does not know the checkpoint before the model is set up.
        self.fingerprints = fingerprints(settings)
        self._check_settings(folder, settings | self.fingerprints, [*RECORDED, _CHECKPOINT, _CHECKPOINT + FINGERPRINT])
        data.skip(self.done(folder, data))
        # No process writes before all have read the same ids.
        trainer.strategy.barrier("completions are read")

    @property
    def shards(self) -> str:
        """Glob pattern of the files of all processes."""
        return f"{self.name}.rank*.jsonl"

    def merged_file(self, trainer: Trainer) -> Path:
        """Return the path of the merged file: all records sorted by id, written at the end of the run."""
        return self.folder(trainer) / f"{self.name}.jsonl"

    def tokens_generated(self, number: int) -> None:
        """Write what has waited for ``FLUSH_SECONDS`` seconds; engines call this while rows are going on."""
        if self._finished and time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def row_finished(self, row: int, completion: Completion) -> None:
        """Collect a completion; write the collected ones after ``FLUSH_ROWS`` rows or ``FLUSH_SECONDS`` seconds."""
        self._finished.append((self._rows[row], completion))
        # Lightning itself reacts to SIGTERM after the batch only.
        if self.trainer is not None and self.trainer.received_sigterm:
            raise SIGTERMException
        if len(self._finished) >= FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def row_failed(self, row: int, reason: str) -> bool:
        """Set a row aside."""
        assert self._failed is not None
        self._failed.add(self._rows[row].id, reason)
        return True

    def append(self, records: Sequence[Any]) -> None:
        """Write records that were not generated."""
        assert self._shard is not None
        for record in records:
            self._shard.append(record)
        self._shard.flush()

    def flush(self) -> None:
        """Write the rows that have finished."""
        self._flushed = time.monotonic()
        if self._finished and self._shard is not None:
            finished, self._finished = self._finished, []
            self.append(self.records(finished))

    def count_verdicts(self, verdicts: Iterable[bool | None]) -> None:
        """Count answers that were checked; None is no verdict."""
        found = [verdict for verdict in verdicts if verdict is not None]
        self.checked, self.right = self.checked + len(found), self.right + sum(found)

    def unchanged(self, data: GenerationData, row: PromptRow, values: Mapping[str, Any]) -> dict[str, bool]:
        """What else of a row has to be as in its record, by name, and whether it is."""
        return {}

    def merge(self, trainer: Trainer) -> Path:
        """Merge the files of all processes; call it on all of them. Calling it twice is harmless."""
        trainer.strategy.barrier("all completions are written")
        path = self.merged_file(trainer)
        if trainer.is_global_zero:
            self._complete = merge_shards(Path(glob.escape(str(self.folder(trainer)))) / self.shards, path)
        trainer.strategy.barrier("completions are merged")
        return path

    def told_of_failures(self, data: GenerationData) -> list[str]:
        """What to tell of rows that failed; for after `merge`. InputError if no row at all is complete."""
        return self._failed.in_words(len(data.rows), self._complete) if self._failed is not None else []

    def close(self) -> None:
        """Write what has finished, close the file, stop listening. A second call does nothing."""
        if self._shard is not None:
            self.flush()
            self._shard.close()
            self._shard = None
        if self.module is not None and self in self.module.generator.listeners:
            self.module.generator.listeners.remove(self)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's file and listen to the generator."""
        self._open("predict", trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open this process's file and listen to the generator."""
        self._open("test", trainer, pl_module)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Remember the rows of the batch: the generator refers to them by index."""
        self._rows = batch.rows if isinstance(batch, PromptBatch) else ()

    on_test_batch_start = on_predict_batch_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what has finished; the next start resumes from there."""
        self.close()

    def _open(self, verb: str, trainer: Trainer, pl_module: LightningModule) -> None:
        if verb != self.verb:
            return
        self.trainer, self.module = trainer, language_model(pl_module)
        folder, settings = self.folder(trainer), generation_settings(trainer, self.module)
        self.fingerprints |= fingerprints({_CHECKPOINT: settings[_CHECKPOINT], "method": None})
        settings |= self.fingerprints
        self._check_settings(folder, settings, RECORDED)
        trainer.strategy.barrier("settings are compared")
        self._failed = FailedRows(folder, trainer.global_rank)
        if trainer.is_global_zero:
            write_lines(folder / _SETTINGS, [json.dumps(settings, indent=2)])
            self._failed.remove()
        trainer.strategy.barrier("settings are written")
        self._shard = JsonlShard(folder / f"{self.name}.rank{trainer.global_rank}.jsonl")
        self._flushed = time.monotonic()
        self.module.generator.listeners.append(self)

    def _check_settings(self, folder: Path, settings: dict[str, Any], but: Collection[str]) -> None:
        path = folder / _SETTINGS
        if not path.is_file():
            if any(folder.glob(self.shards)):
                raise InputError(
                    f"{folder}: holds {self.name} but no {_SETTINGS}; name another output, or pass --overwrite true to "
                    f"replace the {self.name}"
                )
            return
        try:
            before = FORMERLY | json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}: is damaged, so that nobody can tell how the {self.name} beside it were made; name another "
                f"output, or pass --overwrite true to replace the {self.name}"
            ) from error
        compared = (before.keys() | settings.keys()).difference(but)
        compared -= {name for name in settings.keys() - before.keys() if name.endswith(FINGERPRINT)}
        compared -= {"dtype"} if settings["dtype"] is None else set()  # of a server that does not say it
        differing = sorted(key for key in compared if before.get(key) != settings.get(key))
        if differing:
            listed = "; ".join(f"{key}: {before.get(key)} there, {settings.get(key)} now" for key in differing)
            raise InputError(
                f"{folder}: holds {self.name} made with other settings ({listed}); name another output, or pass "
                "--overwrite true to replace them"
            )

    def done(self, folder: Path, data: GenerationData) -> set[str]:
        """Return the ids of rows that an earlier run finished; raise InputError if one is of another prompt or gold."""
        rows = {row.id: row for row in data.rows}
        done = set()
        for path in sorted(folder.glob(self.shards)):
            for row_id, line in id_lines(path):
                done.add(row_id)
                values = json.loads(line)
                if row_id not in rows:
                    continue
                row = rows[row_id]
                same = {
                    "prompt": (values["prompt"], values.get("prefill", "")) == (row.prompt, row.prefill),
                    "gold answer": values.get("gold") == row.question.gold,
                    **self.unchanged(data, row, values),
                }
                if changed := [name for name, is_same in same.items() if not is_same]:
                    raise InputError(
                        f"{path}: '{row_id}' has another {changed[0]} there than in data now; name another output, or "
                        f"pass --overwrite true to replace the {self.name}"
                    )
        if done:
            left = sum(row_id not in done for row_id in rows)
            rank_zero_info(f"{folder}: {len(rows) - left} of {len(rows)} rows are done, {left} are left")
        return done
