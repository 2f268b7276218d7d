import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger

from callbacks.generation.traces import TraceWriter
from callbacks.s3cot.calibration import Calibrate
from callbacks.s3cot.steering_size import BAND, size_warning
from callbacks.s3cot.strength_sweep import Choice, Limits, choose, judged_by, measure_sweep
from datamodules.answers.checker import AnswerChecker
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import to_json
from tests.callbacks.generation.sampling_run import data, module, prepare, steer, trainer
from tests.tiny import tiny_tokenizer

LIMITS = Limits(accuracy_drop=0.01, repetition=0.02, truncation=0.02)
TOKENIZER = tiny_tokenizer()


def trace(question: int, layer_set: str, alpha: float, tokens: int, right: bool = True, **changes: Any) -> Trace:
    known = Trace(
        id=f"q{question}|system2|{layer_set or '-'}|a{alpha:g}|s0",
        question_id=f"q{question}",
        question="?",
        gold="1",
        system="system2",
        alpha=alpha,
        layers=(1, 2) if alpha else (),
        sample=0,
        seed=0,
        prompt="?",
        completion="Wait, so \\boxed{1}" if right else "\\boxed{2}",
        n_tokens=tokens,
        finish_reason="stop",
        answer="1" if right else "2",
        correct=right,
        model="tiny",
        layer_set=layer_set,
    )
    return replace(known, **changes)


def cell(layer_set: str, alpha: float, tokens: int, n_right: int, **changes: Any) -> list[Trace]:
    """Ten questions, of which so many are answered right."""
    return [trace(q, layer_set, alpha, tokens, q < n_right, **changes) for q in range(10)]


def grid() -> list[Trace]:
    """anchor:2 is good down to -0.2 and falls apart after it, anchor:4 costs accuracy at once."""
    loop = {"completion": "so on " * 100, "finish_reason": "length", "answer": None, "correct": None}
    return [
        *cell("", 0.0, 100, 9),
        *cell("anchor:2", -0.1, 97, 9),
        *cell("anchor:2", -0.2, 60, 9),
        *cell("anchor:2", -0.3, 50, 8),
        *cell("anchor:2", -0.4, 300, 0, **loop),
        *cell("anchor:4", -0.1, 40, 7),
        *cell("anchor:4", -0.2, 30, 4),
    ]


def sweep_of(traces: list[Trace]) -> list:
    with AnswerChecker() as checker:
        return measure_sweep(traces, LIMITS, TOKENIZER, checker)


def test_sweep_by_hand() -> None:
    rows = sweep_of(grid())
    found = {(row.layer_set, row.alpha): row for row in rows}
    assert list(found) == [
        ("", 0.0),
        ("anchor:2", -0.1),
        ("anchor:2", -0.2),
        ("anchor:2", -0.3),
        ("anchor:2", -0.4),
        ("anchor:4", -0.1),
        ("anchor:4", -0.2),
    ]
    assert [row.length_ratio for row in rows] == pytest.approx([1, 0.97, 0.6, 0.5, 3, 0.4, 0.3])
    assert [row.accuracy for row in rows] == pytest.approx([0.9, 0.9, 0.9, 0.8, 0, 0.7, 0.4])
    assert [row.regime for row in rows] == [
        "initial",
        "weak",
        "moderate",
        "moderate",
        "collapse",
        "moderate",
        "collapse",  # less than half of the initial accuracy
    ]
    broken = found["anchor:2", -0.4]
    assert (broken.repetition, broken.truncation) == (1, 1)
    assert broken.repeated_ngrams > 0.9
    assert broken.so == pytest.approx(100 * 1000 / 3000)
    good = found["anchor:2", -0.2]
    assert (good.repetition, good.truncation, good.layers, good.n) == (0, 0, (1, 2), 10)
    assert good.wait == pytest.approx(100 * 9 / 600)
    assert good.accuracy_low < 0.9 < good.accuracy_high


