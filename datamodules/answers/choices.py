"""Read a span of text as the name of an option, or as a label."""

import re
from collections.abc import Mapping, Sequence

from datamodules.answers.spans import REFUSED, UNDECIDED, plain, sentence, without_filler

_GO_ON = re.compile(
    r"[^\S\n]{0,4}\n|\s{0,4}(?:$|[.,;:)\]!?/&(|}<–—-](?!\w)|[;:|(,](?=\w)|[.)](?=[A-Z])|(?=[\u3040-\u9fff\uac00-\ud7af])"
    r"|(?:because|since|as|which|due|given|based|but|in this case|meaning|while)\b)",
    re.IGNORECASE,
)
_MORE = r"\s{{0,3}}(?:,\s?and|,\s?or|,|/|&|and/or|and|or)\s{{0,3}}(?:options?\s|choices?\s)?\(?([{names}])\)?"
_MORE_END = r"(?=\s{0,3}$|\s{0,3}[.,;:)!?/\n]|\s(?:and|or|is|are|both|could|can|may|would|depending)\b)"


def read_choice(
    span: str, names: str, options: Mapping[str, str], whole: bool = False, alone: bool = True
) -> str | None:
    """The name of the option that a span names, or whose text it has; ``names`` has a character per option.

    Args:
        span: A box's content, the text after "the answer is", a line, ...
        names: One character per option.
        options: Texts of the options, if known. An option's text such as ``E. coli`` is not taken for the name E.
        whole: The span must be the answer and nothing more.
        alone: Accept a name with text after it. False if several lines discuss one option each.
    """
    text = plain(span)
    if not whole:
        text = without_filler(text)
    if re.fullmatch(rf"[{re.escape(names)}]{{2,10}}", text):
        return UNDECIDED if len(set(text)) > 1 else None
    by_text = _by_text(text, options, whole)
    if by_text is not None:
        return by_text
    kinds = re.escape(names)
    match = re.match(
        rf"(?:answer )?(?:option |choice |letter |answer:? )?(?:([(\[])\s?)?([{kinds}])(?(1)\s?[)\]])",
        text,
        re.IGNORECASE,
    )
    if match is not None:
        return _named(text, match, names, options, whole, alone)
    return UNDECIDED if not whole and REFUSED.match(text) else None


def _named(
    text: str, match: re.Match[str], names: str, options: Mapping[str, str], whole: bool, alone: bool
) -> str | None:
    """The name at the start of the text, unless the text after it shows that it is another word."""
    name, rest = match[2], text[match.end() :]
    end = rest.strip(" .)!:;,")
    if whole and end and not (alone and (rest[:1] in (".", ")", ":") or (match[1] and match[0][:1] in "(["))):
        return None
    if whole and end and options.get(name.upper()) and not _same_start(rest.lstrip(".):"), options[name.upper()]):
        return None
    if name.islower() and not match[1] and end and (whole or not rest.startswith((")", ":"))):
        return None  # "a", "i": more often words
    if not match[1] and not _GO_ON.match(rest):
        return None  # "B cells", "C-reactive protein", "A good sign"
    if match[1] and re.match(r"\w", rest):
        return None
    name = name.upper()
    kinds = re.escape(names)
    more = re.match(_MORE.format(names=kinds) + _MORE_END, rest)
    more = more or _other_name(rest, kinds)
    if more and more[1] != name:
        return UNDECIDED
    if rest.startswith(".") and not match[1] and _is_species(name, rest, options):
        return None
    return name


_REASON = re.compile(r"\b(?:because|since|whereas|unlike)\b", re.IGNORECASE)


def _other_name(rest: str, kinds: str) -> re.Match[str] | None:
    """A second name in the same sentence, as in "B. elm, C. ash, or D. fir"; the stop after a name ends no sentence."""
    marked = re.sub(rf"(?<![\w.])([{kinds}])\.(?=\s)", r"\1)", rest.lstrip(".:)"))
    listed = _REASON.split(sentence(marked), maxsplit=1)[0]
    says_more = r"(?![^.\n]{0,60}\s(?:is|was|has|does|cannot|would)\b)"
    return re.search(
        rf"\b(?:or|and(?=.{{1,12}}[:)]{says_more}|\W.{{1,9}}$))\s(?:maybe\s|perhaps\s|possibly\s|even\s)?"
        rf"(?:option\s|choice\s)?\(?([{kinds}])(?:[:)]|\s\(|\.?$)",
        listed,
    )


