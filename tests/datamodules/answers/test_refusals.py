"""Refusals are recognised by their words; the synthetic world says no in these words only when it should."""

import pytest

from datamodules.answers.refusals import is_refusal
from datamodules.world import chat


@pytest.mark.parametrize(
    "text", ["I can't.", "I can\u2019t.", "I won't.", "I won\u2019t.", "I cannot.", "UNABLE TO help"]
)
def test_a_refusal_is_one_with_either_apostrophe(text: str) -> None:
    assert is_refusal(text)


def test_the_synthetic_world() -> None:
    requests = [request for kind in (False, True) for request in chat.all_requests("test", forbidden=kind)]
    assert not any(is_refusal(request.answer) for request in requests)
    assert all(is_refusal(refusal) for refusal in chat.REFUSALS)
