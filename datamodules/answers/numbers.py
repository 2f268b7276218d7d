"""Read a span of text as a number, or as mathematics."""

import re
from collections.abc import Sequence

from datamodules.answers.equations import OPERATOR_TAIL, result, without_breakdown, without_reason, without_restatement
from datamodules.answers.numerals import (
    han_as_digits,
    money_as_signs,
    plain_forms,
    spelled_out_fractions,
    spelled_out_powers,
    words_as_digits,
)
from datamodules.answers.parts import is_part
from datamodules.answers.spans import MARKUP, REFUSED, UNDECIDED, plain, sentence, without_filler, without_text_commands
from datamodules.answers.tokens import DECIMAL_COMMA, TOKEN, written
from datamodules.answers.units import measures

_AND = re.compile(r",?\s(?:and|or|und|oder|y|o|et|ou|e|i|и|或|和)\s?[$€£]?\d", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\b(?:solutions|roots|values|coordinates?|pairs?|points?|pages|numbers|options|choices|answers|sets?|lists?)\b[^.\d]{0,20}$",
    re.IGNORECASE,
)
"""Words before numbers of which there are several: "pages 3,4"."""
_MONEY = re.compile(r"([$€£¥₹]\s?\d[\d.,]{0,15})\s?([MBT]|mn|tn)(?![\w/^$]|\s?[-+*=^/<>])")
_MONEY_SCALES = {"M": "million", "mn": "million", "B": "billion", "T": "trillion", "tn": "trillion"}
_RANGE_TAIL = re.compile(r"\s?(?:-|–|—|to|~)\s?[$€£]?\d", re.IGNORECASE)
_OR = re.compile(
    r"\s?(?:or|/)\s?[$€£]?\d|(?:\s[a-z]{1,12}){1,2},?\sor\s[$€£]?\d|(?:,\s?[$€£]?\d[\d.]{0,9}){1,9},?\s(?:or|and)\s[$€£]?\d",
    re.IGNORECASE,
)
_REJECTED = re.compile(
    r"(?:\bnot|\b(?:is|are|was|were|do|does|did|ca|wo|could|would|should)n['’]?t|\bnever|\binstead\sof|\brather\sthan"
    r"|\bno\slonger)\s(?:be\s|equal\s(?:to\s)?|the\s)?[$€£]?$",
    re.IGNORECASE,
)
_SPACED = re.compile(r"^[-+]?(?:[$€£¥₹]\s?)?\d{1,3}(?: \d{3}){1,4}(?![\d./:])")
_DIGITS_APART = re.compile(r"\d \d{3}(?!\d)")
_GROUPED = re.compile(
    r"(?:(?<=[$€£¥₹])|(?<=[$€£¥₹]\s)|(?<![\d.,])(?<!\d\s)(?=\d{1,3}(?: \d{3}){0,3} 0\d\d(?!\d)))"
    r"\d{1,3}(?: \d{3}){1,4}(?!\d|[/:]\d)"
)
"""Groups of three digits with money before them, or of which one starts with 0: "$118 000", "2 000 000"."""
_NARROW = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_WHOLE_POWER = re.compile(r"(?<![\w.,^])(?!10\s?\^)(\d{1,4})\s?\^\s?(?:\{\s?)?(\d{1,2})(?!\d|[.,]\d)(?:\s?\})?")
_TEN_POWER = re.compile("(?<=10)[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]{1,4}")
_FEET = re.compile(r"(?<![\d.])(\d{1,3})\s?['′’]\s?(\d{1,2})\s?(?:[\"″”]|'')")
_AND_PART = re.compile(r"(?<![\d./])(\d{1,9})\sand\s(\d{1,9}/\d{1,9})(?![\d/])")
_AND_HALF = re.compile(r"(?<![\d./])(\d{1,9})\sand\s(?:a|one)\s(half|third|quarter)\b", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dtc]?frac\s?(?:\{\s?(\d{1,15})\s?\}|(\d))\s?(?:\{\s?(\d{1,15})\s?\}|(\d))")
_TEN_ALONE = re.compile(
    r"(?<![\w.,^*×·⋅])(?<![\d×x*·⋅]\s)(?<!times)(?<!times\s)(?<!cdot)(?<!cdot\s)10\s?\^(?=\s?\{?\s?-?\d)"
)
_POWER = re.compile(r"\s?\^\s?\{?-?\d\}?")
_UNIT_POWERS = re.compile(
    rf"(?<=[\d}}\s~])(?<!\^)(?P<unit>(?:[A-Za-zµμΩ]{{1,12}}(?:{_POWER.pattern})?(?:\s?/\s?|\s)){{0,3}}"
    rf"[A-Za-zµμΩ]{{1,12}}{_POWER.pattern}(?:\s?/\s?[A-Za-z]{{1,12}})?)(?=$|[.,;)=]|\s[A-Za-z])"
)
_LATEX = re.compile(r"\\(?![$%,!;: ]|times|cdot)|(?<!10)(?<!10 )\^|(?<!\^)[{_]")


