import json
import os
import signal
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from callbacks.generation.traces import TraceWriter
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from llm_modules.backbone.checkpoint import CheckpointFiles
from llm_modules.generation import Completion, GenerationListener, GenerationSettings
from llm_modules.generation.engine import engine_version
from tests.callbacks.generation.sampling_run import data, module, predict, prepare, steer, trainer
from tests.processes import Processes
from tests.tiny import CHAT_TEMPLATE, save_tiny

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("source"))


class Counter(GenerationListener):
    """Counts what is really generated."""

    def __init__(self) -> None:
        self.rows = 0

    def row_finished(self, row: int, completion: Completion) -> None:
        self.rows += 1


def sample(source: Path, root: Path, *, writer: TraceWriter | None = None, **settings: Any) -> tuple[Path, int]:
    """Run; returns the merged file and the number of rows generated."""
    writer = writer or TraceWriter()
    run, model, counter = trainer(root, steer(source), writer), module(source), Counter()
    model.configure_model()
    model.generator.listeners.append(counter)
    run.predict(model, data(source, **settings), return_predictions=False)
    assert writer not in model.generator.listeners
    return writer.merged_file(run), counter.rows


def test_traces_of_a_run(source: Path, tmp_path: Path) -> None:
    path, generated = sample(source, tmp_path)
    assert path == tmp_path / "traces" / "traces.jsonl"
    traces = read_records(path, Trace, strict=True)
    assert generated == len(traces) == 8
    assert [trace.id for trace in traces] == sorted(trace.id for trace in traces)
    steered = next(trace for trace in traces if trace.id == "q2|system2|anchor:2|a-0.5|s0")
    assert (steered.question_id, steered.question, steered.gold, steered.alpha) == ("q2", "2 + 1?", "3", -0.5)
    assert (steered.layer_set, steered.layers) == ("anchor:2", (1, 2))
    assert steered.prompt.startswith("<|im_start|>user\n2 + 1? Please reason step by step")
    assert steered.model == str((source / "model").resolve())
    initial = next(trace for trace in traces if trace.id == "q2|system2|-|a0|s0")
    assert (initial.layer_set, initial.layers, initial.alpha, initial.seed) == ("", (), 0.0, steered.seed)
    assert initial.completion != steered.completion
    assert steered.steered_places is not None
    assert steered.steered_places > 2 * steered.n_tokens  # in two layers, the prompt's tokens too
    assert steered.steered_size is not None
    assert steered.steered_size > 0
    assert (initial.steered_places, initial.steered_size) == (0, 0.0)
    assert initial.engine == f"slots {version('lightning-rod')}"
    assert 1 <= initial.n_tokens <= 12


def test_answers_are_cut_out_and_checked(source: Path, tmp_path: Path) -> None:
    writer = TraceWriter()
    run, model, questions = trainer(tmp_path, steer(source), writer), module(source), data(source)
    run.predict(model, questions, return_predictions=False)
    texts = ["So \\boxed{1}", "No, \\boxed{7.5}", "Don't know", "\\boxed{\\frac{4}{2}}"]
    rows = [row for row in questions.rows if row.alpha == 0]
    writer.on_predict_start(run, model)
    writer._rows = tuple(rows)
    for row, text in enumerate(texts):
        writer.row_finished(row, Completion((*model.tokenizer.encode(text), model.tokenizer.eos_token_id), "stop"))
    finished, writer._finished = writer._finished, []
    traces = writer.records(finished)
    writer.on_exception(run, model, KeyboardInterrupt())
    assert [trace.completion for trace in traces] == texts  # without the end-of-sequence token, which is counted
    assert traces[0].n_tokens == len(texts[0]) + 1
    assert [trace.answer for trace in traces] == ["1", "7.5", None, "\\frac{4}{2}"]
    assert [trace.correct for trace in traces] == [True, False, None, False]


def test_a_second_run_generates_nothing_and_merges_the_same(source: Path, tmp_path: Path) -> None:
    path, _ = sample(source, tmp_path)
    before = path.read_bytes()
    path.unlink()
    path, generated = sample(source, tmp_path)
    assert generated == 0
    assert path.read_bytes() == before


