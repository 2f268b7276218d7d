"""Read a span of text as the name of an option, or as a label."""

import re
from collections.abc import Mapping, Sequence

from datamodules.answers.option_texts import REASON, read_species, read_text, read_value, same_start, without_own
from datamodules.answers.spans import BESIDES, OFFERS, REFUSED, UNDECIDED, plain, sentence, without_filler

_GO_ON = re.compile(
    r"[^\S\n]{0,4}\n|\s{0,4}(?:$|[✓✔✅☑👍🎉]|[.,;:)\]!?/&(|}<–—-](?!\w)|[;:|(,](?=\w)|[.)](?=[A-Z])|(?=[\u3040-\u9fff\uac00-\ud7af])"
    r"|(?:because|since|as|which|due|given|based|but|in this case|meaning|while)\b"
    r"|(?:rather than|instead of|(?:and )?not|over|as opposed to)\s(?:option\s)?\(?(?-i:[A-Z]\b))",
    re.IGNORECASE,
)
_LEAD = (
    r"(?:the )?(?:(?:correct|right|final) )?(?:answer|ans|option|opci[oó]n|opção|opzione|choice|letter)\b"
    r"[.:]?\s?(?:is:? )?"
)
"""Words before a name."""
_IS_CORRECT = re.compile(
    r"\s(?:is|must be|would be)\s(?:the\s)?(?:most\s)?(?:correct|right|best)(?:\s(?:answer|option|choice|one))?[.!]?\Z"
)
_NOT_BUT = re.compile(r"\Anot\s(?!only\b)[^.\n]{1,40}?\bbut\s(?:rather\s)?", re.IGNORECASE)
_SAYS_MORE = r"(?![^.\n]{0,60}\s(?:is|are|was|has|does|cannot|would)\b(?!\s(?:also|both|equally|correct|right)\b))"
"""The text goes on to say something of a further option, other than that it is right."""
_NEXT = r"\s{0,3}(?:options?\s|choices?\s)?\(?([NAMES])\)?"
_MORE = (
    rf"\s{{0,3}}(?:,\s?and|,\s?or|,|/|&|and/or|and|or|as well as|\b(?:[yeou]|und|oder|et|ou|и|или)\b){_NEXT}"
    rf"{_SAYS_MORE}"
    r"(?=\s{0,3}$|\s{0,3}[.,;:)!?/\n]|\s(?:and|or|is|are|both|could|can|may|might|would|depending)\b)",
    rf"\s{{0,3}};{_NEXT}(?=\s{{0,3}}(?:$|[.;/\n]))",
    rf"\s?(?:或者?|和|及|与|與|、|と|や|または|또는|와|과|나|및){_NEXT}(?![A-Za-z])",
)
"""A second name right after the first."""
_ALSO = (
    r"\b([NAMES])\)?\s(?:is|can|could|may|might|would)\s(?:also|equally)\s(?:be\s)?(?:an?\s)?"
    r"(?:correct|right|valid|possible|plausible|acceptable|answer|fit|work)\b"
)
"""A second option in the same sentence that is right, too."""


def read_choice(
    span: str, names: str, options: Mapping[str, str], whole: bool = False, alone: bool = True
) -> str | None:
    """The name of the option that a span names, or whose text it has; ``names`` has a character per option.

    Args:
        span: A box's content, the text after "the answer is", a line, ...
        names: One character per option.
        options: Texts of the options, if known. An option's text such as ``E. coli`` is not taken for the name E, and
            a name before the text of another option decides nothing.
        whole: The span must be the answer and nothing more.
        alone: Accept a name with text after it. False if several lines discuss one option each.
    """
    text = plain(span)
    by_text = read_text(text, options, whole)
    if by_text is None and whole and alone and (correct := _IS_CORRECT.search(text)):
        text = without_filler(text[: correct.start()])
        by_text = read_text(text, options, whole)
    if by_text is not None:
        return by_text
    if not whole:
        text = without_filler(_NOT_BUT.sub("", without_filler(text), count=1))
    if re.fullmatch(rf"[{re.escape(names)}]{{2,10}}", text):
        return UNDECIDED if len(set(text)) > 1 else None
    match = re.match(
        rf"(?:{_LEAD}){{0,2}}(?:([(\[<])\s?(?:{_LEAD})?)?([{re.escape(names)}])(?(1)\s?[)\]>])", text, re.IGNORECASE
    )
    name = _named(text, match, names, options, whole, alone) if match else None
    if name is not None:
        return name
    name = read_species(text, options) or read_value(text if whole else sentence(text), options)
    return UNDECIDED if name is None and not match and not whole and REFUSED.match(text) else name


def _named(
    text: str, match: re.Match[str], names: str, options: Mapping[str, str], whole: bool, alone: bool
) -> str | None:
    """The name at the start of the text, unless the text after it shows that it is another word or another option."""
    name, rest = match[2].upper(), text[match.end() :]
    own = options.get(name, "")
    after = without_own(rest, own)
    if whole and _REJECTED.match(after):
        return None
    fits = after != rest and _GO_ON.match(after) is not None
    end = rest.strip(" .)!:;,")
    is_marked = rest[:1] in (".", ")", ":") or (match[1] and match[0][:1] in "([") or _BECAUSE.match(rest)
    if whole and end and not (alone and (is_marked or not without_own(rest, own).strip(" .)!:;,"))):
        return None
    after = after if fits else rest
    if _second_name(after, names) not in (None, name):
        return UNDECIDED
    if not fits and not _is_name(match, rest, end, whole):
        return None
    others = {other: option for other, option in options.items() if other != name}
    if rest.startswith(".") and not match[1] and not (own and same_start(rest[1:], own)):
        if (species := read_species(text[match.start(2) :], others)) is not None:
            return species
        if _SPECIES.match(rest):
            return None
    more, discussed = _others(without_own(rest, own), names)
    if more - {name}:
        return UNDECIDED
    if whole and discussed - {name}:
        return None
    of_name = _MARKS.sub("", rest)
    if end and own and not (whole and _BECAUSE.match(rest)) and not same_start(of_name, own):
        said = sentence(of_name)
        return None if whole else UNDECIDED if read_text(said, others, whole=True) is not None else name
    return name


