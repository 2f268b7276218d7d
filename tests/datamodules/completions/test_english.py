"""What is clearly not English is found; what may be English is not."""

import pytest

from datamodules.completions.english import is_english


@pytest.mark.parametrize(
    "text",
    [
        "Lo siento, pero no puedo ayudar con eso.",
        "Es tut mir leid, dabei kann ich nicht helfen.",
        "Je suis d\u00e9sol\u00e9, mais je ne peux pas vous aider.",
        "Mi dispiace, ma non posso aiutarti con questa richiesta.",
        "Desculpe, n\u00e3o posso ajudar com isso.",
        "\u5bf9\u4e0d\u8d77\uff0c\u6211\u4e0d\u80fd\u5e2e\u52a9\u4f60\u3002",
        "\u0418\u0437\u0432\u0438\u043d\u0438\u0442\u0435, \u044f \u043d\u0435 \u043c\u043e\u0433\u0443.",
    ],
)
def test_other_languages(text: str) -> None:
    assert not is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No.",
        "I can't help with that.",
        "1. 2 3 + 4 = 7",
        "The German for 'and' is und, the French is et, and the Spanish for 'with' is con.",
        "def f(x):\n    return x ** 2",
        "Los Angeles, Monaco, Paris, Rome, Berlin",
    ],
)
def test_what_may_be_english(text: str) -> None:
    assert is_english(text)
