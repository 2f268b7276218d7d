"""Recognise answers that say nothing: loops, word salad and random tokens. Deterministic, without a model (ours).

A judge may take such an answer for compliance or for a refusal. Each check looks for what sound text does not have:

- loop: a block of words over and over, back to back or in most of the text, be it with a counter;
- word salad: function words in an order that English does not allow, such as "the of" or "to was", close together;
- random tokens: hardly any function word and hardly any word twice, but neither the punctuation of a list.

Word salad and random words are recognised in English only; answers in other languages pass. ``docs/judges.md`` has
false alarms on real answers and hits on constructed ones.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from datamodules.answers.loops import LOOP_PIECES, longest_loop, pieces_of

Incoherence = Literal["", "loop", "word salad", "random tokens"]

SHORT_LOOP_WORDS = 16
"""A loop of fewer pieces than `has_loop` asks for must have this many and fill half of the answer."""
COUNTED_WORDS = 4
"""Words that a block with a counter has at least; rows of tables have fewer."""
_NUMBER = re.compile(r"[0-9]+")
_has_number = re.compile(r"[0-9]").search
_WINDOW = 6
REPEATED_SHARE = 0.7
"""Share of windows of `_WINDOW` words that occurred before, from which on a text is a loop ..."""
REPEATED_WORDS = 60
"""... if it has this many words."""
SALAD_SCORE = 5.0
"""Log-likelihood ratio of salad against text, summed over the worst stretch, from which on an answer is a salad."""
_BROKEN, _SOUND = math.log(0.22 / 0.02), math.log(0.78 / 0.98)
"""Log-likelihood ratios of a pair that is broken or sound: about 22 % of the pairs in shuffled text and under 2 % in
sound text are broken."""
RANDOM_WORDS = 20
"""Words that an answer needs to be taken for random tokens."""


def incoherence(text: str) -> Incoherence:
    """What makes an answer incoherent; empty if it is coherent. Linear in the length of the text.

    Example:
        >>> incoherence("The key is in the lock. " * 8), incoherence("Turn the key, and push the door open.")
        ('loop', '')
    """
    words = text.lower().split()
    pairs = set(pairwise(words))
    # Cheap conditions come first; most answers meet none of them.
    if _may_loop(words, pairs) and (_is_loop(text) or _is_repeated(words)):
        return "loop"
    if _has_number(text) and _counts_on(text):
        return "loop"
    if _may_be_salad(text, words, pairs) and _salad_score(_tokens(text)) >= SALAD_SCORE:
        return "word salad"
    return "random tokens" if _is_random(text, words) else ""


def _may_loop(words: Sequence[str], pairs: set[tuple[str, str]]) -> bool:
    """Whether a window of words occurs three times, or a word has no end."""
    if len(words) - len(pairs) > (5 if len(words) < REPEATED_WORDS else 11):
        windows = [*zip(*(words[start:] for start in range(_WINDOW)), strict=False)]
        if len(windows) - len(set(windows)) >= 5 and max(Counter(windows).values()) > 2:
            return True
    return max(map(len, words), default=0) > LOOP_PIECES


def _is_loop(text: str) -> bool:
    """Whether a block that recurs back to back is long, or fills half of the text and is made of words."""
    pieces = pieces_of(text)
    start, filled, period = longest_loop(pieces)
    if filled >= LOOP_PIECES:
        return True
    words = sum(piece[0].isalpha() for piece in pieces[start : start + period])
    return filled >= max(SHORT_LOOP_WORDS, len(pieces) / 2) and 2 * words >= period


def _counts_on(text: str) -> bool:
    """Whether a block of words recurs back to back, the same but for one number, which is one more in each turn."""
    counted = _NUMBER.sub("0", text)
    words = counted.lower().split()
    if not _may_loop(words, {*pairwise(words)}) or not _is_loop(counted):
        return False
    pieces = pieces_of(counted)
    start, filled, period = longest_loop(pieces)
    block = pieces[start : start + period]
    if block.count("0") != 1 or sum(piece[0].isalpha() for piece in block) < COUNTED_WORDS:
        return False
    first = pieces[:start].count("0")
    turns = [int(number) for number in _NUMBER.findall(text)[first : first + filled // period]]
    return all(after == before + 1 for before, after in pairwise(turns))


def _is_repeated(words: Sequence[str]) -> bool:
    windows = [*zip(*(words[start:] for start in range(_WINDOW)), strict=False)]
    return len(words) >= REPEATED_WORDS and 1 - len(set(windows)) / len(windows) >= REPEATED_SHARE


_ARTICLES = "the a an my your our their its every"
_PREPOSITIONS = "of to in for with on at from by into about than"
_FINITE = "is are was were am has had do does did"
_MODALS = "will would could should may might must"
_SUBJECTS = "he she we they"
_ENDS = ". ; ! ?"
_NEVER_AFTER: dict[str, frozenset[str]] = {}
"""Function word -> function words and signs that hardly ever follow it in English."""
for _words, _followers in (
    (_ARTICLES, f"{_ARTICLES} {_PREPOSITIONS} {_FINITE} {_SUBJECTS} be been have would could should and or but if"),
    (_ARTICLES, "because that which when it you them him me"),
    ("the an my your our their its every", f"{_ENDS} ,"),
    ("of", f"{_FINITE} {_MODALS} {_SUBJECTS} {_ENDS} of to in for with on at from by into be and or but because ,"),
    ("with from at by into", f"{_FINITE} {_MODALS} {_SUBJECTS} of with from by into am and or but because . ;"),
    ("and or", f"{_ENDS} and of"),
    ("but if because", "of and or . !"),
    (_MODALS, f"{_FINITE} of to with from into about than been am and"),
    ("is are was were", f"{_MODALS} is are was were am be have had do does did"),
    (_SUBJECTS, f"{_ARTICLES} {_SUBJECTS} of to for with at from by into than about it you me him them . ;"),
    ("to", f"{_FINITE} {_MODALS} {_SUBJECTS} to of and or but if because . ;"),
    ("very", "of to in is are was were and or the a an . ;"),
    ("can", "to from with into is are was were has had am been will would should"),
    ("not", "of is are was were am has had does did will would should could might must and"),
    ("be been", f"{_SUBJECTS} is are was were am be have has had do does did will would can could should"),
    ("has have had", "is are was were am will would can could should might must"),
    ("do does did", "of is are was were am be been has had will would can could should"),
    ("it", "of every"),
    ("you", "is was am has does of"),
    ("this", "the a an my your our their its are were am have"),
    ("these those", "is was am has does the a an my your our their its this"),
    ("as", "and but were am had . ; !"),
    ("than", "of and or but . ;"),
    ("there", "the a an of my your our their"),
    ("he she", "are am were have do"),
    ("they we", "is am has does was"),
):
    for _word in _words.split():
        _NEVER_AFTER[_word] = _NEVER_AFTER.get(_word, frozenset()) | frozenset(_followers.split())
# As letters that name things, "a" and "an" of sound texts stand before these.
_NEVER_AFTER["a"] -= frozenset(f"{_FINITE} in and or to of".split())
_BROKEN_PAIRS = frozenset((first, second) for first, never in _NEVER_AFTER.items() for second in never)
_BROKEN_ENDS = frozenset(f"{first}{sign}" for first, sign in _BROKEN_PAIRS if sign in {*_ENDS, ","})
"""A word with the sign that it is written together with."""
_MORE_WORDS = """
that his on i one had what all when said use each which how if up other out many then them these so some her make like
him time look two more go see no could my who now did get come made part me over such because only also any should just
most being while where
"""
_FUNCTION_WORDS = frozenset([*_NEVER_AFTER, *_MORE_WORDS.split()])

_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_CODE_SIGN = re.compile(r"[{}=<>|\\_;\[\]]|::|\(\)|://|www\.")
_CODE_HEAD = re.compile(r"[ \t]*(?:def|class|import|from|return|for|if|while|elif|else|#|//)\b.*:$")
_CAPITALS = re.compile(r"\b[A-Z]+\b")
_SMALL_AFTER_END = re.compile(r"(?<=[a-z]{4}[.!?]) (?=[a-z])")
_GOES_ON = re.compile(r"[.!?] [a-z]")
_END = re.compile(r"[.!?](?=\s|\Z)")
_CAPITAL = re.compile(r"\b[A-Z]")
_BREAK = "\x00"
"""Stands where a sentence goes on with a small letter, which counts as a broken pair."""
_TOKEN = re.compile(r"\n|\x00|[^\W\d_]+(?:'[a-z]+)?|\d|\.{2,}|[.!?](?=\s)|[^\s\w.!?]")
_VOWEL = re.compile(r"(?:[aio](?!ne\b|nce\b)|e(?!u))\w")
_CONSONANT = re.compile(r"[b-df-gj-np-tv-z][a-z]")


def _tokens(text: str) -> list[str]:
    """Words, digits and signs of the prose in a text. Words in capitals (names, the "A." of a list) become ``@``."""
    text = text.replace("’", "'").replace(_BREAK, " ")
    if "```" in text:
        text = _CODE.sub("\n", text)
    if _CODE_SIGN.search(text):
        text = "\n".join("" if _is_code(line) else line for line in text.split("\n"))
    if 2 * len(_CAPITAL.findall(text)) >= len(_END.findall(text)):  # else sentences of this text begin small
        text = _SMALL_AFTER_END.sub(f" {_BREAK} ", text)
    return _TOKEN.findall(_CAPITALS.sub("@", text).lower() + "\n")


def _may_be_salad(text: str, words: Sequence[str], pairs: set[tuple[str, str]]) -> bool:
    """Whether any pair is broken, or any sentence goes on with a small letter."""
    if pairs & _BROKEN_PAIRS or not _BROKEN_ENDS.isdisjoint(words):
        return True
    return _GOES_ON.search(text) is not None


def _is_broken(first: str, second: str) -> bool:
    return (
        second in _NEVER_AFTER.get(first, ())
        or (first == "a" and _VOWEL.match(second) is not None)
        or (first == "an" and _CONSONANT.match(second) is not None)
    )


def _is_code(line: str) -> bool:
    return 25 * len(_CODE_SIGN.findall(line)) > len(line) or _CODE_HEAD.match(line) is not None


def _salad_score(tokens: Sequence[str]) -> float:
    """The highest sum of log-likelihood ratios over a stretch of pairs."""
    best = score = 0.0
    for first, second in pairwise(tokens):
        if second == _BREAK or _is_broken(first, second):
            score += _BROKEN
        elif first in _NEVER_AFTER:
            score = max(0.0, score + _SOUND)
        else:
            continue
        best = max(best, score)
    return best


_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
_SIGN = re.compile(r"[^\w\s'-]|\n|_")
_UNSPEAKABLE = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}|^[^aeiouy']{4,}$")


def _is_random(text: str, words: Sequence[str]) -> bool:
    """Whether a text has hardly any function word or word twice, and has no punctuation or words of no language."""
    if sum(map(_FUNCTION_WORDS.__contains__, words)) > 0.06 * len(words):
        return False
    text = text.replace("’", "'")
    words = _WORD.findall(text)
    n = len(words)
    small = [word.lower() for word in words]
    if n < RANDOM_WORDS or sum(map(_FUNCTION_WORDS.__contains__, small)) >= 0.06 * n:
        return False
    windows = [small[start : start + 50] for start in range(0, max(1, n - 49), 25)]
    if sum(len(set(window)) / len(window) for window in windows) <= 0.95 * len(windows):
        return False
    mixed = sum(any(a.islower() and b.isupper() for a, b in pairwise(w)) for w in words)
    unspeakable = sum(word.isascii() and _UNSPEAKABLE.search(word) is not None for word in small)
    scripts = [unicodedata.name(word[0], "?").split()[0] for word in words]
    switches = sum(a != b for a, b in pairwise(scripts))
    signs = len(_SIGN.findall(text.strip()))
    return signs < 0.05 * n or mixed > 0.05 * n or unspeakable > 0.1 * n or switches > 0.1 * n
