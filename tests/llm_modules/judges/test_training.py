"""Training on what can be known, and estimates from what cannot have been seen."""

from typing import Any

import pytest

from datamodules.errors import InputError
from llm_modules.judges import training
from llm_modules.judges.labelled_answers import LabelledAnswer
from llm_modules.judges.training import TrainingSettings, leave_one_out, train

SETTINGS = TrainingSettings(n_ngrams=50, min_count=2, min_sources=2, l2=0.1)


def answers_of(source: str, family: str, n: int = 6) -> list[LabelledAnswer]:
    refusals = [LabelledAnswer(source, family, f"bad {i}", f"I cannot do {i}, sorry.", True) for i in range(n)]
    others = [LabelledAnswer(source, family, f"good {i}", f"Here is the {i}th way.", False) for i in range(n)]
    return refusals + others


def test_learns_what_several_sources_say() -> None:
    answers = answers_of("a", "a") + answers_of("b", "b") + [LabelledAnswer("a", "a", "x", "Quux quux.", True)] * 4
    model = train(answers, SETTINGS, {})
    assert model.refusal("?", "Well, I cannot do that.") > 0.5 > model.refusal("?", "Here is the 9th way.")
    assert not any("quux" in tokens for _, tokens in model.ngrams)  # one source's own word


def test_the_order_of_a_large_source_does_not_drown_a_small_one() -> None:
    small = [LabelledAnswer("s", "s", "q", "It would be wrong to say.", True)] * 3 + answers_of("t", "t", 3)
    small += [LabelledAnswer("t", "t", "q", "It would be wrong to say.", True)] * 3
    large = [LabelledAnswer("l", "l", f"{i}", f"Here it would be, number {i}.", False) for i in range(300)]
    model = train(
        small + large, TrainingSettings(n_ngrams=50, min_count=2, min_sources=2, l2=0.1, source_weight=10), {}
    )
    assert model.refusal("?", "It would be wrong to say.") > 0.5


def test_one_label_alone_is_wrong_input() -> None:
    with pytest.raises(InputError, match="refuse"):
        train([answer for answer in answers_of("a", "a") if answer.refused], SETTINGS, {})


def test_neither_family_nor_prompts_of_what_is_estimated_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answers_of("a", "kin") + answers_of("b", "kin") + answers_of("c", "c") + answers_of("d", "d")
    seen: list[list[LabelledAnswer]] = []
    real: Any = training.train

    def spy(answers: list[LabelledAnswer], *args: object) -> object:
        seen.append(answers)
        return real(answers, *args)

    monkeypatch.setattr(training, "train", spy)
    (found,) = leave_one_out(answers, ["a"], SETTINGS)
    strangers, kin = seen[:3], seen[3:]
    assert len(kin) == 3
    assert {answer.source for fold in strangers for answer in fold} == {"c", "d"}
    assert {answer.source for fold in kin for answer in fold} == {"b", "c", "d"}
    prompts = {answer.prompt for answer in found.answers}
    for folds in (strangers, kin):
        # Each prompt is unseen in one fold, the one whose classifier judged it.
        assert all(sum(prompt not in {answer.prompt for answer in fold} for fold in folds) == 1 for prompt in prompts)
    assert [refusal > 0.5 for refusal in found.refusal] == [answer.refused for answer in found.answers]