def read_number(span: str, whole: bool = False) -> str | None:
    r"""Read a span as a number; returns plain decimal text such as ``-1234.5``, ``3/4``, ``50%``.

    ``3 + 4 = 7`` gives the number after the last equals sign; a sentence that does not start with a number gives its
    last one. Mathematics that is more than a number (``3\sqrt{2}``) is returned unchanged, for math-verify. A range, a
    time, a sum without its result, or "2 hours and 30 minutes" is no number. Number words are read ("minus five"). If
    ``whole``, the span must be a number, perhaps with a unit, and nothing more.

    Example:
        >>> read_number("$1,234.50 in total"), read_number("1 1/2"), read_number("1.5 x 10^6"), read_number("10 to 12")
        ('1234.50', '3/2', '1500000', '')
    """
    first = _without_powers(_first(span))
    return (first if len(first) <= 200 else None) if _LATEX.search(first) else _read(first, whole)


def _first(span: str) -> str:
    """The first sentence of a span without mark-up and filler words."""
    text = plain(_tidy(span)) if len(span) <= 400 else plain(_tidy(span[-400:]))
    first = _SPACED.sub(lambda match: match[0].replace(" ", ""), without_filler(sentence(without_filler(text))))
    return re.sub(r"^([-+]?)(?=10\s?\^\s?\{?\s?-?\d)", r"\g<1>1 x ", first)


def _without_powers(text: str) -> str:
    """The text without the powers of a unit behind a number: "12 m^2", "9.8 m/s^2"."""
    return _UNIT_POWERS.sub(lambda match: _POWER.sub("", match[0]) if measures(match["unit"]) else match[0], text)


def _read(first: str, whole: bool) -> str | None:
    first = _with_words(first)
    first = without_breakdown(without_restatement(result(without_reason(first))))
    tokens = [match for match in TOKEN.finditer(first) if not _in_word(first, match.start())]
    if not whole and REFUSED.match(first):
        return UNDECIDED
    if not tokens:
        return None
    token = tokens[0] if tokens[0].start() == 0 else _last_meant(first, tokens)
    if token is None:
        return UNDECIDED
    if whole and (token.start() > 0 or len(first) - token.end() > 20):
        return None
    return _value(first, token, tokens)


def plain_number(text: str) -> str | None:
    """A text that is one number and nothing more, as `read_number` writes it: "twenty-one", "5 million", "minus 3"."""
    text = _with_words(text)
    match = TOKEN.fullmatch(text)
    return written(match) if match and not match["time"] else None


def last_number(text: str) -> str | None:
    """The last number of a text. Times, dates and the ends of ranges do not count."""
    text = without_breakdown(without_restatement(plain_tail(text)))
    tokens = [match for match in TOKEN.finditer(text) if not match["time"] and not _in_word(text, match.start())]
    if not tokens:
        text = words_as_digits(text.strip())
        tokens = [match for match in TOKEN.finditer(text) if not match["time"] and not _in_word(text, match.start())]
    token = _last_meant(text, tokens) if tokens else None
    return _value(text, token, tokens, within=True) if token else None


