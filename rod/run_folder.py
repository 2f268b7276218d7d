"""The folder of a run: it holds the configuration, and an earlier run in it is protected."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.errors import InputError
from datamodules.writing import replacing
from llm_modules.backbone.checkpoint import check_checkpoint, is_distributed
from llm_modules.generation.vllm_engine import PLACEMENT
from rod import dashboards
from rod.run_lock import RunLock
from rod.run_record import CONFIG, DONE, RECORD, begin, finish, versions

REPLACED = ".replaced"
"""Name of the empty file in a run that a fit is about to replace, until that fit has started to train."""
_OF_ONE_START = {"overwrite", "recovery_minutes", "resume", "step_guard"}
"""Keys that may differ when a run goes on; in a fit ``ckpt_path`` may, too."""
_WITHOUT_EFFECT = re.compile(
    r"trainer\.(?:devices|num_nodes|strategy)|data\.init_args\.rows_per_batch"
    r"|model\.init_args\.generation\.(?:init_args\.)?(?:slots|vllm\.(?:init_args\.)?(?:python|options\.(?:"
    + "|".join(sorted(PLACEMENT))
    + r")))"
)
"""Keys that sampling and tests may change when they go on: no completion depends on them."""
_OF_EVERY_START = {CONFIG, RECORD, REPLACED, *dashboards.IDS, ".lock", "hparams.yaml"}
"""Files that a run writes before its first result."""
_IS_NO_RESULT = re.compile(r".*\.rejected\.jsonl|events\.out\.tfevents\..*")
"""Files with the lines that it rejects, and TensorBoard's, which begin with the configuration."""


class RunFolder(SaveConfigCallback):
    """Write ``config.yaml`` and ``run.json`` into ``trainer.default_root_dir``, and tell the dashboards of the former.

    What is logged goes into the folder's ``logs`` as CSV, too, whatever other loggers there are.

    A folder that holds results of another configuration is refused, and one in which another run is at work. A run of
    the same configuration goes on: a fit by ``--resume auto`` or ``--ckpt_path``, sampling and tests always.
    """

    _text = ""
    _replaces = False
    _anew = False
    _lock: RunLock | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the folder and write the configuration, before any weights are loaded.

        The run that a fit replaces stays as it is until the fit has started to train. InputError if the folder holds
        another run.
        """
        if self.already_saved:
            return
        folder = Path(trainer.default_root_dir)
        keepers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
        if self.config.get("ckpt_path") == "last" and not any(one._find_last_checkpoints(trainer) for one in keepers):
            # Lightning would only warn, and go on with the model as it was before training.
            raise InputError(
                f"ckpt_path: '{folder}' has no checkpoint called last; give its file, or leave ckpt_path out "
                "(a fit goes on from its newest checkpoint with --resume auto)"
            )
        if trainer.is_global_zero:
            self._lock = RunLock()
            self._lock.acquire(folder)
            self._text = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)
            start = Path(str(self.config.get("ckpt_path") or folder))
            if start.is_relative_to(folder) and start.suffix and not start.exists():
                raise InputError(
                    f"{start}: another run in '{folder}' has just removed it; give the same command again, which goes "
                    "on from what is there now"
                )
            self._check(folder, stage)
            goes_on = (folder / CONFIG).is_file() and not self._anew
            self._replaces = stage == "fit" and bool(self.config.get("overwrite")) and (folder / CONFIG).is_file()
            if self._replaces:
                (folder / REPLACED).touch()
            else:
                self._begin(folder, stage)
            settings = self.config.as_dict() | {"versions": versions()}
            dashboards.describe(trainer.loggers, folder, settings, self._text, goes_on)
        if trainer.loggers and not any(isinstance(logger, CSVLogger) for logger in trainer.loggers):
            trainer.loggers = [*trainer.loggers, CSVLogger(folder, name="logs")]
        self.already_saved = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the earlier run: remove its checkpoints, except the one that this fit has started from."""
        if not self._replaces:
            return
        folder = Path(trainer.default_root_dir)
        start = Path(trainer.ckpt_path).resolve() if trainer.ckpt_path else None
        for path in checkpoints_of(folder):
            if path.resolve() != start:
                _remove(path)
        self._begin(folder, "fit")
        (folder / REPLACED).unlink()
        self._replaces = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let other runs into the folder."""
        if self._lock is not None:
            self._lock.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let other runs into the folder."""
        if self._lock is not None:
            self._lock.release()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished."""
        self._finish(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished, except inside a fit."""
        if trainer.state.fn == "validate":
            self._finish(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished."""
        self._finish(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished."""
        self._finish(trainer)

    def _begin(self, folder: Path, verb: str) -> None:
        (folder / DONE).unlink(missing_ok=True)
        with replacing(folder / CONFIG) as file:
            file.write(self._text.encode("utf-8"))
        begin(folder, verb, yaml.safe_load(self._text).get("data"), anew=self._anew)

    def _finish(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and not self._replaces:
            finish(Path(trainer.default_root_dir))
            (Path(trainer.default_root_dir) / DONE).touch()

    def _check(self, folder: Path, verb: str) -> None:
        self._anew = bool(self.config.get("overwrite"))
        if self._anew or not (folder / CONFIG).is_file():
            return
        if takes_over(folder, self._text, verb):
            self._anew = True
            return
        if other := difference(folder / CONFIG, self._text, verb):
            raise InputError(
                f"trainer.default_root_dir: '{folder}' holds a run with another configuration ({other}); name another "
                "folder, restore the key, or pass --overwrite true to replace the run"
            )
        if verb == "fit" and self.config.get("ckpt_path") is None and checkpoints_of(folder):
            kind = "a finished" if (folder / DONE).is_file() else "an interrupted"
            raise InputError(
                f"trainer.default_root_dir: '{folder}' holds {kind} run; pass --resume auto to go on from its newest "
                "checkpoint, --ckpt_path for another one, --overwrite true to start again, or name another folder"
            )


def takes_over(folder: Path, text: str, verb: str) -> bool:
    """Whether a configuration begins anew in the folder of another one, which has no results."""
    is_other = (folder / CONFIG).is_file() and difference(folder / CONFIG, text, verb) is not None
    return is_other and not holds_results(folder)


def holds_results(folder: Path) -> bool:
    """Whether the run of a folder has finished, or has left more there than its settings and the lines it rejected.

    A run that failed early holds none. A subfolder with ``config.yaml`` holds a run of its own.
    """
    if (folder / DONE).is_file():
        return True
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not (Path(place, name) / CONFIG).is_file()]
        if any(name not in _OF_EVERY_START and not _IS_NO_RESULT.fullmatch(name) for name in files):
            return True
    return False


def difference(path: Path, text: str, verb: str) -> str | None:
    """The first key in which a run's ``config.yaml`` and a configuration differ, with both values; None if none does.

    Keys that may differ when a run goes on are not compared. A saved configuration has all options, so that an option
    that is missing is of another version of the code; it is no difference if it is off.
    """
    try:
        saved = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise ValueError("it holds no keys")
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            f"{path}: is damaged, so that nobody can tell whether the run may go on; put it right, or give another "
            "trainer.default_root_dir"
        ) from error
    found = saved, yaml.safe_load(text)
    if verb in ("predict", "test"):
        found = _with_effect(found[0]), _with_effect(found[1])
    before, now = (dict(_flat(values)) for values in found)
    of_one_start = _OF_ONE_START | {"ckpt_path"} if verb == "fit" else _OF_ONE_START
    for key in [*now, *(key for key in before if key not in now)]:
        compared = key.split(".")[0] not in of_one_start and key != "trainer.default_root_dir"
        if compared and not (_same(before.get(key), now.get(key)) or _is_off(key, before, now)):
            return f"{key}: {before.get(key)} there, {now.get(key)} now"
    return None


