"""Runs with the engine ``server``: what is recorded, resumed and refused before anything is loaded."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callbacks.generation import completion_writer
from callbacks.generation.traces import TraceWriter
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from llm_modules.generation import GenerationSettings
from llm_modules.generation.interface import ServerSettings
from llm_modules.generation.server import _find
from llm_modules.s3cot.module import S3CoT
from tests.callbacks.generation.sampling_run import data, prepare, steer, trainer
from tests.llm_modules.generation.fake_server import FakeServer, serving


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("source"))


@pytest.fixture
def server(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr("llm_modules.generation.server_client.PAUSE", 0.01)
    _find.cache_clear()
    with serving(FakeServer(str(source / "model"))) as made:
        yield made


def predict(source: Path, root: Path, url: str) -> list[Trace]:
    writer = TraceWriter()
    settings = GenerationSettings(engine="server", max_new_tokens=4, slots=1, server=ServerSettings(url))
    module = S3CoT(str(source / "model"), generation=settings)
    run = trainer(root, steer(source), writer)
    run.predict(module, data(source, alphas=[0.0, -0.5, -1.0]), return_predictions=False)
    assert module.model is None, "no weights are loaded here"
    return read_records(writer.merged_file(run), Trace, strict=True)


def test_traces_name_the_engine_and_what_it_steered(source: Path, tmp_path: Path, server: FakeServer) -> None:
    traces = predict(source, tmp_path, server.url)
    assert len(traces) == 12
    assert {trace.engine for trace in traces} == {"server vllm 0.32.0"}
    assert all((trace.steered_places == 0) == (trace.alpha == 0) for trace in traces)
    recorded = json.loads((tmp_path / "traces/settings.json").read_text())
    assert (recorded["engine"], recorded["engine_version"]) == ("server", "vllm 0.32.0")
    assert server.url not in str(recorded), "where it is may change"


def test_a_type_that_the_server_does_not_say_is_told_and_not_recorded(
    source: Path, tmp_path: Path, server: FakeServer
) -> None:
    def run() -> int:
        settings = GenerationSettings(engine="server", max_new_tokens=4, server=ServerSettings(server.url))
        writer, module = TraceWriter(), S3CoT(str(source / "model"), generation=settings)
        going = trainer(tmp_path, writer)
        going.predict(module, data(source, alphas=[0.0], layer_sets=[""]), return_predictions=False)
        return len(read_records(writer.merged_file(going), Trace, strict=True))

    server.about = None
    with pytest.warns(UserWarning, match=r"does not say in which type it computes.*model.dtype \(float32\)") as told:
        assert run() == 4
    assert sum("in which type" in str(warning.message) for warning in told) == 1
    assert json.loads((tmp_path / "traces/settings.json").read_text())["dtype"] is None
    assert run() == 4, "the same settings"


def test_rows_that_have_ended_are_written_while_others_take_their_time(
    source: Path, tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, complete = tmp_path / "traces/traces.rank0.jsonl", server.complete
    seen: list[int] = []

    def slow(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        until = time.monotonic() + 10
        if len(server.completions) == 5:  # the last one of the batch
            while not seen and time.monotonic() < until:
                seen.extend([5] * (shard.read_text().count("\n") == 5))
                time.sleep(0.02)
        return complete(path, body)

    monkeypatch.setattr(completion_writer, "FLUSH_SECONDS", 1.0)
    monkeypatch.setattr(server, "complete", slow)
    assert len(predict(source, tmp_path, server.url)) == 12
    assert seen == [5], "the rows before the slow one were in the file while it was going on"


def test_a_server_that_goes_loses_and_doubles_no_trace(source: Path, tmp_path: Path, server: FakeServer) -> None:
    whole = predict(source, tmp_path / "whole", server.url)
    for done in range(1, 11):  # one more row each time
        server.dies_after = len(server.completions) + 1
        with serving(server), pytest.raises(InputError, match="is gone"):
            predict(source, tmp_path / "killed", server.url)
        lines = (tmp_path / "killed/traces/traces.rank0.jsonl").read_text().splitlines()
        assert len(lines) == done
    server.dies_after = None
    with serving(server):
        assert predict(source, tmp_path / "killed", server.url) == whole


def test_a_server_that_is_not_there_is_told_before_anything_is_loaded(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no server answers at http://127.0.0.1:9"):
        predict(source, tmp_path, "http://127.0.0.1:9")
