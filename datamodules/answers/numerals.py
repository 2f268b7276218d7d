"""Rewrite numbers in words and in other scripts as plain digits: "twenty-one", "a dozen", "3½", full-width "１２".

All take time linear in the length of the text: every repetition in the patterns has an upper bound.
"""

import re
import unicodedata

_TABLE: dict[int, int | str] = {
    wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)
}  # full-width forms of the ASCII characters
_TABLE |= {ord(sign): "-" for sign in "−‐‑﹣"} | {
    0x3000: " ",
    0x3001: ",",
    0x3002: "\n",
    0xFF0E: ".",
    0x3010: "[",
    0x3011: "]",
    0x2044: "/",
    0x066B: ".",
    0x066C: ",",
}
_OTHER_DIGIT = re.compile(r"[^\W\D0-9]")
_SIGN = re.compile(r"(?<![\w)%])(?<![\w)%] )[–—]\s?(?=\.?\d|\\frac)")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]{1,9}")
_STARS = re.compile(r"(?<=\d)(?:\*\*|\s\*\*\s)(-?\d{1,9})(?![\d*])")
_VULGAR = re.compile(r"(?:(\d)\s?)?([¼-¾⅐-⅞])")


def plain_forms(text: str) -> str:
    r"""The text with full-width forms, other scripts' digits and minus signs as ASCII; a Chinese full stop ends a line.

    No character moves.

    Example:
        >>> plain_forms("答案是：Ｂ。"), plain_forms("−５")
        ('答案是:B\n', '-5')
    """
    if text.isascii():
        return text
    text = text.translate(_TABLE)
    text = _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), text)
    return _SIGN.sub(lambda match: "-".rjust(len(match[0])), text)


def spelled_out_powers(text: str) -> str:
    """``10⁻³`` as ``10^{-3}``, and ``2**5`` as ``2^{5}``."""
    if "**" in text:
        text = _STARS.sub(r"^{\1}", text)
    if text.isascii():
        return text
    return _SUPERSCRIPT.sub(lambda match: f"^{{{match[0].translate(_RAISED)}}}", text)


def spelled_out_fractions(text: str) -> str:
    """``3½`` as ``3 1/2``."""
    if text.isascii():
        return text
    return _VULGAR.sub(
        lambda match: (match[1] + " " if match[1] else "") + unicodedata.normalize("NFKC", match[2]).replace("⁄", "/"),
        text,
    )


_CODES = {"USD": "$", "EUR": "€", "GBP": "£", "INR": "₹", "RS": "₹", "JPY": "¥", "CNY": "¥", "RMB": "¥"}
_CURRENCY = re.compile(
    rf"(?<![A-Za-z$])(?:({'|'.join(_CODES)})\b\.?\s?(?:\\?[$€£¥₹]\s?)?|(?:US|A|AU|C|CA|HK|NZ|NT|S|R)(?=\\?\$))(?=\\?\$?\d)",
    re.IGNORECASE,
)


def money_as_signs(text: str) -> str:
    """``USD 18`` and ``US$18`` as ``$18``."""
    if "$" not in text and not any(code in text.upper() for code in _CODES):
        return text
    return _CURRENCY.sub(lambda match: _CODES[match[1].upper()] if match[1] else "", text)


_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90
}  # fmt: skip
_VALUES = {word: value for value, word in enumerate(_SMALL)} | _TENS | {"fourty": 40}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12} | {
    "dozen": 12, "lakh": 10**5, "crore": 10**7
}  # fmt: skip
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7} | {
    "eighth": 8, "ninth": 9, "tenth": 10, "hundredth": 100, "thousandth": 1000
}  # fmt: skip
_UNIT_WORD = "|".join(sorted({*_VALUES, *_SCALES}, key=len, reverse=True))
_SCALE_WORD = "|".join(_SCALES)
_PART_WORD = "|".join(_PARTS)
_NEXT = (
    rf"(?:(?:\s|-|(?:(?<=thousand)|(?<=illion)),\s)(?:{_UNIT_WORD})"
    rf"|\sand\s(?:{_UNIT_WORD})(?!(?:\s|-)(?:{_PART_WORD})s?\b))"
)
_WORDS = re.compile(
    rf"\b(?:half\san?\s(?P<half>{_SCALE_WORD})"
    rf"|(?P<a>an?\s)?(?P<number>(?:{_UNIT_WORD})s?(?:{_NEXT}){{0,12}})"
    rf"(?P<point>\spoint(?:\s(?:{'|'.join(_SMALL[:10])})){{1,9}}(?:\s(?:{_SCALE_WORD}))?)?"
    rf"(?:(?:\s|-)(?P<part>{_PART_WORD})s?)?"
    rf"(?:\sand\s(?P<parts>an?|{'|'.join(_SMALL[1:10])})(?:\s|-)(?P<more>{_PART_WORD})s?(?:\s(?P<times>{_SCALE_WORD}))?)?"
    rf"|(?:an?\s)?(?P<alone>half|third|quarter))\b(?!-)",
    re.IGNORECASE,
)
_ONE_OF = re.compile(r"\s(?:of|that|which|who|can|may|should|could|would|such|more|another|is|has)\b", re.IGNORECASE)