def test_more_strengths_later_add_only_what_is_new(source: Path, tmp_path: Path) -> None:
    sample(source, tmp_path / "a")
    path, generated = sample(source, tmp_path / "a", alphas=[0.0, -0.25, -0.5])
    assert generated == 4
    whole, _ = sample(source, tmp_path / "b", alphas=[0.0, -0.25, -0.5])
    assert path.read_bytes() == whole.read_bytes()


def test_an_error_while_generating_keeps_what_is_done(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(Counter):
        def row_finished(self, row: int, completion: Completion) -> None:
            super().row_finished(row, completion)
            if self.rows == 5:
                raise RuntimeError("out of memory")

    model, breaks, writer = module(source), Breaks(), TraceWriter()
    model.configure_model()
    run = trainer(tmp_path, steer(source), writer)
    original = writer.on_predict_start

    def listen_after(*args: Any) -> None:
        original(*args)
        model.generator.listeners.append(breaks)

    monkeypatch.setattr(writer, "on_predict_start", listen_after)
    with pytest.raises(RuntimeError, match="out of memory"):
        run.predict(model, data(source), return_predictions=False)
    assert len((tmp_path / "traces" / "traces.rank0.jsonl").read_text().splitlines()) == 5
    assert writer not in model.generator.listeners
    path, generated = sample(source, tmp_path)
    assert generated == 3
    assert path.read_bytes() == sample(source, tmp_path / "whole")[0].read_bytes()


def test_being_asked_to_end_ends_and_keeps_what_is_done(source: Path, tmp_path: Path) -> None:
    class Asks(TraceWriter):
        def row_finished(self, row: int, completion: Completion) -> None:
            if len(self._finished) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            super().row_finished(row, completion)

    with pytest.raises(SystemExit):
        sample(source, tmp_path, writer=Asks())
    assert len((tmp_path / "traces" / "traces.rank0.jsonl").read_text().splitlines()) == 3
    assert sample(source, tmp_path)[1] == 5


def test_other_settings_are_refused_by_name(source: Path, tmp_path: Path) -> None:
    sample(source, tmp_path)
    run, model = trainer(tmp_path, steer(source), TraceWriter()), module(source, temperature=0.5)
    with pytest.raises(InputError, match=r"other settings \(generation: .*; seed: 0 there, 7 now\).*--overwrite true"):
        run.predict(model, data(source, seed=7), return_predictions=False)
    assert model.model is None  # before any weights are loaded
    (tmp_path / "traces/settings.json").write_text('{"generation"')
    with pytest.raises(InputError, match=r"settings\.json: is damaged.*--overwrite true"):
        run.predict(model, data(source, seed=7), return_predictions=False)
    _, generated = sample(source, tmp_path, writer=TraceWriter(overwrite=True), seed=7)
    assert generated == 8


def test_how_many_rows_are_decoded_together_is_no_other_setting(source: Path, tmp_path: Path) -> None:
    sample(source, tmp_path)
    run, model = trainer(tmp_path, steer(source), TraceWriter()), module(source, slots=3)
    run.predict(model, data(source), return_predictions=False)


def test_other_questions_of_the_same_ids_are_refused(source: Path, tmp_path: Path) -> None:
    sample(source, tmp_path / "run")
    other = prepare(tmp_path / "other")
    (other / "questions.jsonl").write_text(json.dumps({"id": "q0", "question": "9 + 9?", "gold": "18"}))
    run = trainer(tmp_path / "run", steer(source), TraceWriter())
    with pytest.raises(InputError, match=r"'q0\|system2\|-\|a0\|s0' has another prompt"):
        run.predict(module(source), data(other), return_predictions=False)


def test_a_torn_line_is_done_again(source: Path, tmp_path: Path) -> None:
    path, _ = sample(source, tmp_path)
    before = path.read_bytes()
    shard = tmp_path / "traces" / "traces.rank0.jsonl"
    shard.write_bytes(shard.read_bytes()[:-20])
    path, generated = sample(source, tmp_path)
    assert generated == 1
    assert path.read_bytes() == before


def test_predictions_can_be_returned(source: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, steer(source))
    predictions = run.predict(module(source), data(source, rows_per_batch=256))
    assert predictions is not None
    assert all(isinstance(completion, Completion) for completion in predictions[0])


def test_input_that_cannot_be(source: Path, tmp_path: Path) -> None:
    model = module(source)
    with pytest.raises(InputError, match=r"data\.alphas: nothing applies the strengths"):
        trainer(tmp_path, TraceWriter()).predict(model, data(source))
    bad = prepare(tmp_path / "bad", questions=1)
    (bad / "questions.jsonl").write_text(json.dumps({"id": "q0", "question": "?", "gold": "\\frac{"}))
    with pytest.raises(InputError, match=r"\\frac"):
        trainer(tmp_path, steer(source), TraceWriter()).predict(model, data(bad))
    assert model.model is None


def start(source: Path, root: Path, devices: int, temperature: float, strategy: str = "") -> Processes:
    strategy = strategy or ("ddp" if devices > 1 else "auto")
    return Processes(predict, source, root, devices, temperature, strategy, ranks=devices, log=root / "log.txt")


@pytest.mark.slow
@pytest.mark.parametrize(("temperature", "devices"), [(0.0, (1, 2)), (1.0, (2, 1))])
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path, temperature: float, devices: tuple[int, int]) -> None:
    source, whole, killed = prepare(tmp_path / "source", questions=100), tmp_path / "whole", tmp_path / "killed"
    killed.mkdir()
    first = start(source, killed, devices[0], temperature)
    deadline = time.monotonic() + 120
    while lines(killed) < 30 and first.running() and time.monotonic() < deadline:
        time.sleep(0.005)
    first.kill()
    assert 30 <= lines(killed) < 300, (killed / "log.txt").read_text()
    assert not (killed / "traces" / "traces.jsonl").exists()
    start(source, killed, devices[1], temperature).succeed()
    run = trainer(whole, steer(source), TraceWriter())
    run.predict(
        module(source, temperature=temperature), data(source, alphas=[0.0, -0.1, -0.2]), return_predictions=False
    )
    merged = (killed / "traces" / "traces.jsonl").read_bytes()
    assert merged == (whole / "traces" / "traces.jsonl").read_bytes()
    assert merged.count(b"\n") == 300


