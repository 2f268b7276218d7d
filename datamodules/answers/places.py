"""Places of a completion that may hold the answer. Each yields spans of text, the last span of the completion first.

All take time linear in the length of the completion: every repetition in the patterns has an upper bound.
"""

import re
from collections.abc import Callable, Iterator

MOST_SPANS = 20
"""Spans of one place that are tried."""

_BOX_TOKENS = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)


def extract_boxed(text: str) -> str | None:
    r"""The content of the last balanced ``\boxed{}`` or ``\fbox{}`` that is not empty; None if there is none.

    Of nested boxes the inner one counts. Escaped braces are text. Linear in the length of ``text``.

    Example:
        >>> extract_boxed(r"First \boxed{4}, then \boxed{\frac{1}{2}} and \boxed{")
        '\\frac{1}{2}'
    """
    open_braces: list[tuple[bool, int]] = []  # (is a box, where its content starts)
    last = (-1, -1)
    for token in _BOX_TOKENS.finditer(text):
        if token["box"] or token[0] == "{":
            open_braces.append((token["box"] is not None, token.end()))
        elif token[0] == "}" and open_braces:
            is_box, start = open_braces.pop()
            if is_box and start > last[0] and text[start : token.start()].strip():
                last = (start, token.start())
    return text[last[0] : last[1]].strip() if last[0] >= 0 else None


def _boxed(text: str) -> Iterator[str]:
    if (box := extract_boxed(text)) is not None:
        yield box


_TAGGED = re.compile(
    r"""\b(?:final_?)?answer\s?\(\s?(["'])(?P<call>[^"'\n]{1,300})\1\s?\)"""
    r"""|<answer>\s{0,9}(?P<tag>[^<]{1,300})</answer>"""
    r"""|["'](?:final_?)?answer["']\s?:\s?(?:"(?P<string>[^"\n]{1,300})"|(?P<bare>-?[\w.]{1,40})(?=\s{0,9}[,}]))"""
    r"""|\[\[(?P<brackets>[^\[\]\n]{1,60})\]\]""",
    re.IGNORECASE,
)
_HASHES = re.compile(r"####(?!#)\s{0,9}([^\n#]{1,300})")
_JOINT = re.compile(r"(?:[\s,;/&|]|\bor\b|\band\b|\bAction:|\bAnswer:){1,12}", re.IGNORECASE)


def _tagged(text: str) -> Iterator[str]:
    """Tagged answers; ``Answer("A") or Answer("B")`` is one span, "A or B"."""
    found: list[str] = []
    end = -1
    for match in _TAGGED.finditer(text):
        answer = next(group for group in match.groupdict().values() if group)
        if found and _JOINT.fullmatch(text[end : match.start()][:40]) and len(found[-1]) < 300:
            found[-1] += f" or {answer}"
        else:
            found.append(answer)
        end = match.end()
    return reversed(found)


def _hashes(text: str) -> Iterator[str]:
    return reversed(_HASHES.findall(text))


_GAP = r"[\s*_]{0,4}"
_IS = rf"(?:{_GAP}(?:\b(?:is|are|was|would be|should be|must be|will be)\b|=){_GAP}[:：]?|{_GAP}[:：])"
_ANSWER = (
    rf"(?<![A-Za-z])answer(?:{_GAP}\((?:final|in [a-z]{{1,12}})\))?(?:\s(?:to|for|of)\b[^.:\n]{{0,80}}?)?"
    rf"(?:{_IS}|[*_:]{{0,4}}[ ]?\n)"
)
_CHOOSE = (
    r"\b(?:correct|right|best|final|appropriate|likely|suitable|accurate|true)\s(?:option|choice|alternative|one)"
    rf"(?:\shere)?{_IS}|\b(?:I|I'd|I'll|we)\s(?:would\s|will\s)?(?:choose|select|pick|go\s(?:with|for))\b[:]?"
    r"|\b(?:is|be)\s(?:therefore\s|thus\s)?(?=(?:option|choice)\s\(?[A-Z]\b)"
)
_CUE = re.compile(_ANSWER, re.IGNORECASE)
_CHOICE_CUE = re.compile(f"{_ANSWER}|{_CHOOSE}", re.IGNORECASE)
_NUMBER_CUE = re.compile(rf"{_ANSWER}|^A:", re.IGNORECASE | re.MULTILINE)
_SUBJECT = (
    r"(?<!\bnor )(?<!\bor )(?<!\band )(?<!\bneither )(?:\b(?P<noun>[Oo]ption|[Cc]hoice|[Aa]nswer)\s)?"
    r"[*_]{0,2}(?P<name>\([A-Z]\)|(?<![\w'.(])[A-Z](?![\w'.]))[*_]{0,2}"
    r"\s(?:is|must be|would be)\s(?:therefore\s|thus\s|clearly\s)?"
)
_IS_ANSWER = re.compile(
    rf"{_SUBJECT}(?:the\s)(?:only\s|most\s|single\s)?"
    r"(?:(?:correct|right|best|appropriate|accurate|likely)\s)?(?:answer|option|choice|one)\b"
)
_IS_CORRECT = re.compile(rf"{_SUBJECT}(?:the\s)?(?:most\s)?(?:correct|right|best)\b")
_SUPPOSED = re.compile(r"\b(?:if|whether|suppose|assume|assuming|unless)\b[^.\n]{0,40}$", re.IGNORECASE)


def stated(text: str, choice: bool, number: bool) -> Iterator[str]:
    """Text after "the answer is" and similar words.

    For a ``choice`` also after "the correct option is" and before "is the answer". For a ``number`` also after ``A:``
    at the start of a line, which for a choice would be an option.
    """
    cue = _CHOICE_CUE if choice else _NUMBER_CUE if number else _CUE
    found = [(match.start(), text[match.end() : match.end() + 300]) for match in cue.finditer(text)]
    if choice:
        called = [match for match in _IS_CORRECT.finditer(text) if match["noun"]]
        if len({match["name"].strip("()") for match in called}) > 1:
            called = []  # the text goes through several options, true and false ones
        found += [(match.start(), match["name"]) for match in (*called, *_IS_ANSWER.finditer(text))]
        found.sort()
    for start, span in reversed(found[-MOST_SPANS:]):
        if not _SUPPOSED.search(text[max(0, start - 60) : start]):
            yield span


def _last_line(text: str) -> Iterator[str]:
    if lines := text.strip().rsplit("\n", 1):
        yield lines[-1]


def _first_line(text: str) -> Iterator[str]:
    yield text.strip().partition("\n")[0]


def _whole(text: str) -> Iterator[str]:
    yield text


PLACES: dict[str, Callable[[str], Iterator[str]]] = {
    "boxed": _boxed,
    "tagged": _tagged,
    "hashes": _hashes,
    "last_line": _last_line,
    "first_line": _first_line,
    "last_number": _whole,
}
"""Places that need nothing but the text."""