def words_as_digits(text: str, start_only: bool = False) -> str:
    """The text with its number words as digits: "two hundred and five", "a dozen", "three quarters", "two and a half".

    "one" alone is a number only at the start of the text, and not before words such as "of" or "that".

    Example:
        >>> words_as_digits("twenty-one apples"), words_as_digits("two thirds"), words_as_digits("no one knows")
        ('21 apples', '2/3', 'no one knows')
    """
    if start_only:
        match = _WORDS.match(text)
        return text if match is None else _digits(match) + text[match.end() :]
    return _WORDS.sub(_digits, text)


_HAN_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000}
_HAN_GROUPS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_HAN = r"[零〇一二两兩三四五六七八九十百千万萬亿億]{1,20}"
_HAN_NUMBER = re.compile(
    rf"(?:一共|总共|總共|共有|共|大约|大約|约|約|等于|等於|有){{0,2}}(?P<minus>负|負)?(?:(?P<percent>百分之)|(?P<under>{_HAN})分之)?(?P<number>(?![百千万萬亿億]){_HAN})(?![共般起定些样樣直切旦旁致])"
    r"(?:[点點](?P<decimals>[零〇一二三四五六七八九]{1,20}))?"
)


def han_as_digits(text: str) -> str:
    """The text with a Chinese number at its start as digits: 三百二十五, 一万二千, 三点五, 四分之三, 百分之五十.

    Elsewhere the same signs are parts of words.

    Example:
        >>> han_as_digits("一百零五个苹果"), han_as_digits("负三点五"), han_as_digits("四分之三")
        ('105个苹果', '-3.5', '3/4')
    """
    match = None if text.isascii() else _HAN_NUMBER.match(text)
    if match is None:
        return text
    value, under = _han_value(match["number"]), _han_value(match["under"] or "一")
    if value is None or under is None:
        return text
    decimals = "".join(str(_HAN_DIGITS[sign]) for sign in match["decimals"] or "")
    written = f"{'-' if match['minus'] else ''}{value}{'.' if decimals else ''}{decimals}"
    written += "%" if match["percent"] else f"/{under}" if match["under"] else ""
    return written + text[match.end() :]


def _han_value(signs: str) -> int | None:
    """The value of Chinese number signs, with scales or digit by digit; None if they are no number."""
    if not set(signs) & (_HAN_SCALES.keys() | _HAN_GROUPS.keys()):
        return int("".join(str(_HAN_DIGITS[sign]) for sign in signs))
    total = group = digit = 0
    scale = 10**12
    last = 1  # 一万二: the last digit counts the scale below
    for sign in signs:
        if sign in _HAN_DIGITS:
            if digit:
                return None
            digit = _HAN_DIGITS[sign]
            last = 1 if digit == 0 else last
        elif sign in _HAN_SCALES:
            last = _HAN_SCALES[sign]
            group, digit = group + (digit or 1) * last, 0
        else:
            last = _HAN_GROUPS[sign]
            if last > scale:
                return None
            scale, total, group, digit = last, total + max(group + digit, 1) * last, 0, 0
    short = last // 10 if last > 10 and digit and signs[-2] not in "零〇" else 1
    return total + group + digit * short


def _digits(match: re.Match[str]) -> str:
    if match["half"]:
        return str(_SCALES[match["half"].casefold()] // 2)
    if match["alone"]:
        return f"1/{_PARTS[match['alone'].casefold()]}" if match.start() == 0 else match[0]
    words = re.findall(r"[a-z]+", match["number"].casefold())
    words = [word for word in words if word != "and"]
    if words == ["one"] and not (match["point"] or match["part"] or match["more"]):
        rest = match.string[match.end() : match.end() + 12]
        if match.start() > 0 or _ONE_OF.match(rest):
            return match[0]
    value = _worked_out([word if word in _VALUES or word in _SCALES else word.removesuffix("s") for word in words])
    if value is None or (match["a"] and words[0] not in _SCALES):
        return match[0]
    if match["point"]:
        decimals = match["point"].casefold().split()[1:]
        return f"{value}." + "".join(str(_VALUES.get(word, f" {word}")) for word in decimals)
    if match["part"]:
        return f"{value}/{_PARTS[match['part'].casefold()]}"
    return f"{value} {_fraction(match)}" if match["more"] else str(value)


def _fraction(match: re.Match[str]) -> str:
    """What follows the whole number in "one and two thirds", "two and a half million"."""
    top = _VALUES.get(match["parts"].casefold(), 1)
    return f"{top}/{_PARTS[match['more'].casefold()]}" + (f" {match['times']}" if match["times"] else "")


def _worked_out(words: list[str]) -> int | None:
    """The value of number words such as two, hundred, five; None if they are several numbers ("two three")."""
    total = group = 0
    last = 10**15
    for word in words:
        if word in _VALUES:
            value = _VALUES[word]
            if group % 100 and not (group % 100 >= 20 and group % 10 == 0 and 0 < value < 10):
                return None
            if group and value == 0:
                return None
            group += value
        elif word in ("hundred", "dozen"):
            group = max(group, 1) * _SCALES[word]
        else:
            if _SCALES[word] >= last:
                return None
            last = _SCALES[word]
            total, group = total + max(group, 1) * last, 0
    return total + group