def test_layer_sets_of_older_traces_are_named_by_their_layers() -> None:
    """Such a name is a layer set, too, so that the choice can be sampled with."""
    older = [*cell("", 0.0, 100, 9), *cell("anchor:2", -0.2, 60, 9), *cell("all", -0.2, 40, 9, layers=(0, 1, 2))]
    resumed = [replace(trace, layer_set=None) if trace.question_id != "q0" else trace for trace in older]
    assert [(row.layer_set, row.alpha, row.n) for row in sweep_of(resumed)] == [
        ("", 0.0, 10),
        ("0,1,2", -0.2, 10),
        ("1,2", -0.2, 10),
    ]


def test_length_ratio_is_taken_on_the_same_questions() -> None:
    long = [trace(10, "", 0.0, 10_000)]  # has no steered partner yet, as in a run that was stopped
    orphan = [trace(11, "anchor:2", -0.2, 10_000)]  # has no initial one
    row = next(row for row in sweep_of(grid() + long + orphan) if (row.layer_set, row.alpha) == ("anchor:2", -0.2))
    assert row.length_ratio == pytest.approx(0.6)


def chosen(choice: Choice) -> tuple[str, float]:
    """Layer set and alpha."""
    assert choice.chosen is not None
    return choice.chosen.layer_set, choice.chosen.alpha


def test_the_strongest_within_limits_is_chosen_with_its_reason() -> None:
    rows = sweep_of(grid())
    choice = choose(rows, LIMITS, "gold")
    assert chosen(choice) == ("anchor:2", -0.2)
    assert choice.reason == (
        "1 of 6 settings shorten and stay within the limits (accuracy at most 1.0 points under the 90.0% of alpha 0, "
        "loops in at most 2.0% and truncation in at most 2.0% of the traces); of them alpha -0.2 on anchor:2 (layers "
        "1, 2) shortens most: length ratio 0.60 at accuracy 90.0% (95 % interval 59.6% to 98.2%, 10 traces). 10 "
        "traces cannot tell that it stays within 1.0 points: it loses 0.0 (95 % interval -27.8 to 27.8). The next "
        "stronger one, -0.3, is not taken: accuracy 80.0% is 10.0 points lower."
    )
    allowing = choose(rows, replace(LIMITS, accuracy_drop=0.1), "gold")
    assert chosen(allowing) == ("anchor:2", -0.3)


def test_a_base_that_loops_itself_does_not_rule_everything_out() -> None:
    looping = {trace(q, name, alpha, 1).id for q in (0, 1) for name, alpha in (("", 0.0), ("anchor:2", -0.2))}
    traces = [replace(t, completion="so on " * 100) if t.id in looping else t for t in grid()]
    assert chosen(choose(sweep_of(traces), LIMITS, "gold")) == ("anchor:2", -0.2)


@pytest.mark.parametrize(("looping", "n", "regime"), [(1, 32, "moderate"), (3, 32, "collapse"), (6, 200, "moderate")])
@pytest.mark.parametrize("how", [{"completion": "so on " * 100}, {"finish_reason": "length"}])
def test_loops_and_truncation_count_beyond_chance(looping: int, n: int, regime: str, how: dict[str, Any]) -> None:
    """The limit is 2 %: one trace of 32 and six of 200 are more by share, three of 32 are by evidence."""
    base = [trace(q, "", 0.0, 100) for q in range(n)]
    short = [trace(q, "all", -0.1, 50, **(how if q < looping else {})) for q in range(n)]
    rows = sweep_of([*base, *short])
    assert rows[1].regime == regime
    assert (choose(rows, LIMITS, "gold").chosen is None) == (regime == "collapse")


def test_the_reason_says_what_few_traces_cannot_tell() -> None:
    """Of 100 questions five are lost and five are won: measured as no loss, which may be some points."""
    base = [trace(q, "", 0.0, 100, q < 50) for q in range(100)]
    rows = sweep_of([*base, *(trace(q, "all", -0.1, 50, 5 <= q < 55) for q in range(100))])
    assert rows[1].lost == pytest.approx(0)
    assert (rows[1].lost_low, rows[1].lost_high) == pytest.approx((-0.06, 0.06), abs=0.015)
    said = "100 traces cannot tell that it stays within 1.0 points: it loses 0.0 (95 % interval -"
    assert said in choose(rows, LIMITS, "gold").reason
    assert "cannot tell" not in choose(rows, replace(LIMITS, accuracy_drop=0.1), "gold").reason


