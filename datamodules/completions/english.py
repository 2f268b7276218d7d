"""Tell texts that are clearly not in English, which some judges cannot read."""

import re

_LATIN_END = "\u024f"
_WORD = re.compile(r"[^\W\d_]+")
_ENGLISH = "the of and to in is it you that was for are with as this be have not by at or from but can i we your if"
_OTHER = """
der und ist nicht eine einen dem den mit für auf ich wir sie auch les des et est une pas pour dans vous nous je qui sur
au los las del por una como pero esta está es el il di che sono questo puedo con lo eso posso mi ma questa della não uma
mais você os het een niet zijn van ik och att inte är det på jag ikke og nie się jest że nem és egy bir ve bu için tidak
yang dan untuk saya không và là của
"""
"""Frequent words of other languages in Latin letters that English texts hardly have."""
_KNOWN = frozenset(_ENGLISH.split()), frozenset(_OTHER.split())


def is_english(text: str) -> bool:
    """Whether a text may be English; False only if it clearly is not, by its letters or its most frequent words.

    Example:
        >>> is_english("I can't help with that."), is_english("Dabei kann ich nicht helfen, und das ist gut.")
        (True, False)
    """
    letters = [letter for letter in text[:2000] if letter.isalpha()]
    if sum(letter > _LATIN_END for letter in letters) > len(letters) / 2:
        return False
    words = [word.lower() for word in _WORD.findall(text[:2000])]
    english, other = (sum(word in known for word in words) for known in _KNOWN)
    return other < 2 or other <= english or 8 * other < len(words)
