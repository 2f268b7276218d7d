"""Read a span of text as a number, or as mathematics."""

import re
from collections.abc import Sequence
from decimal import Decimal

from datamodules.answers.numerals import (
    han_as_digits,
    plain_forms,
    spelled_out_fractions,
    spelled_out_powers,
    words_as_digits,
)
from datamodules.answers.spans import MARKUP, REFUSED, UNDECIDED, plain, sentence, without_filler
from datamodules.answers.units import compound

_COMMA_DECIMAL = (
    r"(?:[1-9]\d{0,2}(?:\.\d{3}){2,4},\d{1,9}(?!\d)"
    r"|(?:(?<![\d,(\[{])(?<![(\[{]\s)|(?<=[(\[{])(?!INSIDE)|(?<=[(\[{]\s)(?!INSIDE)|(?<=boxed\{))"
    r"(?:[1-9]\d{0,2}\.\d{3},\d{1,9}|\d{1,9},\d{1,2}(?!\s?[)\]]))(?!\.?\d|,\s?\d|,\s*(?:\.\.|…|\\[cld]*dots)))"
).replace("INSIDE", r"[\d.,]+\s?(?:\\right\s?)?\\?[)\]}]")
"""A decimal comma; "(3,5)", "(2.125,3)" and "0.125,3" are pairs."""
_DIGITS = (
    rf"{_COMMA_DECIMAL}|(?:\d{{1,3}}(?:,\d{{3}}){{1,8}}(?!\d)|\d{{1,2}}(?:,\d{{2}}){{1,5}},\d{{3}}(?!\d)|\d{{1,1000}})"
    r"(?:\.\d{1,1000})?|\.\d{1,1000}"
)
_TOKEN = re.compile(
    rf"(?P<time>\b\d{{1,2}}:\d{{2}}\b|\b\d{{1,4}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}\b)"
    rf"|(?P<sign>(?<![\w)])[-−+]\s?|(?<![\d)%]\s)\b(?:minus|negative)\s)?(?P<currency>(?:US)?[$€£¥₹]\s?)?(?P<sign2>[-−])?(?:"
    rf"(?P<whole>\d{{1,9}})\s(?P<top>\d{{1,9}})/(?P<bottom>\d{{1,9}})(?![\d/])"
    rf"|(?P<number>{_DIGITS})(?:\s?/\s?(?P<under>\d{{1,100}})(?![\d/]))?)"
    r"(?:\s?(?:[x×*]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\s?(?P<power>[-−]?\d{1,3})\}?|[eE](?P<exp>[-+]?\d{1,3})\b)?"
    r"(?P<percent>\s?\\?%|\s(?:percent|per cent)\b)?"
    r"(?:\s(?P<scale>hundred|thousand|million|billion|trillion|dozen)s?\b|(?P<kilo>k)(?![\w/^]))?",
    re.IGNORECASE,
)
_DECIMAL_COMMA = re.compile(r"\d{1,9},\d{1,2}|[1-9]\d{0,2}(?:\.\d{3}){1,4},\d{1,9}")
_AND = re.compile(r",?\s(?:and|or|und|oder|y|o|et|ou|e|i|и|或|和)\s?[$€£]?\d", re.IGNORECASE)
_SEVERAL = re.compile(
    r"\b(?:solutions|roots|values|coordinates?|pairs?|points?|pages|numbers|options|choices|answers|sets?|lists?)\b[^.\d]{0,20}$",
    re.IGNORECASE,
)
"""Words before numbers of which there are several: "pages 3,4"."""
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_RANGE_TAIL = re.compile(r"\s?(?:-|–|—|to|~)\s?[$€£]?\d", re.IGNORECASE)
_OPERATOR_TAIL = re.compile(
    r"\s?(?:[+*×÷^]|\\times|\\cdot|\\div)\s?\S|\s?x\s?\d|\s(?:plus|minus|times)\s|(?:[xyzn]|\\sqrt|\\pi|π|√)(?![A-Za-z])",
    re.IGNORECASE,
)
_NEXT_PART = re.compile(
    r"\s?(?P<unit>[A-Za-z]{1,10})\.?,?\s?(?:and\s|&\s)?[$€£]?\d[\d.,]{0,9}(?:\s?(?P<next>[A-Za-z]{1,10}))?"
)
_PART_BEFORE = re.compile(
    r"(?:(?P<currency>[$€£])\s?\d[\d.,]{0,12}|(?<![A-Za-z])(?:\d[\d.,]{0,12}\s?|(?:an?|one|two|three|four|five|six|seven|eight|nine|ten)\s)(?P<unit>[A-Za-z]{1,10})\.?)"
    r"(?:,?\sand|,|\s&)?\s?$",
    re.IGNORECASE,
)
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
_NARROW = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_TEN_POWER = re.compile("(?<=10)[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]{1,4}")
_FEET = re.compile(r"(?<![\d.])(\d{1,3})\s?['′’]\s?(\d{1,2})\s?(?:[\"″”]|'')")
_AND_PART = re.compile(r"(?<![\d./])(\d{1,9})\sand\s(\d{1,9}/\d{1,9})(?![\d/])")
_AND_HALF = re.compile(r"(?<![\d./])(\d{1,9})\sand\s(?:a|one)\s(half|third|quarter)\b", re.IGNORECASE)
_TEN_ALONE = re.compile(
    r"(?<![\w.,^*×])(?<![\d×x*]\s)(?<!times)(?<!times\s)(?<!cdot)(?<!cdot\s)10\s?\^(?=\s?\{?\s?-?\d)"
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
    text = plain(_tidy(span)) if len(span) <= 400 else plain(_tidy(span[-400:]))
    first = _SPACED.sub(lambda match: match[0].replace(" ", ""), without_filler(sentence(without_filler(text))))
    first = re.sub(r"^([-+]?)(?=10\s?\^\s?\{?\s?-?\d)", r"\g<1>1 x ", first)
    if _LATEX.search(first):
        return first if len(first) <= 200 else None
    first = _with_words(first)
    _, equals, tail = first.replace("≈", "=").rpartition("=")
    if equals and re.search(r"\d", tail):
        first = tail.strip()
    tokens = [match for match in _TOKEN.finditer(first) if not _in_word(first, match.start())]
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
    match = _TOKEN.fullmatch(text)
    return _written(match) if match and not match["time"] else None


def last_number(text: str) -> str | None:
    """The last number of a text. Times, dates and the ends of ranges do not count."""
    text = plain_tail(text)
    tokens = [match for match in _TOKEN.finditer(text) if not match["time"] and not _in_word(text, match.start())]
    if not tokens:
        text = words_as_digits(text.strip())
        tokens = [match for match in _TOKEN.finditer(text) if not match["time"] and not _in_word(text, match.start())]
    token = _last_meant(text, tokens) if tokens else None
    return _value(text, token, tokens, within=True) if token else None


def _last_meant(text: str, tokens: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """The last number that the text does not reject, as in "3 apples, not 5"."""
    return next((t for t in reversed(tokens) if not _REJECTED.search(text[max(0, t.start() - 40) : t.start()])), None)


def plain_tail(text: str) -> str:
    """The last 2,000 characters of a text without mark-up."""
    return _TEN_ALONE.sub("1 x 10^", MARKUP.sub("", _tidy(text[-2000:])).replace("$", ""))


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
    text = _TEN_POWER.sub(lambda match: spelled_out_powers(match[0]), text)
    text = _FEET.sub(r"\1 ft \2 in", text)
    text = _AND_HALF.sub(lambda match: f"{match[1]} {words_as_digits(match[2])}", text)
    text = _AND_PART.sub(r"\1 \2", text)
    return text.replace("\\$", "$").replace("{,}", ",").replace("\\!", "").replace("\\,", " ").replace("−", "-")


def _in_word(text: str, start: int) -> bool:
    before = text[start - 1 : start]
    return before == "_" or (before.isalpha() and before < "\u2e80")  # Chinese has no spaces between words


def _value(text: str, token: re.Match[str], tokens: Sequence[re.Match[str]], within: bool = False) -> str | None:
    rest = text[token.end() :]
    before = text[: token.start()]
    if token["time"] or re.match(r":\d", rest):
        return UNDECIDED
    if _DECIMAL_COMMA.fullmatch(token["number"] or "") and (_AND.match(rest) or _SEVERAL.search(before[-40:])):
        return UNDECIDED
    if _RANGE_TAIL.match(rest) or _OR.match(rest) or _is_part(before, token, rest):
        return UNDECIDED
    if len(tokens) > 1 and re.search(r"\d\s?(?:-|–|—|to|or|and|~)\s?[$€£]?$", before) and token is tokens[-1]:
        return UNDECIDED
    if not within and _OPERATOR_TAIL.match(rest):
        return UNDECIDED
    return _written(token)


def _is_part(before: str, token: re.Match[str], rest: str) -> bool:
    """Whether a number is part of a quantity in two units, such as 4 hours and 30 minutes, or $5 and 20 cents."""
    after = _NEXT_PART.match(rest)
    if after and token["currency"] is None and compound(after["unit"], after["next"] or ""):
        return True
    if re.match(r"\s?[A-Za-z]{1,10}\sand\s(?:a|one)\s(?:half|third|quarter)\b", rest, re.IGNORECASE):
        return True
    if re.match(r"\s(?:and\s|&\s)\d{1,2}\s?(?:cents?|pence|¢)(?![A-Za-z])", rest, re.IGNORECASE):
        return True
    unit = re.match(r"\s?([A-Za-z¢]{1,10})", rest)
    larger = _PART_BEFORE.search(before[-40:])
    return bool(unit and larger and compound(larger["currency"] or larger["unit"], unit[1]))


def _written(token: re.Match[str]) -> str:
    minus = ((token["sign"] or "") + (token["sign2"] or "")).casefold().strip()
    sign = "-" if minus in ("-", "minus", "negative") else ""
    if token["whole"]:
        top = int(token["whole"]) * int(token["bottom"]) + int(token["top"])
        return f"{sign}{top}/{token['bottom']}"
    number = token["number"]
    if _DECIMAL_COMMA.fullmatch(number):
        number = number.replace(".", "").replace(",", ".")
    number = number.replace(",", "")
    shift = int((token["power"] or token["exp"] or "0").replace("−", "-"))
    scale = (token["scale"] or "").casefold()
    shift += 3 if token["kilo"] else _SCALES.get(scale, 0)
    if scale == "dozen":
        number = f"{(Decimal(number) * 12).normalize():f}"
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