@pytest.mark.slow
def test_a_sharded_model_with_questions_that_do_not_come_out_even(tmp_path: Path) -> None:
    source, root = prepare(tmp_path / "source", questions=5), tmp_path / "run"
    root.mkdir()
    # Two questions a batch: one process has two batches of questions, the other one and an empty one.
    start(source, root, 2, 1.0, "fsdp").succeed()
    run = trainer(tmp_path / "whole", steer(source), TraceWriter())
    run.predict(module(source), data(source, alphas=[0.0, -0.1, -0.2]), return_predictions=False)
    merged = (root / "traces" / "traces.jsonl").read_bytes()
    assert merged == (tmp_path / "whole" / "traces" / "traces.jsonl").read_bytes()
    assert merged.count(b"\n") == 15


def lines(root: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (root / "traces").glob("traces.rank*.jsonl"))


def test_the_transformers_engine_writes_the_same_traces_under_its_name(source: Path, tmp_path: Path) -> None:
    found = {}
    for engine in ("slots", "transformers"):
        run = trainer(tmp_path / engine, steer(source), writer := TraceWriter())
        run.predict(module(source, engine=engine), data(source), return_predictions=False)
        traces = read_records(writer.merged_file(run), Trace, strict=True)
        assert {trace.engine for trace in traces} == {f"{engine} {engine_version(engine, GenerationSettings())}"}
        found[engine] = [replace(trace, engine=None) for trace in traces]
        settings = json.loads((tmp_path / engine / "traces" / "settings.json").read_text())
        assert (settings["engine"], settings["engine_version"]) == (
            engine,
            engine_version(engine, GenerationSettings()),
        )
    assert found["slots"] == found["transformers"]
    run = trainer(tmp_path / "slots", steer(source), TraceWriter())
    with pytest.raises(InputError, match="engine: slots there, transformers now"):
        run.predict(module(source, engine="transformers"), data(source), return_predictions=False)