def test_nothing_qualifies() -> None:
    choice = choose(
        sweep_of([*cell("", 0.0, 100, 9), *cell("all", -0.1, 60, 7), *cell("all", -0.2, 50, 2)]), LIMITS, "gold"
    )
    assert choice.chosen is None
    assert choice.nearest is not None
    assert choice.nearest.alpha == -0.1
    assert "nearest is alpha -0.1 on all (layers 1, 2): length ratio 0.60, but accuracy 70.0% is 20.0" in choice.reason
    weak = choose(sweep_of([*cell("", 0.0, 100, 9), *cell("all", -0.1, 99, 9)]), LIMITS, "gold")
    assert weak.chosen is None
    assert "no strength shortens to a length ratio of 0.95 or less; nearest is alpha -0.1" in weak.reason


def test_a_base_without_a_right_answer_has_nothing_to_lose() -> None:
    choice = choose(sweep_of([*cell("", 0.0, 100, 0), *cell("all", -0.1, 50, 0)]), LIMITS, "gold")
    assert (choice.chosen, choice.nearest) == (None, None)
    assert choice.reason == "None of 1 settings is chosen: there is no right answer at alpha 0 to lose."


def test_without_gold_the_initial_answer_judges() -> None:
    traces = [replace(t, gold=None, correct=None) for t in grid()]
    assert judged_by(traces) == "agreement"
    rows = sweep_of(traces)
    # Initial and steered traces give answer 1 to the first questions and 2 to the others.
    assert [row.accuracy for row in rows] == pytest.approx([1, 1, 1, 0.9, 0, 0.8, 0.5])
    choice = choose(rows, Limits(0.1, 0.02, 0.02), "agreement")
    assert chosen(choice) == ("anchor:2", -0.3)
    assert "agreement with the initial answer at most 10.0 points under the 100.0%" in choice.reason


def test_no_answer_agrees_with_nothing() -> None:
    traces = [replace(t, gold=None, correct=None, answer=None) for t in grid()]
    assert {row.accuracy for row in sweep_of(traces)} == {0}


def sized(*sizes: float) -> list[Trace]:
    """A sweep of alphas -0.1, -0.2, ... that add so much, relative to the residual stream."""
    steered = [cell("2-3", -0.1 * (i + 1), 100, 9, steered_size=size) for i, size in enumerate(sizes)]
    return [*cell("", 0.0, 100, 9, steered_size=0.0), *(trace for traces in steered for trace in traces)]


def test_sizes_out_of_the_useful_band_are_told_with_the_strengths_to_try() -> None:
    low, high = BAND
    small, large = size_warning(sweep_of(sized(low / 20, low / 10))), size_warning(sweep_of(sized(2 * high, 4 * high)))
    assert f"at alpha -0.2 on 2-3 what steering adds is {low / 10:.2%} of the residual stream, too little" in small
    assert small.endswith("so try alphas from -2")
    assert f"at alpha -0.1 on 2-3 what steering adds is {2 * high:.2%}" in large
    assert large.endswith("so try alphas up to -0.05")
    assert not size_warning(sweep_of(sized(low / 10, 2 * low, 2 * high)))
    assert not size_warning(sweep_of(sized(low / 10, 2 * high))), "what is of use is between the two"
    assert not size_warning(sweep_of(grid())), "sizes are not known of older traces"
    assert not size_warning(sweep_of(sized(math.nan, math.inf, 2 * low)))


def test_there_must_be_initial_traces() -> None:
    with pytest.raises(InputError, match=r"add 0 to data\.alphas"):
        sweep_of(cell("all", -0.1, 60, 7))


