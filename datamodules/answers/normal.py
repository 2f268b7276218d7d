"""Clean an answer before it is compared: the gold answer and the predicted one by the same steps."""

import re

from datamodules.answers.numerals import money_as_signs, plain_forms, spelled_out_fractions, spelled_out_powers
from datamodules.answers.places import extract_boxed
from datamodules.answers.spans import TEXT_COMMANDS

_SYMBOLS = {
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\neq ", "≈": r"\approx ", "∅": r"\emptyset ", "°": r"^\circ ", "º": r"^\circ ", "±": r"\pm ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "…": r"\ldots ", "‘": "'", "’": "'", "′": "'",
    "⁄": "/", "∕": "/", "℃": r"^\circ C", "℉": r"^\circ F",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2007": " ", "\u200b": "",
}  # fmt: skip
_TABLE = {ord(sign): text for sign, text in _SYMBOLS.items()}
_DASH = re.compile(r"(?<!\d)\s?[–—]\s?|(?<=\s)[–—](?=\s)")
_HAN_SCALE = re.compile(r"(?<=\d)\s?([万萬亿億])(?![\d一二三四五六七八九千百])")
_ROOT = re.compile(r"√\s?(?:\(([^()]{1,40})\)|(\d{1,20}|[a-z]))")
_ARGUMENT = r"[\dA-Za-z]|\\(?!frac|sqrt|left|text|math|operator)[A-Za-z]{1,12}"
_GROUP = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_SAME = (
    (re.compile(r",\\!|\{,\}|\\!"), ""),
    (re.compile(r"(?<!\\)(?:\\[,;: ]|\\quad|~)"), " "),
    (re.compile(r"\\(?:bf|rm|it|sf|displaystyle|textstyle|[lL]arge|LARGE|[hH]uge|small)(?![a-zA-Z])\s?"), ""),
    (re.compile(r"\\color\s?\{\w{1,20}\}\s?"), ""),
    (re.compile(r"\\varnothing(?![a-z])"), r"\\emptyset"),
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),
    (re.compile(r"\\(?:big|Big|bigg|Bigg)[lrm]?(?![a-zA-Z])\s?"), ""),
    (re.compile(rf"\\(frac|sqrt|sqrt\[\d\]|pmod)\s*({_ARGUMENT})"), r"\\\1{\2}"),
    (re.compile(rf"\\frac\s*({_GROUP})\s*({_ARGUMENT})"), r"\\frac\1{\2}"),
    (re.compile(r"\\\\\s?\[-?[\d.]{1,9}\s?[a-z]{2}\]"), r"\\\\"),
    (re.compile(r"(?<=[A-Za-z])\\(?:mathrm|operatorname)\s?\{([ei])\}"), r" \1"),
    (re.compile(r"\\(?:mathrm|operatorname)\s?\{([ei])\}"), r"\1"),
    (re.compile(r"(?:\\left)?\\\{\s*(?:\\right)?\\\}"), r"\\emptyset"),
    (re.compile(r"\^\s?(?:\\prime(?![a-z])|\{\s?\\prime\s?\})"), "'"),
    (re.compile(r"\^\s?\{\s?\\prime\s?\\prime\s?\}"), "''"),
    (re.compile(r"\\(?:not\s?=|ne(?![a-z]))|!=|\\not\s?\{=\}"), r"\\neq "),
    (re.compile(r"(?:\{\})?\^\s?\{?\s?\\(?:circ|degree)(?![a-z])\s?\}?|\\degree(?![a-z])"), r"^\\circ "),
    (
        re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)\s?[({]?\s?)(\d[\d.]{0,20})\s?(?:\^\\circ|degrees?\b)"),
        r"\1\\frac{\2\\pi}{180}",
    ),
)
_WRAPPED = re.compile(r"\$((?:[^$\\]|\\.)*)\$|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*([^*]*)\*\*", re.DOTALL)
_TEXT = re.compile(rf"{TEXT_COMMANDS}\{{([^{{}}]*)\}}")
_INLINE = re.compile(r"(?<!\\)\$((?:[^$\\]|\\.){1,300})\$")
_STATEMENT = re.compile(
    r"(?:\\text\s?\{)?\s?(?:(?:so|thus|hence|therefore),?\s)?(?:the\s)?(?:final\s|correct\s)?answer(?:\sis\b)?\s?[:=]?\s?\}?",
    re.IGNORECASE,
)
_UNSOLVABLE = re.compile(
    r"(?:\\(?:text|mbox)\s?\{)?\s?(?:there\s(?:is|are)\s)?no\s(real\s)?(?:solutions?|roots?)\s?\}?", re.IGNORECASE
)
_EMPTY = re.compile(r"(?:\\(?:text|mbox)\s?\{)?\s?(?:the\s)?empty\sset\s?\}?|Ø", re.IGNORECASE)
_LEAD = re.compile(
    r"[=→]\s?|\\(?:#|(?:approx|sim|simeq|therefore|implies|(?:Long)?[rR]ightarrow)(?![a-zA-Z]))\s?"
    r"|(?i:about|approximately|approx\.?|roughly|around)\s(?=\\?[$€£]?-?\d)"
)
"""Signs before an answer that say that it is one."""
_GROUPED_SIDE = re.compile(
    r"([^=,;]{1,60}=\s?(?:\\?[$€£¥₹]\s?)?-?)(\d{1,3}(?:,\d{3}){1,8})((?:\.\d{1,20})?(?![\d.])[^=,;]{0,60})"
)
"""An equation whose right side starts with one number with thousands commas: "x = 22,500"."""
_LISTED = re.compile(r"\d,\s+-?\d")
NO_NOUN = (
    r"(?! ?(?:hal(?:f|ves)|thirds?|quarters?|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf)ths?"
    r"|[a-z]{0,20}(?:teen|tie|hundred|thousand|illion)ths?|squared|cubed|factorial|percent|in(?! total)|base"
    r"|score|gross|dozens?|pairs?|hundred|thousand|million|billion|trillion|choose|mod|over|or|and|to|times|plus|minus|of|than|more"
    r"|less|fewer|by|pi|sqrt|roots?|infty|infinity)\b)"
)
"""Words behind a number that belong to its value, and are no noun that is counted."""
_COUNTED = re.compile(
    rf"{TEXT_COMMANDS}\{{\s?(\d[\d,]{{0,20}}(?:\.\d{{1,20}})?(?:\s{NO_NOUN}[A-Za-z]{{2,20}}){{1,3}})\.?\s?\}}"
    r"|\\underline\s?\{([^{}]{1,60})\}"
    r"|\\text\s?\{\s?(?:(?:[tT]otal|[sS]um|[rR]esult|[vV]alue|[aA]rea|[cC]ost|[pP]rice|[nN]umber):|about|approximately|roughly)"
    r"\s?\}\s?(\\?[$€£]?-?\d[^:]{0,60})"
)
"""A number with its noun in a command, underlined, or after a label: ``\\text{18 eggs}``, ``\\text{Total: } 18``."""
_BOUNDS = (
    (re.compile(r"at least (.+)|(.+?),? or (?:more|greater|larger|higher|above)", re.IGNORECASE), r"\ge "),
    (re.compile(r"at most (.+)|(.+?),? or (?:less|fewer|smaller|lower|below)", re.IGNORECASE), r"\le "),
    (re.compile(r"(?:more|greater|larger|higher) than (.+)", re.IGNORECASE), "> "),
    (re.compile(r"(?:less|fewer|smaller|lower) than (.+)", re.IGNORECASE), "< "),
)