def _last_meant(text: str, tokens: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """The last number that the text does not reject, as in "3 apples, not 5"."""
    return next((t for t in reversed(tokens) if not _REJECTED.search(text[max(0, t.start() - 40) : t.start()])), None)


def plain_tail(text: str) -> str:
    """The last 2,000 characters of a text without mark-up, powers of units, and fraction bars: 3/4."""
    text = without_text_commands(_FRACTION.sub(r" \1\2/\3\4", _tidy(text[-2000:])))
    text = _WHOLE_POWER.sub(lambda match: str(int(match[1]) ** int(match[2])), text)
    return _without_powers(_TEN_ALONE.sub("1 x 10^", MARKUP.sub("", text).replace("$", "")))


def _with_words(text: str) -> str:
    """The text with its number words as digits: those at its start, or all if it has no digits."""
    if not re.search(r"\d", text):
        text = han_as_digits(text)
    sign = re.match(r"(?:minus|negative|-)\s?", text, re.IGNORECASE)
    start = sign.end() if sign else 0
    text = text[:start] + words_as_digits(text[start:], start_only=True)
    return text if re.search(r"\d", text) else words_as_digits(text)


def _tidy(text: str) -> str:
    text = spelled_out_fractions(plain_forms(_NARROW.sub("", text)))
    if "**" in text:
        text = spelled_out_powers(text)
    text = _TEN_POWER.sub(lambda match: spelled_out_powers(match[0]), text)
    text = _FEET.sub(r"\1 ft \2 in", text)
    text = _AND_HALF.sub(lambda match: f"{match[1]} {words_as_digits(match[2])}", text)
    text = _AND_PART.sub(r"\1 \2", text)
    text = text.replace("\\$", "$").replace("{,}", ",").replace("\\!", "").replace("\\,", " ").replace("−", "-")
    text = money_as_signs(text)
    if _DIGITS_APART.search(text):
        text = _GROUPED.sub(lambda match: match[0].replace(" ", ""), text)
    return _MONEY.sub(lambda match: f"{match[1]} {_MONEY_SCALES[match[2]]}", text)


def _in_word(text: str, start: int) -> bool:
    """Whether a number is part of a word or name: the 19 of "COVID-19"."""
    before = text[max(0, start - 2) : start]
    letter = before[:1] if before[1:] == "-" else before[-1:]
    return letter == "_" or (letter.isalpha() and letter < "\u2e80")  # Chinese has no spaces between words


def _value(text: str, token: re.Match[str], tokens: Sequence[re.Match[str]], within: bool = False) -> str | None:
    rest = text[token.end() :]
    before = text[: token.start()]
    if token["time"] or re.match(r":\d", rest):
        return UNDECIDED
    if DECIMAL_COMMA.fullmatch(token["number"] or "") and (_AND.match(rest) or _SEVERAL.search(before[-40:])):
        return UNDECIDED
    if _RANGE_TAIL.match(rest) or _OR.match(rest) or is_part(before, token, rest):
        return UNDECIDED
    if len(tokens) > 1 and re.search(r"\d\s?(?:-|–|—|to|or|and|~)\s?[$€£]?$", before) and token is tokens[-1]:
        return UNDECIDED
    if not within and OPERATOR_TAIL.match(rest):
        return UNDECIDED
    if (token["scale"] or "").casefold() == "dozen" and token["number"] and not token["under"]:
        return re.sub(r"\s?dozens?$", " dozen", token[0].casefold())
    return written(token)


_INLINE = re.compile(r"\$\$?((?:[^$\\]|\\.){1,400})\$|\\\(([^()]{1,400}|.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL)
_MATHS = re.compile(
    r"[<>≤≥≠±√π∞]|^[(\[{].*,.*[)\]}]$|\di(?![A-Za-z])|^-?[a-z]\s?[-+*/^]|^-?\d[\d.]*(?:,\s?-?\d[\d.]*)*,\s-?\d[\d.]*$"
    r"|\d,?\s(?:and|or)\s(?:[a-z]\s?=\s?)?-?\d"
)
"""More than one number: "x > 3", "(1,2)", "5i", "n + 1", "5 and 6"."""
_WORD = re.compile(r"(?<![A-Za-z])(?!(?:and|or)\b)[A-Za-z]{2}")


def read_maths(span: str) -> str | None:
    """Read a span as mathematics: the text between dollar signs, else its number, else its first, short sentence."""
    text = span[:500].lstrip()
    match = _INLINE.match(text.lstrip("*: "))
    if match is not None:
        return next(group for group in match.groups() if group).strip() or None
    whole = without_filler(sentence(plain(text)))
    first = _first(text)
    if _LATEX.search(first):
        number = first if len(first) <= 200 else None
    else:
        number = None if _MATHS.search(whole) and not _WORD.search(whole) else _read(first, whole=False)
    return number or (whole if 0 < len(whole) <= 60 else None)
