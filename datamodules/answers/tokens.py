"""Numbers as they stand in a text, with sign, currency, fraction, power of ten, percent sign and scale."""

import re
from decimal import Decimal
from fractions import Fraction

SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "dozen": 0, "lakh": 5, "crore": 7}
_SHORT = {"k": 3, "bn": 9, "百": 2, "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8}

_COMMA_DECIMAL = (
    r"(?:[1-9]\d{0,2}(?:\.\d{3}){2,4},\d{1,9}(?!\d)"
    r"|(?:(?<![\d,(\[{])(?<![(\[{]\s)|(?<=[(\[{])(?!INSIDE)|(?<=[(\[{]\s)(?!INSIDE)|(?<=boxed\{))"
    r"(?:[1-9]\d{0,2}\.\d{3},\d{1,9}|\d{1,9},\d{1,2}(?!\s?[)\]]))(?!\.?\d|,\s?\d|,\s*(?:\.\.|…|\\[cld]*dots)))"
).replace("INSIDE", r"[\d.,]+\s?(?:\\right\s?)?\\?[)\]}]")
"""A decimal comma; "(3,5)", "(2.125,3)" and "0.125,3" are pairs."""
_DIGITS = (
    rf"{_COMMA_DECIMAL}|[1-9]\d{{0,2}}(?:\.\d{{3}}){{2,8}}(?![\d.,]\d|\d)|(?:\d{{1,3}}(?:,\d{{3}}){{1,8}}(?!\d)|\d{{1,2}}(?:,\d{{2}}){{1,5}},\d{{3}}(?!\d)|\d{{1,1000}})"
    r"(?:\.\d{1,1000})?|\.\d{1,1000}"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
"""Of an address such as ``192.168.0.1``, which is no number."""
TOKEN = re.compile(
    rf"(?P<time>\b(?:{_OCTET}\.){{3}}{_OCTET}(?![\d.]\d|\d)|\b\d{{1,2}}:\d{{2}}\b|\b\d{{1,4}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}\b)"
    rf"|(?P<sign>(?:(?<![\w)])|(?<=[\u3040-\u9fff]))[-−+]|(?<![\d)%]\s)(?:(?<!\w)[-−+]|\b(?:minus|negative))\s)?"
    rf"(?:(?P<currency>(?:US)?[$€£¥₹]\s?)(?P<sign2>[-−])?)?(?:"
    rf"(?P<whole>\d{{1,9}})\s(?P<top>\d{{1,9}})/(?P<bottom>[1-9]\d{{0,8}})(?![\d/])"
    rf"|(?P<number>{_DIGITS})(?:\s?/\s?(?P<under>\d{{1,100}})(?![\d/]))?)"
    r"(?:\s?(?:[x×*·⋅]|\\times|\\cdot)\s?10\s?(?:\^|\*\*)\s?\{?\s?(?P<power>[-−]?\d{1,3})\}?|[eE](?P<exp>[-+]?\d{1,3})\b)?"
    r"(?P<percent>\s?\\?%|\s(?:percent|per cent)\b)?"
    rf"(?:\s(?P<scale>{'|'.join(SCALES)})s?\b|(?P<short>k|\s?bn)(?![\w/^])|(?P<han>[百千]?[万萬亿億])(?!\d))?",
    re.IGNORECASE,
)
DECIMAL_COMMA = re.compile(r"\d{1,9},\d{1,2}|[1-9]\d{0,2}(?:\.\d{3}){1,4},\d{1,9}")


def written(token: re.Match[str]) -> str:
    """A token in plain decimal text such as ``-1234.5``, ``3/4``, ``50%``; its scale is worked out."""
    minus = ((token["sign"] or "") + (token["sign2"] or "")).casefold().strip()
    sign = "-" if minus in ("-", "minus", "negative") else ""
    scale = (token["scale"] or "").casefold()
    shift = int((token["power"] or token["exp"] or "0").replace("−", "-")) + SCALES.get(scale, 0)
    shift += sum(_SHORT[part] for part in ((token["short"] or "").strip().casefold(), *(token["han"] or "")) if part)
    times = 12 if scale == "dozen" else 1
    percent = "%" if token["percent"] else ""
    if token["whole"]:
        top = int(token["whole"]) * int(token["bottom"]) + int(token["top"])
        return f"{sign}{top * times * Fraction(10) ** shift / int(token['bottom'])}{percent}"
    number = token["number"]
    if DECIMAL_COMMA.fullmatch(number):
        number = number.replace(".", "").replace(",", ".")
    number = number.replace(",", "")
    if number.count(".") > 1:  # points between thousands
        number = number.replace(".", "")
    if times > 1:
        number = f"{(Decimal(number) * times).normalize():f}"
    if shift:
        number = _shifted(number, shift)
    if token["under"]:
        number = f"{number}/{token['under']}"
    return sign + number + percent


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
