"""Strings in data that a tokenizer reads as control tokens, such as ``<|im_end|>``."""

import re
from collections import Counter
from collections.abc import Iterable

from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from datamodules.completions.thoughts import thought_tokens


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The tokenizer's special tokens; marks of thoughts are none."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {token for token in special - thought_tokens(special) if token.strip()}


def tell_control_tokens(
    tokenizer: PreTrainedTokenizerBase, source: object, texts: Iterable[tuple[str, str]], effect: str
) -> Counter[str]:
    """Count control tokens in texts (each with its place); if there are any, warn with ``source`` and ``effect``."""
    found: Counter[str] = Counter()
    places: dict[str, None] = {}
    known = sorted(control_tokens(tokenizer), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, known)))
    for where, text in texts if known else ():
        if matches := pattern.findall(text):
            found.update(matches)
            places[where] = None
    if found:
        named = ", ".join(f"{token!r} {count:,} times" for token, count in found.most_common(3))
        rank_zero_warn(
            f"{source}: the text of {len(places):,} records holds control tokens of the tokenizer ({named}; first "
            f"{next(iter(places))}): {effect}. Take them out if they are meant as text"
        )
    return found
