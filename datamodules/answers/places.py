"""Places of a completion that may hold the answer. Each yields spans of text, the last span of the completion first.

All take time linear in the length of the completion: every repetition in the patterns has an upper bound.
"""

import re
from collections.abc import Callable, Iterator, Sequence

_BOX_TOKENS = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)"
    r"|\\{1,2}(?:boxed|fbox)\s{0,9}(?P<bare>-?(?:\d[\d,]{0,60}(?:\.\d{1,60})?|[A-Za-z](?![A-Za-z])))|\\.|[{}]",
    re.DOTALL,
)
UNBRACED_END = re.compile(r"\\(?:boxed|fbox)\s{0,9}[^\s{}$]{0,80}\Z")
"""A box without braces at the very end, which an unfinished completion may have cut."""


def extract_boxed(text: str) -> str | None:
    r"""The content of the last balanced ``\boxed{}`` or ``\fbox{}`` that is not empty; None if there is none.

    Of nested boxes the inner one counts. Escaped braces are text. A box without braces holds one number or letter:
    ``\boxed 7``. Linear in the length of ``text``.

    Example:
        >>> extract_boxed(r"First \boxed{4}, then \boxed{\frac{1}{2}} and \boxed{")
        '\\frac{1}{2}'
    """
    open_braces: list[tuple[bool, int]] = []  # (is a box, where its content starts)
    last = (-1, -1)
    for token in _BOX_TOKENS.finditer(text):
        if token["box"] or token[0] == "{":
            open_braces.append((token["box"] is not None, token.end()))
        elif token["bare"]:
            last = (token.start("bare"), token.end("bare"))
        elif token[0] == "}" and open_braces:
            is_box, start = open_braces.pop()
            if is_box and start > last[0] and text[start : token.start()].strip():
                last = (start, token.start())
    return text[last[0] : last[1]].strip() if last[0] >= 0 else None


def _boxed(text: str) -> Iterator[str]:
    if (box := extract_boxed(text)) is not None:
        yield box


_NAME = (
    r"(?:(?:final|correct|best|right|predicted|chosen|selected|my|your|model|the)[_ -]?)?"
    r"(?:answer|ans|choice|option|prediction|result|solution|response|output|label|letter|selected|selection|chosen|pick"
    r"|decision|verdict|final)"
    r"(?:[_ -]?(?:choice|option|letter|label|key|value|text|idx))?"
)
"""Names of the JSON keys and XML tags that hold an answer: ``answer_choice``, ``FinalAnswer``, ``selected_option``."""
_SUFFIX = re.compile(r"(?<=[a-z])[_ -]?(?:choice|option|letter|key|value|idx)$")
_LOOSE = re.compile(r"(?:solution|response|output|label)$|text$", re.IGNORECASE)
"""Names that hold the answer only if no other does: beside an answer they hold its text or how it was found."""
_TAGGED = re.compile(
    r"""\b(?:final_?)?answer\s?\(\s?(?P<quote>["'])(?P<call>[^"'\n]{1,300})(?P=quote)\s?\)"""
    rf"""|<(?P<open>{_NAME})>\s{{0,9}}(?P<tag>[^<]{{1,300}})</(?P=open)>"""
    rf"""|(?P<mark>["'])(?P<key>{_NAME})(?P=mark)\s{{0,9}}:\s{{0,9}}(?:"(?P<double>(?:[^"\\\n]|\\[^\n]){{1,300}})"|'(?P<single>[^'\n]{{1,300}})'"""
    r"""|\[\s{0,9}"(?P<only>[^"\n]{1,300})"\s{0,9}\]"""
    r"""|(?!(?:null|none|true|false|nan)\b)(?P<bare>[-+]?[\w./]{1,40}(?:[-+]\d{1,4})?%?)(?=\s{0,40}(?:[,}]|\n)))"""
    r"""|\[\[(?P<brackets>[^\[\]\n]{1,60})\]\]""",
    re.IGNORECASE,
)
_ANSWER_GROUPS = ("call", "tag", "double", "single", "only", "bare", "brackets")
_HASHES = re.compile(r"####(?!#)\s{0,9}([^\n#]{1,300})")
_JOINT = re.compile(r"(?:[\s,;/&|]|\bor\b|\band\b|\bAction:|\bAnswer:){1,12}", re.IGNORECASE)


def _tagged(text: str) -> Iterator[str]:
    """Tagged answers, those of loose names last; ``Answer("A") or Answer("B")`` is one span, "A or B"."""
    firm: list[re.Match[str]] = []
    loose: list[re.Match[str]] = []
    for match in _TAGGED.finditer(text):
        (loose if _LOOSE.search(_key(match)) else firm).append(match)
    yield from _joined(text, firm)
    yield from _joined(text, loose)


def _key(match: re.Match[str]) -> str:
    """The name of a JSON key or tag in small letters; empty for a call or brackets."""
    return (match["key"] or match["open"] or "").casefold()


def _joined(text: str, matches: Sequence[re.Match[str]]) -> Iterator[str]:
    """The answers of matches, the last first; answers with nothing but "or" and the like between them are one.

    ``answer`` and ``answer_idx`` are two names of one decision, so their values stay apart.
    """
    found: list[str] = []
    last, end, key = "", -1, ""
    for match in matches:
        answer = next(match[name] for name in _ANSWER_GROUPS if match[name])
        if match["double"]:
            answer = answer.replace('\\"', '"').replace("\\\\", "\\")  # JSON's own escapes; LaTeX keeps its backslashes
        before, key = key, _key(match)
        one = before != key and _SUFFIX.sub("", before) == _SUFFIX.sub("", key)
        if not found or one or len(found[-1]) >= 300 or not _JOINT.fullmatch(text[end : match.start()][:40]):
            found.append(answer)
        elif answer != last:
            found[-1] += f" or {answer}"
        last, end = answer, match.end()
    return reversed(found)


def _hashes(text: str) -> Iterator[str]:
    return reversed(_HASHES.findall(text))


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