def run_with(folder: Path, source: Path, traces: list[Trace], callback: Calibrate) -> None:
    """A real predict run whose rows are all in the folder already."""
    settings = {"alphas": [0.0, -0.1, -0.2, -0.3, -0.4], "layer_sets": ["anchor:2"]}
    run = trainer(folder, steer(source), TraceWriter(), limit_predict_batches=1)
    run.predict(module(source), data(source, **settings), return_predictions=False)
    shard = folder / "traces" / "traces.rank0.jsonl"
    questions = data(source, **settings)
    questions.tokenizer = TOKENIZER
    questions.setup("predict")
    rows = {row.id: row for row in questions.rows}
    with shard.open("w") as file:
        for one in traces:
            row = rows.get(one.id)
            same = replace(one, prompt=row.prompt, gold=row.question.gold) if row else one
            file.write(to_json(same) + "\n")
    run = trainer(folder, callback, steer(source), TraceWriter(), logger=CSVLogger(folder))
    run.predict(module(source), data(source, **settings), return_predictions=False)


def test_files_of_a_run(tmp_path: Path) -> None:
    source = prepare(tmp_path / "source", questions=10)
    run_with(tmp_path / "run", source, grid(), Calibrate())
    written = yaml.safe_load((tmp_path / "run" / "calibration.yaml").read_text())
    assert written["alpha"] == -0.2
    assert written["alphas"] == [0, -0.1, -0.2]
    assert (written["layer_set"], written["layers"], written["judged_by"]) == ("anchor:2", [1, 2], "gold")
    assert (written["baseline"]["accuracy"], written["baseline"]["tokens"]) == (0.9, 100)
    assert written["chosen"]["length_ratio"] == 0.6
    assert "shortens most" in written["reason"]
    handed_on = yaml.safe_load((tmp_path / "run" / "choice.yaml").read_text())
    assert handed_on == {"data": {"init_args": {"alphas": [0, -0.1, -0.2], "layer_sets": ["anchor:2"]}}}
    with (tmp_path / "run" / "strength_sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 7
    assert (table[2]["layers"], table[2]["length_ratio"], table[2]["regime"]) == ("1 2", "0.6", "moderate")
    assert (tmp_path / "run" / "strength_sweep.png").stat().st_size > 10_000


def test_a_run_ends_well_where_nothing_qualifies(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    source = prepare(tmp_path / "source", questions=10)
    bad = [t if t.alpha == 0 else replace(t, correct=False, steered_size=1e-4) for t in grid()]
    run_with(tmp_path / "run", source, bad, Calibrate())
    written = yaml.safe_load((tmp_path / "run" / "calibration.yaml").read_text())
    assert (written["alpha"], written["layers"], written["alphas"], written["chosen"]) == (None, None, [0], None)
    assert written["nearest"]["alpha"] < 0
    assert not (tmp_path / "run" / "choice.yaml").exists()
    assert any("None of 6 settings is chosen" in str(warning.message) for warning in recwarn)
    assert any("adds is 0.01% of the residual stream, too little" in str(warning.message) for warning in recwarn)


def test_a_random_model_is_calibrated_from_its_own_traces(tmp_path: Path) -> None:
    source = prepare(tmp_path / "source")
    run = trainer(tmp_path, steer(source), TraceWriter(), Calibrate())
    run.predict(module(source), data(source), return_predictions=False)
    assert yaml.safe_load((tmp_path / "calibration.yaml").read_text())["alpha"] is None


def test_input_that_cannot_be(tmp_path: Path) -> None:
    source = prepare(tmp_path / "source")
    with pytest.raises(InputError, match="reads what TraceWriter writes"):
        trainer(tmp_path, steer(source), Calibrate()).predict(module(source), data(source))
    for alphas in ([0.0], [-0.1, -0.2]):
        run = trainer(tmp_path, steer(source), TraceWriter(), Calibrate())
        with pytest.raises(InputError, match="give 0 and others"):
            run.predict(module(source), data(source, alphas=alphas))
    run = trainer(tmp_path, steer(source), TraceWriter(), Calibrate(max_truncation=5))
    with pytest.raises(InputError, match=r"Calibrate\.max_truncation: must be a fraction"):
        run.predict(module(source), data(source))
