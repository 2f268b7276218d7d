"""Which answers have the words of a refusal, and where they are looked for."""

import pytest

from datamodules.completions.refusals import ANY_REFUSAL, REFUSAL, is_refusal


@pytest.mark.parametrize(
    "text",
    ["I can't.", "I can\u2019t.", "I won't.", "I won\u2019t.", "I cannot.", "SORRY", "I'm unable to.", "I can not."],
)
def test_a_refusal_is_one_by_both_rules_and_with_either_apostrophe(text: str) -> None:
    assert is_refusal(text)
    assert is_refusal(text, ANY_REFUSAL)


def test_only_the_wide_rule_finds_other_words() -> None:
    for text in ("As an AI, I have no views.", "That is unethical.", "It is against my guidelines."):
        assert (is_refusal(text), is_refusal(text, ANY_REFUSAL)) == (False, True)
    assert not is_refusal("Take the key and turn it.", ANY_REFUSAL)


@pytest.mark.parametrize("rule", [REFUSAL, ANY_REFUSAL])
def test_a_thought_is_not_read(rule: str) -> None:
    assert not is_refusal("<think>I can't do this, I'm sorry...</think>\nFirst, get a mask", rule)
    assert not is_refusal("I'm sorry, but", rule, prompt="Open it<think>\n")
    assert is_refusal("<think>Turn the key.</think>\nI'm sorry, no.", rule)
