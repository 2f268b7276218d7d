"""Tokens of completions that come without them, counted by a tokenizer."""

from pathlib import Path

from tokenizers import Tokenizer

from datamodules.suites.predictions import Prediction
from datamodules.suites.token_places import count_tokens
from tests.tiny import tiny_tokenizer

TEXT = "a" * 100


def saved(folder: Path) -> str:
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_truncation_and_padding_of_a_file_do_not_count(tmp_path: Path) -> None:
    (whole,) = count_tokens([Prediction("a", TEXT)], saved(tmp_path))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert count_tokens([Prediction("a", TEXT)], str(tmp_path)) == [whole]
    assert whole.n_tokens is not None
    assert whole.n_tokens > 8


def test_counts_of_another_tokenizer_give_no_places(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (own,) = count_tokens([Prediction("a", TEXT)], folder)
    assert own.n_tokens is not None
    for n_tokens, has_places in ((own.n_tokens, True), (own.n_tokens + 1, True), (900, False)):
        (found,) = count_tokens([Prediction("a", TEXT, n_tokens=n_tokens)], folder)
        assert found.n_tokens == n_tokens
        assert bool(found.budget_ends) is has_places