def _is_off(key: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a key is an option of a class that one side's version of the code does not know, and the other has off.

    Only options of a class are all there: entries of a list or of a mapping, and parts of an option, may be missing.
    """
    known = [values[key] for values in (before, now) if key in values]
    return len(known) == 1 and not known[0] and key.split(".")[-2:-1] == ["init_args"]


def _with_effect(values: Any, path: str = "") -> Any:
    """The values without keys that no completion depends on."""
    if not isinstance(values, dict):
        return values
    keys = {key: f"{path}.{key}".removeprefix(".") for key in values}
    return {key: _with_effect(values[key], name) for key, name in keys.items() if not _WITHOUT_EFFECT.fullmatch(name)}


def _same(before: Any, now: Any) -> bool:
    """Whether two values are equal, or two spellings of one place."""
    if before == now or not (isinstance(before, str) and isinstance(now, str)):
        return bool(before == now)
    return os.path.exists(now) and os.path.realpath(before) == os.path.realpath(now)


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values under their dotted keys; entries of lists are counted from 0."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    if not entries:
        yield path, values
    for key, value in entries:
        yield from _flat(value, f"{path}.{key}".removeprefix("."))


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a folder's run: files, and folders of distributed checkpoints.

    A folder without ``config.yaml`` holds no run, and a subfolder with one holds a run of its own.
    """
    found: list[Path] = []
    if not (folder / CONFIG).is_file():
        return found
    for place, folders, files in os.walk(folder):
        paths = [Path(place, name) for name in [*folders, *files]]
        found += [path for path in paths if path.suffix == ".ckpt" and (is_distributed(path) or not path.is_dir())]
        folders[:] = [
            path.name for path in paths[: len(folders)] if path not in found and not (path / CONFIG).is_file()
        ]
    return found


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder's fit, by time; a warning names each damaged one that is newer.

    InputError if the folder has checkpoints, and a fit can go on from none of them.
    """
    paths = sorted(checkpoints_of(folder), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    for path in paths:
        try:
            if "lr_schedulers" in check_checkpoint(path, "--resume auto"):
                return path
        except InputError as error:
            rank_zero_warn(str(error))
    if paths:
        raise InputError(
            f"--resume auto: no checkpoint in '{folder}' is whole ({len(paths)} of {len(paths)} are damaged or hold "
            "weights only); delete them, and the same command starts again"
        )
    return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def resumes_by_default() -> bool:
    """Whether a job of SLURM (an interactive one excepted) or of torchrun runs this process: both start it again."""
    batch_job = "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    return batch_job or "TORCHELASTIC_RUN_ID" in os.environ


def is_restart() -> bool:
    """Whether SLURM or torchrun has started this job before."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
