"""Make benign near-twins of malicious requests by replacing words (paper: "a few words"; the list is ours)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import InputError
from datamodules.mllr.records import Replacement, Twins
from datamodules.records.kinds import Question

SHIPPED = Path(__file__).with_name("twin_words.txt")
_ARTICLE = re.compile(r"\b(a)n?(\s+)\Z", re.IGNORECASE)
_AT_START = re.compile(r"(?:\A|[.!?:\n\"'“(])\s*\Z")
"""Before a capital A that is an article, and not the name of a plan or a vitamin."""
_VOWEL_SOUND = re.compile(
    r"(?:hour|honest|honou?r|heir)|[fhlmnrsx](?![a-z])|8|1[18](?!\d)"
    r"|(?!eu|ew|uni(?!n|m[ap]|de)|us[aeiu]|ut[eio]|ur[aeio]|uk|ubi|u(?![a-z])|(?:one|once)\b)[aeiou]",
    re.IGNORECASE,
)
"""The beginning of a word that has ``an`` before it."""


@dataclass(frozen=True)
class Untwinned:
    """A malicious request in which too few words are on the list."""

    id: str
    malicious: str
    reason: str


class TwinMaker:
    """Replaces words of malicious requests by harmless ones.

    >>> maker = TwinMaker({"bomb": "cake", "a bomb": "an apple cake"})
    >>> maker.twin(Question("1", "Build a bomb at home")).benign
    'Build an apple cake at home'

    Longer entries go first. A capital at the beginning is kept, and ``a`` or ``an`` directly before a replacement is
    adapted, except before capitals such as ``LGBTQ``; a replacement's own article is left out there.
    """

    def __init__(self, words: Mapping[str, str], min_replaced: int = 1) -> None:
        """Take a list of words or phrases and their replacements, and the least number of replacements in a twin.

        InputError if the list is empty or replaces a phrase by itself.
        """
        if not words:
            raise InputError("make-twins: the list of words is empty")
        if idle := [old for old, new in words.items() if old.lower() == new.lower()]:
            raise InputError(f"make-twins: the list replaces '{idle[0]}' by itself")
        self.words = {old.lower(): new for old, new in words.items()}
        self.min_replaced = min_replaced
        longest_first = sorted(self.words, key=lambda old: (-len(old), old))
        self._pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, longest_first)) + r")(?!\w)", re.IGNORECASE)

    def twin(self, request: Question) -> Twins | Untwinned:
        """The benign twin of a request with its replacements, or the reason why there is none."""
        if request.earlier:
            return Untwinned(request.id, request.question, "it comes after other turns, which twins do not have")
        replaced: list[Replacement] = []
        parts: list[str] = []
        end = 0
        for match in self._pattern.finditer(request.question):
            before, new = _adapted(
                request.question[end : match.start()], self.words[match[0].lower()], match[0].isupper()
            )
            new = new[0].upper() + new[1:] if match[0][0].isupper() else new
            replaced.append(Replacement(match[0], new))
            parts += (before, new)
            end = match.end()
        benign = "".join(parts) + request.question[end:]
        if len(replaced) < self.min_replaced:
            reason = "it has no word of the list" if not replaced else f"only {len(replaced)} words to replace"
            return Untwinned(request.id, request.question, reason)
        return Twins(request.id, request.question, benign, tuple(replaced))


def _adapted(before: str, new: str, shouted: bool) -> tuple[str, str]:
    """What stands before a replacement, and the replacement, with one article between them that fits.

    ``shouted``: the replaced word is in capitals, and so may be its article; other capitals are names, as of a plan A.
    """
    article = _ARTICLE.search(before)
    if article is None or (article[1] == "A" and not (shouted or _AT_START.search(before[: article.start()]))):
        return before, new
    new = re.sub(r"\Aan? ", "", new)
    if re.split(r"\W", new, maxsplit=1)[0].isupper():
        return before, new
    n = "n" if _VOWEL_SOUND.match(new) else ""
    return f"{before[: article.start()]}{article[1]}{n}{article[2]}", new


def read_words(path: Path) -> dict[str, str]:
    """Read ``old = new`` lines, skipping empty ones and ``#``; raises ``InputError`` for any other line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no list of words can be read: {error}") from error
    words: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        old, equals, new = (part.strip() for part in line.partition("="))
        if not (old and equals and new):
            raise InputError(f"{path}:{number}: a line reads 'old = new', not {line.strip()!r}")
        if old.lower() in words:
            raise InputError(f"{path}:{number}: '{old}' stands in an earlier line")
        words[old.lower()] = new
    return words


def make_twins(requests: Sequence[Question], maker: TwinMaker) -> tuple[list[Twins], list[Untwinned]]:
    """Twins of all requests, and those without one."""
    made = [maker.twin(request) for request in requests]
    return [m for m in made if isinstance(m, Twins)], [m for m in made if isinstance(m, Untwinned)]