_SPECIES = re.compile(
    r"\. ?(?:coli|difficile|diff|pylori|influenzae|baumannii|cereus|anthracis|albicans|fragilis|perfringens|botulinum"
    r"|tetani|burgdorferi|histolytica|lamblia|faecalis|faecium|jejuni)\b"
)


def _is_species(name: str, rest: str, options: Mapping[str, str]) -> bool:
    """Whether the text is a species such as ``E. coli`` and not option E."""
    if _SPECIES.match(rest) is None:
        return False
    return name not in options or not _same_start(rest[1:], options[name])


def _same_start(text: str, option: str) -> bool:
    first, second = _key(sentence(text)), _key(option)
    return bool(first) and bool(second) and (first.startswith(second) or second.startswith(first))


def _key(text: str) -> str:
    text = re.sub(r"\\(?:d|t)frac", r"\\frac", plain(text)).replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\s+", " ", text.casefold().replace("−", "-").replace("–", "-")).strip()
    text = re.sub(r"(?<=[^a-z0-9]) | (?=[^a-z0-9])", "", text)
    return text.rstrip(".,;:").strip()


_AFTER_TEXT = re.compile(r"$|[.;:!?](?!\d)|,(?!\d)| (?:because|since|as|which|due|given|based|but)\b|\(")


def _by_text(text: str, options: Mapping[str, str], whole: bool) -> str | None:
    """The option whose text the span is or starts with; the longest match, None if two options have the same text."""
    said = _key(text)
    if not any(_key(option).startswith(("the ", "a ", "an ")) for option in options.values()):
        said = re.sub(r"^(?:the|an?) ", "", said)
    keys = {name: _key(option) for name, option in options.items()}
    found = [
        (len(key), name)
        for name, key in keys.items()
        if len(key) > 0
        and not (len(key) == 1 and key.upper() in options)  # "A" is a name before it is a text
        and (said == key or (not whole and said.startswith(key) and _AFTER_TEXT.match(said[len(key) :])))
    ]
    longest = max((length for length, _ in found), default=0)
    best = [name for length, name in found if length == longest]
    if len(best) != 1:
        return None
    others = "|".join(re.escape(key) for name, key in keys.items() if key and key != keys[best[0]])
    listed = sentence(said[longest:])
    if others and re.search(rf"(?<![a-z0-9])(?:or|and) (?:the )?(?:{others})(?![a-z0-9])", _REASON.split(listed)[0]):
        return UNDECIDED
    return best[0]


def read_label(span: str, labels: Sequence[str], whole: bool = False, first: bool = False) -> str | None:
    """The label that a span starts with, as spelled in ``labels``. "No" before a noun is no label: "no effect".

    If ``whole``, the span must be the label and nothing more, or, as the ``first`` line of the text, the label and a
    mark that sets it off: "Yes, it is."
    """
    text = plain(span)
    if not whole:
        text = without_filler(text)
    alternatives = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    match = re.match(rf"(?:{alternatives})(?!\w|-\w)", text, re.IGNORECASE)
    if match is None:
        return UNDECIDED if not whole and REFUSED.match(text) else None
    rest = text[match.end() :]
    other = re.match(
        rf"[\s,./!–—-]{{0,4}}(?:(?:or|and|but|and/or)\s)?({alternatives})(?![\w-]|\s(?:doubt|question|problem))",
        rest,
        re.I,
    )
    if other is not None and other[1].casefold() != match[0].casefold():
        return UNDECIDED
    if whole and rest.strip(" .!)") and not (first and re.match(r"\s?(?:[,;:!–—…(]|\.(?!\s?\d)|--|-\s)", rest)):
        return None
    if not re.match(r"\s{0,3}(?:$|[.,;:!?()\n–—…-]|(?:because|since|as|it|this|the|there|they|he|she|that)\b)", rest):
        return None
    return next(label for label in labels if label.casefold() == match[0].casefold())
