"""Find the option whose text a span has: the same words, or the same value in another form."""

import re
from collections.abc import Mapping
from functools import lru_cache

from datamodules.answers.plain import quick_verdict
from datamodules.answers.spans import BESIDES, OFFERS, UNDECIDED, plain, sentence, without_filler

REASON = re.compile(r"\b(?:because|since|whereas|unlike)\b", re.IGNORECASE)
"""Words after which other options are only talked about."""
_MEANT_NOT = rf"(?:{BESIDES}|\b(?:while|(?<!well )(?<!such )as)\s)"
_NEW_SENTENCE = re.compile(rf"(?:[.!?](?=\s{{1,9}}[A-Z])|\n)(?!\s{{0,9}}(?i:(?:or|and)\b|[^.\n]{{0,200}}{OFFERS}))")
"""End of a sentence before one that offers no other options."""
_AFTER_TEXT = re.compile(
    r"$|[.;:!?](?!\d)|,(?!\d)|/(?![\d(])| (?:because|since|as|which|due|given|based|but|rather than|instead of)\b|\("
)
_ARTICLE = re.compile(r"^(?:the|an?) ")
_WORD = re.compile(r"\w+")
_SPECIES = re.compile(r"([a-z])[a-z]{2,} (?=[a-z]{4})")


def read_text(text: str, options: Mapping[str, str], whole: bool) -> str | None:
    """The option whose text the span is or starts with; the longest match, None if two options have the same text.

    Args:
        text: A span without mark-up.
        options: Texts of the options by name.
        whole: The span must be the text and nothing more. If not, words such as "therefore" may stand before it.
    """
    found = _by_text(text, options, whole)
    if found is None and not whole and (bare := without_filler(text)) != text:
        found = _by_text(bare, options, whole)
    return found


def _by_text(text: str, options: Mapping[str, str], whole: bool) -> str | None:
    said, line = _key(text), "" if whole else _key(_own_line(text, options))
    keys = {name: _key(option) for name, option in options.items()}
    bare = {name: _ARTICLE.sub("", key) for name, key in keys.items()}
    if len(set(bare.values())) == len(set(keys.values())):  # "the" and "a" tell no options apart
        keys, said, line = bare, _ARTICLE.sub("", said), _ARTICLE.sub("", line)
    found = [
        (len(key), name)
        for name, key in keys.items()
        if len(key) > 0
        and not (len(key) == 1 and key.upper() in options)  # "A" is a name before it is a text
        and (key in (said, line) or (not whole and said.startswith(key) and _AFTER_TEXT.match(said[len(key) :])))
    ]
    longest = max((length for length, _ in found), default=0)
    best = [name for length, name in found if length == longest]
    if len(best) != 1:
        return None
    others = "|".join(re.escape(key) for name, key in keys.items() if key and key != keys[best[0]])
    rest = without_own(*(re.sub(_ARTICLE.pattern, "", part, flags=re.I) for part in (text, options[best[0]])))
    dotted = any(_NEW_SENTENCE.search(plain(option)) for option in options.values())
    listed = said[longest:] if dotted else _key(_NEW_SENTENCE.split(rest, maxsplit=1)[0])
    listed = REASON.split(sentence(listed))[0]
    listed = re.split(rf"{_MEANT_NOT}(?:the )?(?:{others})(?![a-z0-9])", listed)[0] if others else listed
    if others and re.search(rf"(?<![a-z0-9])(?:or|and|as well as) (?:the )?(?:{others})(?![a-z0-9])", listed):
        return UNDECIDED
    return (
        UNDECIDED if others and re.match(rf"[,;/&](?:the )?(?:{others})(?:$|[.,;/&]|(?:or|and) )", listed) else best[0]
    )


def _own_line(text: str, options: Mapping[str, str]) -> str:
    """The first line; empty if it goes on with a lower-case word, or if another line is an option, as in a list."""
    line, _, rest = text.partition("\n")
    others = {_key(without_filler(other)) for other in rest.split("\n")} - {""}
    return "" if rest.lstrip()[:1].islower() or others.intersection(map(_key, options.values())) else line


def read_value(text: str, options: Mapping[str, str]) -> str | None:
    """The only option that has the value of the text in another form, such as 1000 for 1,000 or 1/2 for 0.5."""
    said = text.strip(" .,;:\\")
    if not any(map(str.isdigit, said)) or re.match(r"\d{1,2}[.)]\s", said):
        return None
    found = [name for name, option in options.items() if not option.isalpha() and quick_verdict(option, said)]
    return found[0] if len(found) == 1 else None


def read_species(text: str, options: Mapping[str, str]) -> str | None:
    """The only option that a text such as ``B. pertussis`` abbreviates."""
    if not re.match(r"[A-Z]\.\s?[a-z]{4}", text):
        return None
    said, short = _key(text), {name: _SPECIES.sub(r"\1.", _key(option), count=1) for name, option in options.items()}
    found = [name for name, option in short.items() if option and said.startswith(option)]
    return found[0] if len(found) == 1 else None


def without_own(rest: str, option: str) -> str:
    """What follows an option's name, without the option's text if that comes first."""
    words = r"\W{0,9}".join(map(re.escape, _WORD.findall(plain(option))))
    own = re.match(rf"\W{{0,9}}{words}(?!\w)", rest, re.IGNORECASE) if words else None
    return rest[own.end() :] if own else rest


def same_start(text: str, option: str) -> bool:
    """Whether the first sentence of a text starts with the option's text, or is the start of it."""
    first, second = _key(sentence(text)), _key(option)
    return bool(first) and bool(second) and (first.startswith(second) or second.startswith(first))


@lru_cache(maxsize=1024)
def _key(text: str) -> str:
    text = re.sub(r"\\(?:d|t)frac", r"\\frac", plain(text)).replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\s+", " ", text.casefold().replace("−", "-").replace("–", "-")).strip()
    text = re.sub(r"(?<=[^a-z0-9]) | (?=[^a-z0-9])", "", text)
    return text.rstrip(".,;:").strip()