def _is_name(match: re.Match[str], rest: str, end: str, whole: bool) -> bool:
    """Whether a letter is a name and no word or part of one, judged by the text after it."""
    if match[1]:
        return re.match(r"(?![\u3040-\u9fff\uac00-\ud7af])\w", rest) is None
    if match[2].islower() and end and (whole or not rest.startswith((")", ":"))):
        return False  # "a", "i": more often words
    return _GO_ON.match(rest) is not None  # not "B cells", "C-reactive protein", "A good sign"


def _second_name(rest: str, names: str) -> str | None:
    """A name right after the first: "B or C"."""
    found = (re.match(more.replace("NAMES", re.escape(names)), rest) for more in _MORE)
    return next((match[1] for match in found if match), None)


def _others(rest: str, names: str) -> tuple[set[str], set[str]]:
    """Names that the text after a name says as well, and those in brackets, as if each option were discussed."""
    kinds = re.escape(names)
    # The stop after a name ends no sentence: "B. elm, C. ash, or D. fir".
    marked = REASON.split(re.sub(rf"(?<![\w.])([{kinds}])\.(?=\s)", r"\1)", rest.lstrip(".:)")), maxsplit=1)[0]
    listed = re.sub(_OTHERS.replace("NAMES", kinds), "", sentence(marked))
    patterns = (_LISTED, _ALSO) if _OWN_SENTENCE.match(rest) else (_LISTED, _LAST, _ALSO)
    found = {name for more in patterns for name in re.findall(more.replace("NAMES", kinds), listed)}
    discussed = re.findall(rf"(?<![\w.])\(?([{kinds}])\)\s", marked)
    return found, {*discussed, *re.findall(rf"[.!?;]\s\(?([{kinds}])[).]\s", rest)}


_OR = (
    rf"\b(?:or|and(?=.{{1,12}}[:)]{_SAYS_MORE}|\W.{{1,9}}$))\s(?:maybe\s|perhaps\s|possibly\s|even\s)?"
    r"(?:option\s|choice\s)?\(?([NAMES])"
)
_LISTED = rf"{_OR}(?:[:)]|\s\()"
"""A further name of a list, such as the last of "B. elm, C. ash, or D. fir"."""
_LAST = rf"{_OR}\.?$"
"""The same at the end, without a mark: "B. elm, C. ash, or D"."""
_NAME = r"(?:option\s|choice\s)?\(?[NAMES](?!\w)\)?(?:\s\([^()\n]{1,60}\))?"
_OTHERS = rf"{BESIDES}{_NAME}(?:(?:,\s{_NAME}){{1,9}}(?:,?\s(?:or|and|nor)\s{_NAME})?|\s(?:or|and|nor)\s{_NAME})?"
"""Names that are not meant: "rather than A or C"."""
_OWN_SENTENCE = re.compile(
    rf"\)?[.!]\s+(?![^.\n]{{0,200}}{OFFERS})"
    r"(?=[A-Z][\w'’-]*(?:,?\s(?!(?:or|and)\b)[\w'’-]+){3})"
    r"(?:(?:It|This|That|These|They|There|We|I|He|She)\b|(?:[\w'’-]+\s){1,6}(?:is|are|was|were|has|have|had|does|do)\b)"
)
"""The text after a name is a sentence of its own, and none that offers other names."""
_REJECTED = re.compile(
    r"\W{0,3}(?:is|was|would be)\s(?:clearly\s)?(?:incorrect|wrong|false|not\s(?:the\s)?(?:correct|right|best))\b"
)
"""Text after an option that says that it is not the answer."""
_MARKS = re.compile(r"\A(?:[.):\]/\s–—]|-(?=\s))+")
"""Signs between a name and the option's text."""
_BECAUSE = re.compile(r"[\s,;–—-]{1,3}(?:because|since)\b")
_SPECIES = re.compile(
    r"\. ?(?:coli|difficile|diff|pylori|influenzae|baumannii|cereus|anthracis|albicans|fragilis|perfringens|botulinum"
    r"|tetani|burgdorferi|histolytica|lamblia|faecalis|faecium|jejuni)\b"
)
"""Rest of a species such as ``E. coli``, which is not option E."""


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


def one_option_line(text: str, names: str) -> bool:
    """Whether at most one option stands at the start of a line; if several do, they are discussed, not chosen."""
    starts = re.findall(
        rf"^[\s*_(-]{{0,9}}(?:option |choice |statement |\()?([{re.escape(names)}])(?:[).:]| is\b)", text, re.M | re.I
    )
    return len({name.upper() for name in starts}) <= 1


def is_set_apart(text: str, options: Mapping[str, str]) -> bool:
    """Whether the first line is an option and nothing more, with an empty line after it, and no later line is one."""
    first, *rest = text.strip().splitlines()
    return (
        bool(rest)
        and not rest[0].strip()
        and _is_option(first, options)
        and not any(_is_option(line, options) for line in rest)
    )


def _is_option(line: str, options: Mapping[str, str]) -> bool:
    """Whether a line has an option's name and text, and nothing more."""
    text = re.sub(r"^[\s*_(-]{0,9}[A-Za-z][.):]", "", plain(line))
    return bool(text.strip()) and any(own and not without_own(text, own).strip(" .") for own in options.values())
