"""A callback that writes the strength sweep as table and figure, chooses a strength and gives the reason."""

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from callbacks.generation.traces import TraceWriter
from callbacks.s3cot.figures import SweepPoint, plot_sweep
from callbacks.s3cot.steering_size import size_warning
from callbacks.s3cot.strength_sweep import Choice, JudgedBy, Limits, SweepRow, choose, judged_by, measure_sweep
from callbacks.trainer_parts import callbacks_of, datamodule_of, language_model, log_figure
from datamodules.answers import AnswerChecker
from datamodules.errors import InputError
from datamodules.records.kinds import System, Trace
from datamodules.records.reader import read_records
from datamodules.records.shards import write_lines


class Calibrate(Callback):
    """Chooses a steering strength from the traces of a ``predict`` run over layer sets and strengths.

    Writes four files when the run ends: ``strength_sweep.csv`` and ``strength_sweep.png`` (length, accuracy, loops and
    truncation of every setting), ``calibration.yaml`` (the chosen layers and strength, the strengths up to it, the
    numbers at alpha 0, the reason in words) and ``choice.yaml`` (the choice as configuration, for ``--config`` of the
    sampling stage). If no setting is within the limits, the choice is empty, ``calibration.yaml`` names the nearest
    one, there is no ``choice.yaml``, and the run still succeeds. Needs a `TraceWriter` among the callbacks.
    """

    def __init__(
        self,
        max_accuracy_drop: float = 0.01,
        max_disagreement: float = 0.1,
        max_repetition: float = 0.02,
        max_truncation: float = 0.02,
        system: System = "system2",
        output: Path | None = None,
    ) -> None:
        """Set the limits; all are ours, and fractions of 1.

        Args:
            max_accuracy_drop: Most accuracy that a strength may lose against alpha 0.
            max_disagreement: The same without gold answers, for the share of traces that give the initial trace's
                answer.
            max_repetition: Largest share of traces caught in a loop; alpha 0's own share if that is larger.
            max_truncation: Largest share of traces cut off by the token limit; alpha 0's own share if that is larger.
            system: The instruction whose traces are read.
            output: Folder; the run folder by default.
        """
        self.max_accuracy_drop, self.max_disagreement = max_accuracy_drop, max_disagreement
        self.max_repetition, self.max_truncation = max_repetition, max_truncation
        self.system, self.output = system, output

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the limits, and that the run writes traces at alpha 0 and at other strengths; raise InputError."""
        if stage != "predict":
            return
        for name in ("max_accuracy_drop", "max_disagreement", "max_repetition", "max_truncation"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Calibrate.{name}: must be a fraction from 0 to 1, not {getattr(self, name)}")
        _writer(trainer)
        alphas = {row.alpha for row in datamodule_of(trainer).rows if row.system == self.system}
        if 0 not in alphas or len(alphas) < 2:
            raise InputError(
                f"data.alphas: calibration compares other strengths with alpha 0 under {self.system}; give 0 and others"
            )

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the strength sweep, choose a strength, write the files."""
        path = _writer(trainer).merge(trainer)
        if not trainer.is_global_zero:
            return
        traces = [trace for trace in read_records(path, Trace) if trace.system == self.system]
        judge = judged_by(traces)
        limits = self.limits(judge)
        with AnswerChecker() as checker:
            rows = measure_sweep(traces, limits, language_model(pl_module).tokenizer, checker)
        choice = choose(rows, limits, judge)
        folder = self.output or Path(trainer.default_root_dir)
        _write_csv(rows, folder / "strength_sweep.csv")
        described = yaml.safe_dump(
            describe(rows, choice, judge, limits), sort_keys=False, allow_unicode=True, width=120
        )
        write_lines(folder / "calibration.yaml", [described.rstrip()])
        _write_choice(rows, choice, folder / "choice.yaml")
        label = "accuracy" if judge == "gold" else "agreement with\nthe initial answer"
        plot_sweep(_points(rows, choice), folder / "strength_sweep.png", accuracy=label)
        log_figure(trainer, "strength_sweep", folder / "strength_sweep.png")
        if choice.chosen:
            rank_zero_info(f"calibration: {choice.reason}")
        else:
            rank_zero_warn(f"calibration: {choice.reason}")
            if warning := size_warning(rows):
                rank_zero_warn(f"calibration: {warning}")

    def limits(self, judge: JudgedBy) -> Limits:
        """Return the limits for accuracy as it is judged."""
        drop = self.max_accuracy_drop if judge == "gold" else self.max_disagreement
        return Limits(drop, self.max_repetition, self.max_truncation)


def describe(rows: list[SweepRow], choice: Choice, judge: JudgedBy, limits: Limits) -> dict[str, Any]:
    """Return the contents of ``calibration.yaml``; None for what is not chosen."""
    chosen = choice.chosen
    return {
        "layer_set": chosen.layer_set if chosen else None,
        "layers": list(chosen.layers) if chosen else None,
        "alpha": chosen.alpha if chosen else None,
        "alphas": [0.0, *_up_to(rows, chosen)] if chosen else [0.0],
        "judged_by": judge,
        "reason": choice.reason,
        "baseline": _numbers(rows[0]),
        "chosen": _numbers(chosen),
        "nearest": _numbers(choice.nearest),
        "limits": asdict(limits),
    }


def _write_choice(rows: list[SweepRow], choice: Choice, path: Path) -> None:
    """Write the choice as configuration for the sampling stage; write no file if nothing was chosen."""
    path.unlink(missing_ok=True)
    if choice.chosen is not None:
        alphas = [0.0, *_up_to(rows, choice.chosen)]
        settings = {"alphas": alphas, "layer_sets": [choice.chosen.layer_set]}
        write_lines(path, [yaml.safe_dump({"data": {"init_args": settings}}).rstrip()])


def _up_to(rows: list[SweepRow], chosen: SweepRow) -> list[float]:
    """Return the strengths of the chosen layer set from the weakest to the chosen one, of the same sign."""
    own = [row.alpha for row in rows if row.layer_set == chosen.layer_set and row.alpha * chosen.alpha > 0]
    return sorted((alpha for alpha in own if abs(alpha) <= abs(chosen.alpha)), key=abs)


def _numbers(row: SweepRow | None) -> dict[str, Any] | None:
    return None if row is None else asdict(row) | {"layers": list(row.layers)}


def _points(rows: list[SweepRow], choice: Choice) -> list[SweepPoint]:
    return [
        SweepPoint(
            layer_set=row.layer_set,
            alpha=row.alpha,
            length_ratio=row.length_ratio,
            accuracy=row.accuracy,
            accuracy_low=row.accuracy_low,
            accuracy_high=row.accuracy_high,
            collapsed=row.regime == "collapse",
            chosen=row is choice.chosen,
        )
        for row in rows
    ]


def _write_csv(rows: list[SweepRow], path: Path) -> None:
    """Write a line per row; layers are numbers separated by spaces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(SweepRow)]
    writer.writerow(names)
    for row in rows:
        values = [" ".join(map(str, row.layers)) if name == "layers" else getattr(row, name) for name in names]
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
    write_lines(path, text.getvalue().splitlines())


def _writer(trainer: Trainer) -> TraceWriter:
    for callback in callbacks_of(trainer):
        if isinstance(callback, TraceWriter):
            return callback
    raise InputError("trainer.callbacks: Calibrate reads what TraceWriter writes; add TraceWriter")
