"""Runs with the engine ``vllm``: refusals before anything is loaded, resume after the process was killed."""

import json
from pathlib import Path
from typing import Any

import pytest

from callbacks.generation.traces import TraceWriter
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from llm_modules.generation import GenerationSettings
from llm_modules.generation.interface import VllmSettings
from llm_modules.generation.vllm_process import vllm_version
from llm_modules.mogu.module import MoGU
from llm_modules.s3cot.module import S3CoT
from tests.callbacks.generation.sampling_run import data, prepare, steer, trainer
from tests.llm_modules.generation.vllm_runs import fake_python


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vllm_version.cache_clear()
    return prepare(tmp_path_factory.mktemp("source"))


def settings(source: Path, options: dict[str, Any] | None = None) -> GenerationSettings:
    return GenerationSettings(
        engine="vllm", max_new_tokens=4, slots=2, vllm=VllmSettings(fake_python(source), options or {})
    )


def predict(source: Path, root: Path, options: dict[str, Any] | None = None, **model: Any) -> list[Trace]:
    writer = TraceWriter()
    module = S3CoT(str(source / "model"), generation=settings(source, options), **model)
    run = trainer(root, steer(source), writer)
    run.predict(module, data(source, alphas=[0.0, -0.5, -1.0]), return_predictions=False)
    assert module.model is None, "no weights are loaded here"
    return read_records(writer.merged_file(run), Trace, strict=True)


def test_traces_name_the_engine_and_what_it_steered(source: Path, tmp_path: Path) -> None:
    traces = predict(source, tmp_path)
    assert len(traces) == 12
    assert {trace.engine for trace in traces} == {"vllm 0.32.0"}
    assert all((trace.steered_places == 0) == (trace.alpha == 0) for trace in traces)
    recorded = json.loads((tmp_path / "traces/settings.json").read_text())
    assert (recorded["engine"], recorded["engine_version"], recorded["engine_options"]) == ("vllm", "0.32.0", None)
    # Where and how vLLM runs may change when a run resumes, what it computes may not.
    assert len(predict(source, tmp_path, {"tensor_parallel_size": 2})) == 12
    with pytest.raises(InputError, match=r"engine_options: None there, {'quantization': 'fp8'} now"):
        predict(source, tmp_path, {"quantization": "fp8"})


def test_a_killed_process_loses_and_doubles_no_trace(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(source, tmp_path / "whole")
    monkeypatch.setenv("FAKE_VLLM", "kill 1")
    for done in range(1, 11):  # one more row each time
        with pytest.raises(InputError, match="ended by signal 9"):
            predict(source, tmp_path / "killed")
        lines = (tmp_path / "killed/traces/traces.rank0.jsonl").read_text().splitlines()
        assert len(lines) == done
    monkeypatch.delenv("FAKE_VLLM")
    assert predict(source, tmp_path / "killed") == whole


def test_a_failed_request_is_tried_again_by_the_next_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "row 3")
    with pytest.raises(InputError, match="could not complete 1 of 6 rows"):
        predict(source, tmp_path)
    assert len((tmp_path / "traces/traces.rank0.jsonl").read_text().splitlines()) == 5
    monkeypatch.delenv("FAKE_VLLM")
    assert len(predict(source, tmp_path)) == 12


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"quantization": "4bit"}, "model.quantization: vLLM has its own"),
        ({"random_weights": True}, "model.random_weights: vLLM loads weights from files, or use model.generation"),
        ({"attn_implementation": "eager"}, "model.attn_implementation: vLLM has its own; leave it out"),
        ({"adapter": "ADAPTER"}, r"has DoRA, which vLLM does not serve; merge it with 'rod export'"),
    ],
)
def test_what_vllm_cannot_load_is_refused(source: Path, tmp_path: Path, model: dict[str, Any], message: str) -> None:
    if "adapter" in model:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "use_dora": True}))
        model = {"adapter": str(tmp_path)}
    with pytest.raises(InputError, match=message):
        predict(source, tmp_path, **model)


def test_runs_that_need_the_weights_are_refused(source: Path, tmp_path: Path) -> None:
    module = S3CoT(str(source / "model"), generation=settings(source))
    with pytest.raises(InputError, match=r"trainer\.precision: vLLM computes in model.dtype; set that one"):
        trainer(tmp_path, precision="bf16-true").predict(module, data(source, alphas=[0.0]))
    loaded = S3CoT(str(source / "model"), generation=settings(source))
    loaded.configure_model()  # as in a fit
    with pytest.raises(InputError, match="vllm generates in predict, test and validate, with weights that are in fi"):
        _ = loaded.generator
    with pytest.raises(InputError, match="MoGU cannot generate with vllm; use slots"):
        MoGU(folder="nowhere", generation=GenerationSettings(engine="vllm"))
