"""Rewrite answers that math-verify would misread into forms that it reads as they are meant."""

import re

_PRIMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z])\s?('{1,4})(?![A-Za-z])")
_STARRED = re.compile(r"(?<=[A-Za-z])\s?\^\s?\{?\s?(?:\*|\\ast(?![a-z]))\s?\}?")
_ASSIGNMENT = re.compile(r"\s*(\\?[A-Za-z]{1,10}(?:_\w|_\{\w{1,9}\})?)\s?=\s?([^=<>,;]{1,80})")
_SEPARATOR = re.compile(r",?\s*(?:\\text\s?\{\s?and\s?\}|\\quad|\band\b|[,;])\s*")
_BRACKETED = re.compile(r"(?:\\left\s?)?(?:[(\[]|\\\{).*(?:[)\]]|\\\})", re.DOTALL)
_FUNCTION = re.compile(
    r"(?<![A-Za-z\\])(pi|theta|alpha|beta|gamma|lambda|phi|omega|(?:(?:arc)?(?:sin|cos|tan)|cot|sec|csc|(?:sin|cos|tan)h|ln"
    r"|log|exp)(?=[_^(]|\s[\d\\a-z]))(?![A-Za-z])"
)
_PLAIN_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt\s?(?:\(([^()]{1,40})\)|(\d{1,20}|[a-z])(?![A-Za-z]))")
_SIGNED = re.compile(r"\s*(?:[A-Za-z]\s?=\s?)?(?P<whole>[^,;=]*?\\[pm][pm](?![a-z])[^,;=]*)")
_ORDERED = re.compile(r"[<>]|\\[lg](?:e|eq|t|eqslant)(?![a-z])")
_INTERVAL = re.compile(r"\s*(?:\\left\s?)?(?:\[|\(\s?-\s?\\infty).*|.*(?:\]|\\infty\s?(?:\\right\s?)?\))\s*", re.DOTALL)


def in_readable_form(gold: str, predicted: str) -> tuple[str, str]:
    r"""Two cleaned answers with subscripts for primes and stars, and a tuple for named values beside bare ones.

    An inequality beside the gold answer's interval becomes the first of the two: math-verify takes only that order.

    Example:
        >>> in_readable_form("x=1, y=2", "2,1"), in_readable_form("y' = 3y", "3y")
        (('(1, 2)', '(2,1)'), ('y_{p} = 3y', '3y'))
    """
    gold, predicted = (
        _PRIMED.sub(
            lambda match: f"{match[1]}_{{{'p' * len(match[2])}}}", _STARRED.sub("_{s}", _both_signs(_latex(text)))
        )
        for text in (gold, predicted)
    )
    first, second = _named(gold), _named(predicted)
    if first and not second and "=" not in predicted:
        return first, _as_tuple(predicted)
    if second and not first and "=" not in gold:
        return _as_tuple(gold), second
    if _ORDERED.search(predicted) and not _ORDERED.search(gold) and _INTERVAL.fullmatch(gold):
        return predicted, gold
    return gold, predicted


def _latex(text: str) -> str:
    r"""Functions without a backslash as commands: ``ln(2)`` as ``\ln(2)``."""
    text = _PLAIN_ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    return _FUNCTION.sub(r"\\\1 ", text)


def _both_signs(text: str) -> str:
    r"""``x = 1 \pm i`` as ``1 + i, 1 - i``."""
    match = _SIGNED.fullmatch(text) if "pm" in text else None
    if match is None:
        return text
    upper = match["whole"].replace("\\pm", "+").replace("\\mp", "-")
    return f"{upper}, " + match["whole"].replace("\\pm", "-").replace("\\mp", "+")


def _named(text: str) -> str | None:
    """The values of ``x = 1, y = 2`` as a tuple, in the order of their names; None if they are not so named."""
    if text.count("=") < 2:
        return None
    parts = [_ASSIGNMENT.fullmatch(part) for part in _SEPARATOR.split(text)]
    values = {match[1].removeprefix("\\"): match[2].strip() for match in parts if match}
    if len(values) < 2 or len(values) < len(parts):
        return None
    return f"({', '.join(value for _, value in sorted(values.items()))})"


def _as_tuple(text: str) -> str:
    """A bare list as a tuple; a tuple or set stays what it is."""
    return text if _BRACKETED.fullmatch(text) or len(_SEPARATOR.split(text)) < 2 else f"({text})"
