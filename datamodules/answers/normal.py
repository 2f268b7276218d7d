"""Clean an answer before it is compared: the gold answer and the predicted one by the same steps."""

import re

from datamodules.answers.numerals import plain_forms, spelled_out_fractions, spelled_out_powers
from datamodules.answers.places import extract_boxed

_SYMBOLS = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ", "∅": r"\emptyset ", "°": r"^\circ ", "º": r"^\circ ", "±": r"\pm ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "…": r"\ldots ", "‘": "'", "’": "'", "′": "'",
    "℃": r"^\circ C", "℉": r"^\circ F", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2007": " ", "\u200b": "",
}  # fmt: skip
_TABLE = {ord(sign): text for sign, text in _SYMBOLS.items()}
_DASH = re.compile(r"(?<!\d)\s?[–—]\s?|(?<=\s)[–—](?=\s)")
_ROOT = re.compile(r"√\s?(?:\(([^()]{1,40})\)|(\d{1,20}|[a-z]))")
_SAME = (
    (re.compile(r",\\!|\{,\}|\\!"), ""),
    (re.compile(r"(?<!\\)(?:\\[,;: ]|\\quad|~)"), " "),
    (re.compile(r"\\varnothing(?![a-z])"), r"\\emptyset"),
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\(?:not\s?=|ne(?![a-z]))|!=|\\not\s?\{=\}"), r"\\neq "),
    (re.compile(r"(?:\{\})?\^\s?\{?\s?\\(?:circ|degree)(?![a-z])\s?\}?|\\degree(?![a-z])"), r"^\\circ "),
)
_WRAPPED = re.compile(r"\$((?:[^$\\]|\\.)*)\$|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*([^*]*)\*\*", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\s{0,3}\{([^{}]*)\}")
_INLINE = re.compile(r"(?<!\\)\$((?:[^$\\]|\\.){1,300})\$")
_STATEMENT = re.compile(
    r"(?:\\text\s?\{)?\s?(?:(?:so|thus|hence|therefore),?\s)?(?:the\s)?(?:final\s|correct\s)?answer(?:\sis\b)?\s?[:=]?\s?\}?",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    r"""An answer in plain LaTeX: without box, dollar signs, final stop and thin spaces; Unicode signs as commands.

    Example:
        >>> clean("$48°$."), clean(r"\boxed{\text{The answer is }7}"), clean("1{,}000")
        ('48^\\circ', '7', '1000')
    """
    text = text.strip()
    if not text.isascii():
        text = _DASH.sub("-", spelled_out_powers(spelled_out_fractions(plain_forms(text))))
        text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text).translate(_TABLE)
    if "\\" in text or "~" in text or "{" in text or "!=" in text:
        if "boxed" in text or "fbox" in text:
            text = extract_boxed(text) or text
        for pattern, same in _SAME:
            text = pattern.sub(same, text)
    for _ in range(4):  # deeper nesting is no answer, and would take long
        text = _without_stop(text.strip())
        if (match := _WRAPPED.fullmatch(text)) is None:
            break
        text = next(group for group in match.groups() if group is not None)
    if text.count("$") > 1:
        text = _INLINE.sub(r"\1", text)
    if "nswer" in text and (match := _STATEMENT.match(text)) and match.end() < len(text):
        text = text[match.end() :].strip()
    return text.strip()


def without_commands(text: str) -> str:
    r"""The text with the content of ``\text{}`` in place of the command, and without final stop."""
    if "\\" not in text:
        return text
    for _ in range(3):
        text = _TEXT.sub(r" \1", text)
    return _without_stop(re.sub(r"\s+", " ", text).strip())


def _without_stop(text: str) -> str:
    if text[-1:] in (".", ",", ";") and text[-2:-1] != "\\" and not text.endswith("..."):
        text = text[:-1].rstrip()
    return text
