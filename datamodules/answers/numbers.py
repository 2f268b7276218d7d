"""Read a span of text as a number, or as mathematics."""

import re
from collections.abc import Sequence

from datamodules.answers.spans import MARKUP, REFUSED, UNDECIDED, plain, sentence, without_filler

_DIGITS = (
    r"(?:\d{1,3}(?:,\d{3}){1,8}(?!\d)|\d{1,2}(?:,\d{2}){1,5},\d{3}(?!\d)|\d{1,1000})(?:\.\d{1,1000})?|\.\d{1,1000}"
)
_TOKEN = re.compile(
    rf"(?P<time>\b\d{{1,2}}:\d{{2}}\b|\b\d{{1,4}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}\b)"
    rf"|(?P<sign>(?<![\w)])[-−+]\s?)?(?P<currency>(?:US)?[$€£¥₹]\s?)?(?P<sign2>[-−])?(?:"
    rf"(?P<whole>\d{{1,9}})\s(?P<top>\d{{1,9}})/(?P<bottom>\d{{1,9}})(?![\d/])"
    rf"|(?P<number>{_DIGITS})(?:\s?/\s?(?P<under>\d{{1,100}})(?![\d/]))?)"
    r"(?:\s?(?:[x×*]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\s?(?P<power>[-−]?\d{1,3})\}?|[eE](?P<exp>[-+]?\d{1,3})\b)?"
    r"(?P<percent>\s?\\?%|\s(?:percent|per cent)\b)?(?:\s(?P<scale>thousand|million|billion|trillion)s?\b)?",
    re.IGNORECASE,
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_RANGE_TAIL = re.compile(r"\s?(?:-|–|—|to|~)\s?[$€£]?\d", re.IGNORECASE)
_OPERATOR_TAIL = re.compile(
    r"\s?(?:[+*×÷^]|\\times|\\cdot|\\div)\s?\S|\s?x\s?\d|(?:[xyzn]|\\sqrt|\\pi|π|√)(?![A-Za-z])", re.IGNORECASE
)
_COMPOUND = re.compile(
    r"\s?(?:hours?|hrs?|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|dollars?|pounds?|lbs?)\.?,?\s(?:and\s)?"
    r"\d[\d.,]{0,9}\s?(?:minutes?|mins?|seconds?|days?|weeks?|months?|inches|in|cents?|ounces?|oz)\b",
    re.IGNORECASE,
)
_OR = re.compile(r"\s?(?:or|/)\s?[$€£]?\d", re.IGNORECASE)
_SPACED = re.compile(r"^[-+]?(?:[$€£¥₹]\s?)?\d{1,3}(?: \d{3}){1,4}(?![\d./:])")
_NARROW = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_LATEX = re.compile(r"\\(?![$%,!;: ]|times|cdot)|(?<!10)(?<!10 )\^|(?<!\^)[{_]")


def read_number(span: str, whole: bool = False) -> str | None:
    r"""Read a span as a number; returns plain decimal text such as ``-1234.5``, ``3/4``, ``50%``.

    ``3 + 4 = 7`` gives the number after the last equals sign; a sentence that does not start with a number gives its
    last one. Mathematics that is more than a number (``3\sqrt{2}``) is returned unchanged, for math-verify. A range, a
    time, a sum without its result, or "2 hours and 30 minutes" is no number.

    Args:
        span: A box's content, the text after "the answer is", a line, or a whole text.
        whole: The span must be a number, perhaps with a unit, and nothing more.

    Example:
        >>> read_number("$1,234.50 in total"), read_number("1 1/2"), read_number("1.5 x 10^6"), read_number("10 to 12")
        ('1234.50', '3/2', '1500000', '')
    """
    text = plain(_tidy(span)) if len(span) <= 400 else plain(_tidy(span[-400:]))
    first = _SPACED.sub(lambda match: match[0].replace(" ", ""), without_filler(sentence(without_filler(text))))
    if _LATEX.search(first):
        return first if len(first) <= 200 else None
    _, equals, tail = first.replace("≈", "=").rpartition("=")
    if equals and re.search(r"\d", tail):
        first = tail.strip()
    tokens = [match for match in _TOKEN.finditer(first) if not _in_word(first, match.start())]
    if not whole and REFUSED.match(first):
        return UNDECIDED
    if not tokens:
        return None
    token = tokens[0] if tokens[0].start() == 0 else tokens[-1]
    if whole and (token.start() > 0 or len(first) - token.end() > 20):
        return None
    return _value(first, token, tokens)


def last_number(text: str) -> str | None:
    """The last number of a text. Times, dates and the ends of ranges do not count."""
    text = plain_tail(text)
    tokens = [match for match in _TOKEN.finditer(text) if not match["time"] and not _in_word(text, match.start())]
    return _value(text, tokens[-1], tokens, within=True) if tokens else None


def plain_tail(text: str) -> str:
    """The last 2,000 characters of a text without mark-up."""
    return MARKUP.sub("", _tidy(text[-2000:])).replace("$", "")


def _tidy(text: str) -> str:
    text = _NARROW.sub("", text)
    return text.replace("\\$", "$").replace("{,}", ",").replace("\\!", "").replace("\\,", " ").replace("−", "-")


def _in_word(text: str, start: int) -> bool:
    return start > 0 and (text[start - 1].isalpha() or text[start - 1] == "_")


def _value(text: str, token: re.Match[str], tokens: Sequence[re.Match[str]], within: bool = False) -> str | None:
    rest = text[token.end() :]
    before = text[: token.start()]
    if token["time"] or re.match(r":\d", rest):
        return UNDECIDED
    if any(tail.match(rest) for tail in (_RANGE_TAIL, _OR, _COMPOUND)):
        return UNDECIDED
    if len(tokens) > 1 and re.search(r"\d\s?(?:-|–|—|to|or|and|~)\s?[$€£]?$", before) and token is tokens[-1]:
        return UNDECIDED
    if not within and _OPERATOR_TAIL.match(rest):
        return UNDECIDED
    return _written(token)


def _written(token: re.Match[str]) -> str:
    sign = "-" if "-" in (token["sign"] or "") + (token["sign2"] or "") else ""
    if token["whole"]:
        top = int(token["whole"]) * int(token["bottom"]) + int(token["top"])
        return f"{sign}{top}/{token['bottom']}"
    number = token["number"].replace(",", "")
    shift = int((token["power"] or token["exp"] or "0").replace("−", "-"))
    shift += _SCALES.get((token["scale"] or "").casefold(), 0)
    if shift:
        number = _shifted(number, shift)
    if token["under"]:
        number = f"{number}/{token['under']}"
    return sign + number + ("%" if token["percent"] else "")


def _shifted(number: str, places: int) -> str:
    """A decimal number times a power of ten."""
    whole, _, fraction = number.partition(".")
    if places >= 0:
        fraction = fraction.ljust(places, "0")
        whole, fraction = whole + fraction[:places], fraction[places:]
    else:
        whole = whole.rjust(1 - places, "0")
        whole, fraction = whole[:places], whole[places:] + fraction
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction.strip("0") else "")


_INLINE = re.compile(r"\$\$?([^$]{1,400})\$|\\\(([^()]{1,400}|.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]", re.DOTALL)


def read_maths(span: str) -> str | None:
    """Read a span as mathematics: the text between dollar signs, else its number, else its first, short sentence."""
    text = span[:500].lstrip()
    match = _INLINE.match(text.lstrip("*: "))
    if match is not None:
        return next(group for group in match.groups() if group).strip() or None
    number = read_number(text)
    if number:
        return number
    whole = without_filler(sentence(plain(text)))
    return whole if 0 < len(whole) <= 60 else None
