import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from callbacks.generation import progress
from callbacks.generation.progress import GenerationProgress
from callbacks.generation.traces import TraceWriter
from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from tests.callbacks.generation.sampling_run import data, module, prepare, steer, trainer


def run_in(folder: Path, **settings: Any) -> tuple[list[Trace], Any]:
    source = prepare(folder / "source")
    writer = TraceWriter()
    run, model = trainer(folder, steer(source), writer, GenerationProgress(), **settings), module(source)
    run.predict(model, data(source), return_predictions=False)
    assert model.generator.listeners == []
    return read_records(writer.merged_file(run), Trace), run


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    with caplog.at_level("INFO"):
        run_in(tmp_path)
    lines = [line for line in caplog.messages if line.startswith("generated")]
    assert lines[0].startswith("generated 0 of 8 rows in 0 s")
    assert any(re.search(r"generated [1-7] of 8 rows .* s left", line) for line in lines)
    assert re.fullmatch(
        r"generated 8 of 8 rows in \d+ s, [\d,]+ tokens/s, \d+ tokens a row(, \d+% cut off)?, \d+\.\d% right", lines[-1]
    )


def test_few_lines_by_default_and_all_tokens_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        traces, run = run_in(tmp_path)
    assert sum(line.startswith("generated") for line in caplog.messages) == 1
    (bar,) = (callback for callback in run.callbacks if isinstance(callback, GenerationProgress))
    assert bar._tokens == sum(trace.n_tokens for trace in traces)
    told = next(line for line in caplog.messages if line.startswith("generated"))
    assert f"{bar._tokens / len(traces):,.0f} tokens a row" in told
    assert told.endswith(f"{sum(bool(trace.correct) for trace in traces) / len(traces):.1%} right")


def test_sampling_ends_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces, _ = run_in(tmp_path)
    (heading, *rows) = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip(" ─")]
    assert heading == ["prompt", "strength", "traces", "tokens", "cut", "off", "right"]
    strengths = sorted({trace.alpha for trace in traces}, reverse=True)
    assert [row[1] for row in rows] == [f"{alpha:+g}" if alpha else "0" for alpha in strengths]
    for row, alpha in zip(rows, strengths, strict=True):
        own = [trace for trace in traces if trace.alpha == alpha]
        assert row[2:4] == [str(len(own)), f"{sum(trace.n_tokens for trace in own) / len(own):,.1f}"]


def test_a_bar_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    master, slave = os.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                shown.extend(os.read(master, 4096))
            except OSError:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        patch.setenv("COLUMNS", "120")
        _, run = run_in(tmp_path, enable_progress_bar=True)
    reader.join(timeout=10)
    os.close(master)
    text = shown.decode()
    assert "generating" in text
    assert "8/8 rows" in text
    assert "tokens/s" in text
    assert "Predicting" not in capsys.readouterr().out  # Lightning's own bar
    assert run.progress_bar_callback.is_enabled
