"""Where the tokens of a completion lie in its text: the ends of token budgets, and the border of its thought."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import InputError, first_line
from datamodules.suites.predictions import BUDGETS, Prediction

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def with_token_places(prediction: Prediction, n_tokens: int, end_of: Callable[[int], int]) -> Prediction:
    """Add the token count, the ends of the budgets and the tokens of the thought.

    ``end_of`` says how many characters of the completion are within a number of tokens; it is non-decreasing.
    """
    length = len(prediction.completion)
    ends = tuple(min(length, end_of(budget)) for budget in BUDGETS if budget < n_tokens)
    start = answer_start(prediction)
    thought = bisect_left(range(n_tokens), start, key=lambda count: end_of(count)) if start else 0
    return replace(prediction, n_tokens=n_tokens, budget_ends=ends, thought_tokens=thought)


def answer_start(prediction: Prediction) -> int:
    """Characters of the completion before its answer: 0 without a thought, all if the thought does not end."""
    thought, answer = prediction.parts
    if answer is None:
        return len(prediction.completion)
    if not thought:
        return 0
    text = prediction.prefill + prediction.completion
    place = text.rfind(answer) if answer else -1
    return max(0, (place if place >= 0 else len(text) - len(answer)) - len(prediction.prefill))


def thinking_tokens(prediction: Prediction) -> float | None:
    """Tokens of the thought; by its share of the characters if they were not counted. None without a token count."""
    if prediction.thought_tokens is not None or prediction.n_tokens is None:
        return prediction.thought_tokens
    length = len(prediction.completion)
    return prediction.n_tokens * answer_start(prediction) / length if length else 0.0


def count_tokens(predictions: Sequence[Prediction], tokenizer: str) -> list[Prediction]:
    """Count the tokens of completions without a count, and add the places of tokens if they are not stored.

    ``tokenizer`` is a folder with a ``tokenizer.json``, that file, or a hub id. InputError if it cannot be loaded.
    """
    loaded = _load(tokenizer)
    return [p if p.n_tokens is not None and p.thought_tokens is not None else _counted(p, loaded) for p in predictions]


def _counted(prediction: Prediction, tokenizer: "Tokenizer") -> Prediction:
    # Half a character is no text for a tokenizer; its place stays.
    text = prediction.completion.encode("utf-8", "replace").decode("utf-8")
    ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
    n_tokens = len(ends) if prediction.n_tokens is None else prediction.n_tokens
    if n_tokens not in (len(ends), len(ends) + 1):  # with the end token; else it is of another tokenizer
        return prediction

    def end_of(count: int) -> int:
        return 0 if count < 1 else ends[count - 1] if count <= len(ends) else len(text)

    return with_token_places(prediction, n_tokens, end_of)


def _load(tokenizer: str) -> "Tokenizer":
    from tokenizers import Tokenizer

    file = Path(tokenizer) / "tokenizer.json" if Path(tokenizer).is_dir() else Path(tokenizer)
    try:
        loaded = Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(tokenizer)
    except Exception as error:  # tokenizers raises plain exceptions
        raise InputError(
            f"--tokenizer: '{tokenizer}' cannot be loaded ({first_line(error)}); give a folder with a "
            "tokenizer.json, or a hub id"
        ) from error
    loaded.no_truncation()  # which the file may have kept from a use in training
    loaded.no_padding()
    return loaded
