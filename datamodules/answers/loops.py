"""Recognise completions that are caught in a loop."""

import re
from collections.abc import Sequence

import numpy as np

LONGEST_LOOP = 64
"""Pieces (words, digits, signs) of the longest block whose repetition is looked for (ours)."""
LOOP_TURNS = 4
"""A loop repeats a block at least this often back to back ... (ours)."""
LOOP_PIECES = 64
"""... and fills at least this many pieces, so that ``2 + 2 + 2 + 2 + 2`` is no loop (ours). No false alarm on 19,943
responses of GPT and 9,500 published solutions."""
_PIECE = re.compile(r"[A-Za-z]{1,64}(?![A-Za-z])|\S")
"""A word, or a letter of what is too long for a word: ``hahaha...``."""


def has_loop(text: str) -> bool:
    """Whether a block of text is repeated back to back so often that the model must be in a loop (ours).

    See ``LONGEST_LOOP``, ``LOOP_TURNS`` and ``LOOP_PIECES``. Counts words and signs instead of tokens, so that it needs
    no tokenizer. Linear in the length of the text.

    Example:
        >>> has_loop("We add. " + "Then 5 again. " * 40)
        True
    """
    return longest_loop(pieces_of(text))[1] >= LOOP_PIECES


def pieces_of(text: str) -> list[str]:
    """The pieces of a text that loops are counted in: words, digits and signs."""
    return _PIECE.findall(text)


def longest_loop(pieces: Sequence[str]) -> tuple[int, int, int]:
    """Start, length and period in pieces of the longest block that is repeated back to back; zeros if there is none."""
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(piece, len(numbers)) for piece in pieces])
    longest = (0, 0, 0)
    for period in range(1, min(LONGEST_LOOP, len(codes) // LOOP_TURNS) + 1):
        differs = codes[period:] != codes[:-period]
        if len(codes) - period - np.count_nonzero(differs) < (LOOP_TURNS - 1) * period:
            continue  # too few repetitions, wherever they are
        borders = np.concatenate([[-1], differs.nonzero()[0], [len(codes) - period]])
        gaps = borders[1:] - borders[:-1]
        widest = int(gaps.argmax())
        filled = int(gaps[widest]) - 1 + period
        if filled >= LOOP_TURNS * period and filled > longest[1]:
            longest = (int(borders[widest]) + 1, filled, period)
    return longest
