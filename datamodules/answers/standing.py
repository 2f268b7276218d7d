"""Whether a text stands by a statement of an answer, only says it under a condition, or does not mean it.

All take time linear in the length of the text: every repetition in the patterns has an upper bound.
"""

import re
from typing import Literal

Standing = Literal["firm", "weak", "none"]

_SUPPOSING = r"\b(?:if|whether|suppose|assume|assuming|unless)\b"
_SUPPOSED = re.compile(rf"{_SUPPOSING}[^,.\n]{{0,40}}$", re.IGNORECASE)
_ASSUMED = re.compile(rf"{_SUPPOSING}[^.\n]{{0,40}}$", re.IGNORECASE)
_CONDITION = re.compile(
    r"\b(?:if|whether|suppose|supposing|assume|assuming|unless|had|were|without|otherwise|in (?:that|this|which) case"
    r"|in (?:the )?(?:case|event) (?:of|that)|provided|imagine|instead of)\b|^\s{0,3}should\b",
    re.IGNORECASE,
)
_WHEN = re.compile(r"\bwhen(?:ever)?\b", re.IGNORECASE)
_THEN = re.compile(r"\bthen,?\s(?:the\s|our\s|my\s)?(?:correct\s|right\s|best\s|final\s)?$", re.IGNORECASE)
_WOULD = re.compile(r"\bwould\b|\bcould\b|\bmight\b", re.IGNORECASE)
_GOES_ON = r"(?:(?!\b(?:so|but|hence|thus|therefore)\b)[^,;])"
_OF_OTHERS = re.compile(
    r"\b(?:wrong|incorrect|false|tempting)\s$"
    rf"|\b(?:tempt(?:ing|ed)|wrong|incorrect|a\s(?:common\s)?mistake)\sto\s{_GOES_ON}{{0,40}}$"
    rf"|\b(?:misconception|fallacy)\sis\s(?:that\s|to\s){_GOES_ON}{{0,40}}$"
    rf"|(?:\b(?:not|never)\s|n['’]t\s)(?:think|believe|assume|guess|expect|suppose)\b{_GOES_ON}{{0,30}}$"
    r"|(?:\b(?:many|some|most|people|students|others)(?:\s(?!we\b)[a-z]{2,12}){0,3}\s"
    r"|(?<!\bas\s)\b(?:one|you|they)\s(?:might|may|could|would(?!\s(?:[a-z]{1,10}ly\s)?say\b))\s(?:[a-z]{1,10}ly\s)?)"
    rf"(?:think|say|believe|assume|guess|expect|suppose)\b{_GOES_ON}{{0,30}}$"
    r"|\b(?:one|you|they)\s(?:might|may|could|would)\shave\s(?:[a-z]{1,10}ly\s)?"
    rf"(?:thought|said|believed|assumed|guessed|expected|supposed)\b{_GOES_ON}{{0,30}}$",
    re.IGNORECASE,
)
"""What stands before an answer that the text does not give itself: "many think that the"."""
_EARLIER = re.compile(
    r"\b(?:(?:previous|earlier|initial|original)|(?:student|pupil|friend|classmate)['’]s)\s$", re.IGNORECASE
)
"""What stands before an answer that the text may have changed since, or keep, or that is another's."""
_TAKEN_BACK = re.compile(
    r"[^.\n]{0,60}\b(?:but|though|however),?\s(?:that|this|it)(?:\s(?:is|was|would\sbe)|['’]s)\s"
    r"(?:wrong|incorrect|false|not\s(?:right|correct|true))(?=\s?(?:[.,;:!)\n]|$)|\s(?:because|since|as)\b)",
    re.IGNORECASE,
)
_NOT = re.compile(r"[\s*_]{0,4}not[\s*_]{1,4}(?:option\s|choice\s)?[$(]{0,2}(?:-?\d|(?-i:[A-Z]\b))", re.IGNORECASE)
_SENTENCE_START = re.compile(r"[.!?;]\s|\n")


def standing(text: str, start: int, end: int) -> Standing:
    """How a statement is meant; it goes from ``start`` to ``end``, where the answer starts.

    ``none``: it says what others think, what was wrong, or what the answer would be under a condition. ``weak``: it has
    a condition but no "would" ("if I am right, the answer is"), is of an earlier answer, or denies one; it counts if
    there is no firm one. "if" shortly before the statement, without a comma between, makes it part of the condition.
    """
    before, after = text[sentence_start(text, start) : start], text[end : sentence_end(text, end)]
    words = text[start:end]
    if _SUPPOSED.search(text[max(0, start - 60) : start]) or "would have been" in words.casefold():
        return "none"
    if _OF_OTHERS.search(before) or _TAKEN_BACK.match(after):
        return "none"
    condition = _CONDITION.search(before)
    if _WOULD.search(words):
        if condition or _THEN.search(before) or _CONDITION.search(after):
            return "none"
        return "weak" if _WHEN.search(before) or _WHEN.search(after) else "firm"
    conditional = _ASSUMED.search(before) or (condition and _THEN.search(before))
    return "weak" if conditional or _EARLIER.search(before) or _NOT.match(after) else "firm"


def sentence_start(text: str, position: int) -> int:
    """Where the sentence of a position starts, at most 300 characters before it."""
    first = max(0, position - 300)
    ends = [match.end() for match in _SENTENCE_START.finditer(text, first, position)]
    return ends[-1] if ends else first


def sentence_end(text: str, position: int) -> int:
    """Where the sentence of a position ends, at most 300 characters after it."""
    match = _SENTENCE_START.search(text, position, position + 300)
    return match.start() + 1 if match else min(len(text), position + 300)
