"""Runs with the engine ``vllm``: refusals before anything is loaded, resume after the process was killed."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from callbacks.generation.traces import TraceWriter
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from llm_modules.baselines.safe_decoding import SafeDecoding
from llm_modules.generation import GenerationSettings
from llm_modules.generation.engine import engine_version
from llm_modules.generation.interface import VllmSettings
from llm_modules.generation.vllm_process import vllm_version
from llm_modules.mogu.module import MoGU
from llm_modules.s3cot.module import S3CoT
from tests.callbacks.evaluation import evaluation_run
from tests.callbacks.generation.sampling_run import data, prepare, steer, trainer
from tests.llm_modules.generation.vllm_runs import fake_python
from tests.llm_modules.mogu.parts import adapters


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


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


def test_rows_that_fail_alone_are_set_aside_and_tried_again_by_the_next_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(source, tmp_path / "whole")
    assert not list((tmp_path / "whole/traces").glob("failed*"))
    monkeypatch.setenv("FAKE_VLLM", "row 3")
    told = r"1 of 12 rows failed \(such as 'q1\|.*': The prompt is odd.\); they are missing .* set aside in .*traces"
    with pytest.warns(UserWarning, match=told):
        most = predict(source, tmp_path / "run")
    assert len(most) == 11, "the second batch goes on after the row of the first"
    (line,) = (tmp_path / "run/traces/failed.rank0.rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] in {trace.id for trace in whole} - {trace.id for trace in most}
    monkeypatch.delenv("FAKE_VLLM")
    assert predict(source, tmp_path / "run") == whole
    assert not list((tmp_path / "run/traces").glob("failed*"))


def test_a_test_measures_the_rows_that_are_complete_and_tells_of_the_others(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "maths.jsonl").write_text(
        "\n".join(json.dumps({"id": i, "question": f"{i} + 1?", "answer": str(i + 1)}) for i in range(4))
    )
    monkeypatch.setenv("FAKE_VLLM", "row 3")
    evaluation_run.run(
        tmp_path, tmp_path / "run", "maths", model=S3CoT(str(source / "model"), generation=settings(source))
    )
    (told,) = evaluation_run.metrics(tmp_path / "run")["failures"]
    assert told.startswith("1 of 8 rows failed (such as 'maths/")
    assert sum(result["n"] for result in evaluation_run.results(tmp_path / "run").values()) == 7
    assert told in capsys.readouterr().out


def test_a_run_in_which_every_row_fails_ends_with_the_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "rows")
    with pytest.raises(InputError, match=r"12 of 12 rows failed \(such as .*: The prompt is odd.\), and none is comp"):
        predict(source, tmp_path)


def test_a_checkpoint_is_refused_before_vllm_starts(source: Path, tmp_path: Path) -> None:
    made = S3CoT(str(source / "model"))
    made.configure_model()
    saved = trainer(tmp_path)
    saved.strategy.connect(made)
    saved.save_checkpoint(tmp_path / "a.ckpt")
    module, run = S3CoT(str(source / "model"), generation=settings(source)), trainer(tmp_path / "run")
    with pytest.raises(InputError, match=r"ckpt_path: vLLM loads folders, no checkpoints; 'rod export' writes one"):
        run.predict(module, data(source, alphas=[0.0]), ckpt_path=str(tmp_path / "a.ckpt"))
    assert module.model is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"quantization": "4bit"}, "model.quantization: vLLM has its own"),
        ({"random_weights": True}, "model.random_weights: vLLM loads weights from files, or use model.generation"),
        ({"attn_implementation": "eager"}, "model.attn_implementation: vLLM has its own; leave it out"),
        ({"adapter": {"use_dora": True}}, r"has DoRA, which vLLM does not serve; merge it with 'rod export'"),
        ({"adapter": {"init_lora_weights": "pissa_niter_4"}}, r"has init_lora_weights: pissa_niter_4, which changes"),
    ],
)
def test_what_vllm_cannot_load_is_refused(source: Path, tmp_path: Path, model: dict[str, Any], message: str) -> None:
    if "adapter" in model:
        config = {"peft_type": "LORA", "r": 8, "init_lora_weights": True, **model["adapter"]}
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
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
    with pytest.raises(InputError, match="SafeDecoding cannot generate with vllm; use slots"):
        SafeDecoding(backbone="miniature", adapter="nowhere", generation=GenerationSettings(engine="vllm"))


def test_a_mogu_begins_here_and_the_base_in_vllm_goes_on(source: Path, tmp_path: Path) -> None:
    folders = adapters(source / "model", tmp_path)
    writer = TraceWriter()
    run = trainer(tmp_path / "run", writer)
    module = MoGU(**folders, backbone=str(source / "model"), m=3, generation=settings(source))
    run.predict(module, data(source, alphas=[0.0]), return_predictions=False)
    traces = read_records(writer.merged_file(run), Trace, strict=True)
    assert len(traces) == 4
    own = engine_version("slots", GenerationSettings())
    assert {trace.engine for trace in traces} <= {f"slots {own}, then vllm 0.32.0"}
    assert {trace.n_tokens for trace in traces} <= {1, 2, 3, 4}
    again = MoGU(**folders, backbone=str(source / "model"), generation=settings(source))
    with pytest.raises(InputError, match=r"trainer\.precision: vLLM computes in model.dtype"):
        trainer(tmp_path / "other", precision="bf16-true").predict(again, data(source, alphas=[0.0]))
    loaded = MoGU(**folders, backbone=str(source / "model"), generation=settings(source))
    loaded.configure_model()  # as in a fit
    with pytest.raises(InputError, match="vllm generates in predict, test and validate; use slots"):
        _ = loaded.generator
