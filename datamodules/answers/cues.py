"""Statements of an answer in prose: "the answer is", "Answer:", "(C) is the best answer".

All take time linear in the length of the completion: every repetition in the patterns has an upper bound.
"""

import re
from collections.abc import Iterator

from datamodules.answers.normal import NO_NOUN
from datamodules.answers.standing import sentence_end, sentence_start, standing

MOST_SPANS = 20
"""Spans of one place that are tried."""
TAIL = 3000
"""Characters at the end of a completion in which the last number is looked for."""

_GAP = r"[\s*_]{0,4}"
_BRACKET = rf"{_GAP}(?:\([^()\n\"']{{1,60}}\)|\[[^\[\]\n\"']{{1,60}}\]|{{[^{{}}\n\"']{{1,60}}}})"
_IS = (
    rf"(?:{_GAP}(?:\b(?:is|are|was|equals|(?:would|should|must|will|has to)\s(?:(?!not\b)[a-z]{{2,12}}\s)?be"
    r"|(?:turns out|seems|appears) to be|would have been|(?:comes|works) (?:out )?(?:to|as)(?: be)?"
    rf"|ends up (?:being|as|at))\b|=){_GAP}[:：]?|{_GAP}(?:[:：]|->|→|[-–—](?=\s)))"
)
_MORE = (
    r"(?:\s(?:to|for|of|in|that|which|here|we|I|you|from|among|based on|according to)\b[^.:\n]{0,80}?|,[^.,:\n]{1,40},)"
)
_ANSWER = (
    rf"(?<![A-Za-z])(?:answer(?:[ _](?:choice|option|letter))?|ans\.?|final (?:result|value)){_BRACKET}?"
    rf"(?:{_MORE}?{_BRACKET}?{_IS}|['’]s\b|[*_:]{{0,4}}[ ]?\n)"
)
_CHINESE = (
    r"答案(?:选项)?\s?(?:\([^()\n]{1,20}\))?\s?(?:应该|应当|应|就)?(?:是|为|(?:選|选)(?:择|擇)?|[:：])\s?[:：]?"
    r"|(?:答え|正解|解答)(?:は|[:：])\s?|(?:정답|답)(?:은|[:：])\s?"
)
_OTHER_LANGUAGES = (
    r"\b(?:respuesta|resposta|risposta|r[ée]ponse)\b(?:\s(?:final|correct|corret|exact|bonne?)[a-z]{0,3}){0,2}"
    r"(?:\s?:|\s(?:es|est|[éè])\b)(?:\s(?:la|le|a|o|il)\b)?"
    r"|\bAntwort\b(?:\s?:|\s(?:ist|lautet|w[äa]re)\b)(?:\s(?:also|daher|somit)\b)?"
    r"|(?<!\w)ответ(?:\s?[:—–-]|\s(?:равен|будет)(?!\w))"
)
_CHOOSE = (
    r"\b(?:correct|right|best|final|appropriate|likely|suitable|accurate|true)\s(?:option|choice|alternative|one)"
    rf"(?:(?:\shere)?{_BRACKET}?{_IS}|{_MORE}{_IS}(?=[\s*_]{{0,4}}(?:option\s)?\(?(?-i:[A-Z])(?![\w'’-])))"
    r"|\b(?:(?:I|I['’]d|I['’]ll|we)\s(?:would\s|will\s)?(?:choose|select|pick|go\s(?:with|for))|let['’]s\sgo\swith)\b[:]?"
    r"|(?:^|[.!?]\s)(?:choose|select|pick)\s(?=(?:option\s|choice\s)?\(?(?-i:[A-Z])\)?[.!]?\s{0,3}\Z)"
    r"|\b(?:is|be)\s(?:therefore\s|thus\s)?(?=(?:option|choice)\s\(?[A-Z]\b)"
    r"|(?<![不没别勿可])(?:选|選)(?:择|擇)?\s?:?(?=\s?[(\[]?[A-Z](?![A-Za-z]))|正确(?:的)?(?:选项|答案)\s?(?:是|为|:)\s?:?"
    r"|\bfinal\sanswer\s(?=\(?[A-Z]\)?\.?\s{0,3}(?:\n|$))"
    r"|\b(?:correct|final|my\s(?:choice|pick))\s?:\s(?=\(?(?-i:[A-Z])(?![\w'’-]))|\brichtig\s(?:ist|w[äa]re)\s(?=(?-i:[A-Z])(?![\w'’-]))"
)
_IT_IS = r"(?:it|that)(?:['’]s|\s(?:is|must\sbe|should\sbe|has\sto\sbe))\s"
_CONCLUSION = (
    r"(?:(?<=[.!?;,:]\s)|(?<=\n)|\A|\bbut\s)"
    rf"(?:(?:so|thus|therefore|hence|by\selimination|=>|→)[,:]?\s(?:{_IT_IS})?|{_IT_IS}"
    r"|I\s(?:think|guess|believe)\s(?:it(?:['’]s|\sis)\s)?|[A-Za-z][^.:\n]{1,60}\sleaves\s)(?:only\s)?"
    r"(?=(?-i:\(?[A-HJ-Z]\)?)[.!]?\s{0,3}\Z)"
)
"""Words before a name at the very end: "So it's C.", "I think C", "Eliminating A and B leaves C."."""
_ANY = f"{_ANSWER}|{_CHINESE}|{_OTHER_LANGUAGES}"
_CUE = re.compile(_ANY, re.IGNORECASE)
_CHOICE_CUE = re.compile(f"{_ANY}|{_CHOOSE}|{_CONCLUSION}", re.IGNORECASE)
_NUMBER_CUE = re.compile(rf"{_ANY}|^A:", re.IGNORECASE | re.MULTILINE)
_OPTION = r"[*_]{0,2}(?P<name>\([A-Z]\)|(?<![\w'.(])[A-Z](?![\w'.]))[*_]{0,2}"
_SAID = (
    r"[Oo]ption|[Cc]hoice|[Aa]nswer|I\s(?:think|believe|guess)(?:\sthat)?"
    r"|(?:[Aa]mong|[Oo]f|[Ff]rom)\s(?:the|these|all)[^.,\n]{1,30},"
)
"""Words before a letter that show that it is an option's name, and no vitamin."""
_SUBJECT = (
    rf"(?<!\bnor )(?<!\bor )(?<!\band )(?<!\bneither )(?:\b(?P<noun>{_SAID})\s)?"
    rf"{_OPTION}(?:\s\([^()\n]{{1,80}}\))?[*_]{{0,2}}\s(?:is|must be|would be)\s(?:therefore\s|thus\s|clearly\s)?"
)
_IS_ANSWER = re.compile(
    rf"{_SUBJECT}(?:the|my)\s(?:only\s|most\s|single\s)?"
    r"(?:(?:correct|right|best|appropriate|accurate|likely)\s)?(?:answer|option|choice|one)\b"
)
_IS_CORRECT = re.compile(rf"{_SUBJECT}(?:the\s)?(?:most\s)?(?:correct|right|best)\b")
_FITTING = r"(?:(?:fits|matches|makes\ssense)\b|(?:works|remains|applies|is\sleft)(?=\s?(?:here)?[.!]?\s{0,3}\Z))"
_BEST = (
    r"(?:(?:fits|matches)\s(?:[a-z]{1,12}\s){0,4}best\b|(?:seems|appears)\s(?:to\sbe\s)?(?:the\s)?"
    r"(?:(?:most\s)?(?:likely|plausible|probable|appropriate|accurate|correct|suitable|reasonable|consistent)\b"
    r"|best(?=\s(?:option|choice|answer|fit|match|candidate|one)\b|[.!,]|\s{0,3}\Z)))"
)
_FITS = re.compile(
    rf"(?<!\bnot )\b[Oo]nly\s(?:option\s|choice\s)?{_OPTION}\s{_FITTING}"
    r"|(?:^\s{0,9}|[.,;:!?\n]\s{1,9}|\b(?:[Ss]o|[Tt]hus|that|then)\s|(?P<noun>\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s))"
    rf"{_OPTION.replace('<name>', '<other>')}\s"
    rf"(?:{_BEST}|(?(noun)(?:seems|appears)\s(?:to\sbe\s)?(?:the\s)?(?:most|best)\b|(?!)))"
)
"""An option that fits, of which only a last sentence says that it is the answer."""
_FIRST_SIGHT = re.compile(
    r"\b(?:initially|(?:at )?first|but|although|though|however|while|not only|except)\b", re.IGNORECASE
)
_CORRECTED = re.compile(
    r"\b(?:actually|wait|no|sorry|correction|oops|hmm)[,:.!…—-]{0,3}\s(?:(?:no|wait|actually|sorry)[,:.!]?\s|I\smean\s)?"
    rf"{_IT_IS}(?:actually\s)?[*_(]{{0,3}}"
    r"(?P<answer>(?:\\?[$€£])?-?\d[\d,]{0,20}(?:\.\d{1,20})?(?:/\d{1,9})?%?"
    rf"(?:\sdozen|(?:\s{NO_NOUN}[A-Za-z]{{2,15}}){{0,2}})|(?-i:[A-Z]))[*_)]{{0,3}}"
    r"(?=[.!]?\s{0,3}(?:\Z|\n)|[.!]\s|\s(?:because|since)\b)",
    re.IGNORECASE,
)
"""An answer that takes the place of one that was stated before: "Wait, no, it's 18."."""
_VERDICT = re.compile(
    r"^[\s*_(-]{0,9}(?:option\s|choice\s)?\(?(?P<name>[A-Z])\)?[*_]{0,2}(?:[.):]|\s(?=is\b|[–—-]\s))[^\n:–—]{0,80}?"
    r"(?:\bis|[:–—.-]|(?<=[:.)]))[\s*_]{1,4}(?P<word>(?:not\s|in)?correct|right|wrong)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""A line that calls an option correct or wrong."""


def stated(text: str, choice: bool, number: bool) -> Iterator[str]:
    """Text after "the answer is" and similar words, the last statement first, conditions last (see `standing`).

    For a ``choice`` also after "the correct option is" and before "is the answer". For a ``number`` also after ``A:``
    at the start of a line, which for a choice would be an option.
    """
    cue = _CHOICE_CUE if choice else _NUMBER_CUE if number else _CUE
    found = [(match.start(), match.end(), text[match.end() : match.end() + 300]) for match in cue.finditer(text)]
    if choice:
        called = [match for match in _IS_CORRECT.finditer(text) if match["noun"]]
        if len({match["name"].strip("()") for match in called}) > 1:
            called = []  # the text goes through several options, true and false ones
        found += [(match.start(), match.end(), match["name"]) for match in (*called, *_IS_ANSWER.finditer(text))]
        found.sort()
    if found and (correction := _correction(text, found[0][1])):
        found.append(correction)
    weak = []
    for start, end, span in reversed(found[-MOST_SPANS:]):
        meant = standing(text, start, end)
        if meant == "firm":
            yield span
        elif meant == "weak":
            weak.append(span)
    yield from weak
    if choice and (name := _last_fit(text) or _only_right(text)):
        yield name


def _correction(text: str, start: int) -> tuple[int, int, str] | None:
    """The place and text of an answer that takes an earlier one back; no other number or letter comes after it."""
    last = None
    for match in _CORRECTED.finditer(text, start):
        last = match
    is_last = last and not re.search(r"\d|(?<![\w'’])[A-HJ-Z](?![\w'’])", text[last.end() :])
    return (last.start("answer"), last.start("answer"), last["answer"]) if last and is_last else None


def _last_fit(text: str) -> str | None:
    """The option that the last sentence says to fit, if it says so of one, and without a but."""
    last = text.rstrip()[-500:]
    ends = [match.end() for match in re.finditer(r"[.!?]\s|\n", last)]
    last = last[ends[-1] :] if ends else last
    names = {(match["name"] or match["other"]).strip("()") for match in _FITS.finditer(last)}
    return names.pop() if len(names) == 1 and not _FIRST_SIGHT.search(last) else None


def _only_right(text: str) -> str | None:
    """The one option that a line calls correct, if lines call all others wrong."""
    said = {
        match["name"].upper(): match["word"].casefold() in ("correct", "right") for match in _VERDICT.finditer(text)
    }
    right = [name for name, is_right in said.items() if is_right]
    is_each = len(said) > 2 and sorted(said) == [chr(ord("A") + i) for i in range(len(said))]
    return right[0] if len(right) == 1 and is_each else None


def without_hypothetical(text: str) -> str:
    """The end of a text, without statements that are not meant, so that no weaker place reads them."""
    text = text[-TAIL:]
    kept = []
    end = 0
    for match in _CUE.finditer(text):
        if match.start() >= end and standing(text, match.start(), match.end()) == "none":
            kept.append(text[end : sentence_start(text, match.start())])
            end = sentence_end(text, match.end())
    return "".join(kept) + text[end:]