def test_a_run_from_before_engines_were_recorded_resumes(source: Path, tmp_path: Path) -> None:
    sample(source, tmp_path)
    path = tmp_path / "traces" / "settings.json"
    settings = json.loads(path.read_text())
    del settings["engine"], settings["engine_version"]
    path.write_text(json.dumps(settings))
    assert sample(source, tmp_path)[1] == 0


def test_arguments_of_the_template_are_in_the_settings_and_in_every_prompt(source: Path, tmp_path: Path) -> None:
    template = tmp_path / "switch.jinja"
    template.write_text("{% if terse %}Short.{% endif %}" + CHAT_TEMPLATE)
    arguments = {"system2": {"terse": True}, "system1": {"terse": False}}
    rows = data(source, chat_template=str(template), chat_template_kwargs=arguments, systems=["system1", "system2"])
    trainer(tmp_path, steer(source), TraceWriter()).predict(module(source), rows, return_predictions=False)
    assert json.loads((tmp_path / "traces/settings.json").read_text())["chat_template_kwargs"] == arguments
    traces = read_records(tmp_path / "traces/traces.jsonl", Trace, strict=True)
    assert {trace.system: trace.chat_template_kwargs for trace in traces} == arguments
    made = [json.loads(line) for line in (tmp_path / "traces/traces.jsonl").read_text().splitlines()]
    assert {(one["system"], one["prompt"].startswith("Short.")) for one in made} == {
        ("system1", False),
        ("system2", True),
    }


def test_a_run_of_another_checkpoint_does_not_go_on(source: Path, tmp_path: Path) -> None:
    """Lightning knows the checkpoint only after the model is set up."""
    checkpoints = [tmp_path / f"{name}.ckpt" for name in "ab"]
    for checkpoint in checkpoints:
        saved = trainer(tmp_path)
        made = module(source)
        made.configure_model()
        saved.strategy.connect(made)
        saved.save_checkpoint(checkpoint)

    def resume(checkpoint: Path) -> None:
        run = trainer(tmp_path, steer(source), TraceWriter())
        run.predict(module(source), data(source), ckpt_path=str(checkpoint), return_predictions=False)

    resume(checkpoints[0])
    settings = json.loads((tmp_path / "traces" / "settings.json").read_text())
    assert settings["checkpoint"] == str(checkpoints[0])
    resume(checkpoints[0])
    with pytest.raises(InputError, match=r"checkpoint: \S+a.ckpt there, \S+b.ckpt now"):
        resume(checkpoints[1])

    copied = CheckpointFiles().load_checkpoint(checkpoints[0])
    name = next(iter(copied["state_dict"]))
    copied["state_dict"][name] = copied["state_dict"][name] + 1e-3
    CheckpointFiles().save_checkpoint(copied, checkpoints[0])
    with pytest.raises(InputError, match=r"checkpoint_fingerprint: "):
        resume(checkpoints[0])


def test_other_weights_or_gold_answers_in_the_same_place_are_refused(tmp_path: Path) -> None:
    made = prepare(tmp_path / "source")
    sample(made, tmp_path / "run")
    sample(made, tmp_path / "run")
    questions = made / "questions.jsonl"
    before = questions.read_text()
    questions.write_text(before.replace('"gold": "1"', '"gold": "2"'))
    with pytest.raises(InputError, match="has another gold answer there than in data now"):
        sample(made, tmp_path / "run")
    questions.write_text(before)
    save_tiny(made / "model", seed=1)
    with pytest.raises(InputError, match=r"other settings \(model_fingerprint: \w+ there, \w+ now\)"):
        sample(made, tmp_path / "run")
    settings = tmp_path / "run/traces/settings.json"
    older = json.loads(settings.read_text())
    settings.write_text(json.dumps({name: value for name, value in older.items() if "fingerprint" not in name}))
    sample(made, tmp_path / "run")  # a record from before there were fingerprints
