"""The three methods together on a real model: their commands fit together, one table has all of it."""

from pathlib import Path

import pytest

from rod.evidence.real.arithmetic import TESTED
from rod.evidence.real.commands import BENIGN, SUITES
from rod.evidence.real.together import CONDITIONS, STAGES, RealTogetherEvidence
from rod.evidence.rows import Rows
from tests.rod.evidence.results import result, write_results
from tests.rod.evidence.wiring import assert_written_before_read


@pytest.mark.parametrize("controls", [True, False])
def test_every_file_that_a_step_reads_is_written_by_an_earlier_one(tmp_path: Path, controls: bool) -> None:
    steps = RealTogetherEvidence(tmp_path / "data").steps(tmp_path / "seed0", 0, controls)
    assert_written_before_read(steps)
    tested = {step.product.parent.parent.name for step in steps if step.words[0] == "test"}
    assert tested == set(CONDITIONS if controls else ("aligned", "s3cot", "s3cot_mllr"))


def test_one_table_has_accuracy_tokens_attacks_and_over_refusal(tmp_path: Path) -> None:
    root = tmp_path / STAGES / "s3cot"
    answered = [
        result(suite, system=system, metrics={"accuracy": accuracy, "tokens": tokens})
        for suite in TESTED
        for system, accuracy, tokens in (("system1", 0.25, 50.5), ("system2", 0.5, 99))
    ]
    write_results(root / "problems/metrics.json", answered)
    attacked = [suite for suite in SUITES if suite not in BENIGN]
    both = {"asr/classifier": 1.0, "refusal_rate/classifier": 1.0}
    asked = [result(suite, metrics=both | {"asr/phrases": place / 10}) for place, suite in enumerate(attacked)]
    asked += [result(suite, metrics=both | {"refusal_rate/phrases": 0.125}) for suite in BENIGN]
    write_results(root / "requests/metrics.json", asked)
    write_results(tmp_path / STAGES / "aligned/requests/metrics.json", asked[1:])
    evidence = RealTogetherEvidence(tmp_path)
    (section,) = evidence.sections(Rows("together", [evidence.values(tmp_path)]))
    assert list(section.cells) == [
        ["aligned", *["-"] * 5, "0.125", "0.125"],
        ["s3cot", "0.250", "50.5", "0.500", "99.0", "0.250", "0.125", "0.125"],
    ]
