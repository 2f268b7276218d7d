"""Recognise a refusal by its words, while data are made; to measure refusals, use `llm_modules.judges`."""

import re

REFUSAL = (
    r"\b(sorry|apologi[sz]e|can(no|['’])t|won['’]t|will not|unable to|not able to|as an ai|not appropriate|unethical"
    r"|against my (guidelines|programming))\b"
)
"""Regular expression that a refusal matches in upper or lower case (ours)."""


def is_refusal(text: str) -> bool:
    """Whether an answer refuses, by `REFUSAL`.

    Example:
        >>> is_refusal("I'm unable to help with that."), is_refusal("Take the key and turn it.")
        (True, False)
    """
    return re.search(REFUSAL, text, re.IGNORECASE) is not None