def clean(text: str) -> str:
    r"""An answer in plain LaTeX: without box, dollar signs, final stop and thin spaces; Unicode signs as commands.

    Example:
        >>> clean("$48°$."), clean(r"\boxed{\text{The answer is }7}"), clean("1{,}000")
        ('48^\\circ', '7', '1000')
    """
    text = spelled_out_powers(money_as_signs(text.strip()))
    if not text.isascii():
        text = _DASH.sub("-", spelled_out_fractions(plain_forms(text)))
        text = _HAN_SCALE.sub(lambda match: rf" \times 10^{{{4 if match[1] in '万萬' else 8}}}", text)
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
    if _EMPTY.fullmatch(text):
        return r"\emptyset"
    if match := _UNSOLVABLE.fullmatch(text):
        return f"no {match[1] or ''}solution".lower()
    if match := _COUNTED.fullmatch(text):
        text = next(group for group in match.groups() if group)
    lead = _LEAD.match(text)
    return _as_bound(text[lead.end() :] if lead else text).strip()


def without_thousands_commas(text: str, other: str) -> str:
    """``x = 22,500`` as ``x = 22500``, of cleaned answers, unless the ``other`` one is a list."""
    match = _GROUPED_SIDE.fullmatch(text) if "=" in text and not _LISTED.search(other) else None
    return match[1] + match[2].replace(",", "") + match[3] if match else text


def _as_bound(text: str) -> str:
    r"""``5 \text{ or more}`` as ``\ge 5``."""
    if " or " in text or " than " in text or "at " in text:
        plain = without_commands(text)
        for pattern, sign in _BOUNDS:
            if match := pattern.fullmatch(plain):
                return sign + next(group for group in match.groups() if group).strip()
    return text


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
