"""Texts that are added one after the other give the ids of the whole text, without encoding all of it each time."""

import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from datamodules.prompts.conversation import ConversationEncoder
from datamodules.prompts.token_row import TokenRow
from datamodules.records.conversations import Conversation
from datamodules.records.turns import Turn
from tests.tiny import tiny_tokenizer

PIECES = ["a", "b", "ab", " b", "  ", "\n", "\n\n", "<E>", "<S>", "<E>\n", " <S> ", "b<E>a", "", "[END]", "<"]


def merging(metaspace: bool) -> PreTrainedTokenizerFast:
    """Tokens that span texts, and special tokens that take the white space around them."""
    letters = sorted({*pre_tokenizers.ByteLevel.alphabet(), "\u2581", "\n"})
    space, line = ("\u2581", "\n") if metaspace else ("\u0120", "\u010a")
    merges = [("a", "b"), (space, "b"), (line, line), ("<", "E"), (space, space)]
    words = [*letters, *("".join(merge) for merge in merges)]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges, fuse_unk=True))
    if metaspace:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<E>", rstrip=True), AddedToken("<S>", lstrip=True, rstrip=True)])
    core.add_special_tokens([AddedToken("[END]", normalized=True)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<E>")


def check(tokenizer: PreTrainedTokenizerBase, pieces: list[str]) -> None:
    special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert special
    draw = random.Random(0)
    for _ in range(300):
        rows = TokenRow(tokenizer), TokenRow(tokenizer, special)
        for text in draw.choices(pieces, k=draw.randint(1, 12)):
            learnt, ends = draw.random() < 0.5, draw.random() < 0.05
            for row in rows:
                row.add(text, learnt=learnt)
                if ends:
                    row.end()
        assert rows[0].ids == rows[1].ids
        assert rows[0].labels == rows[1].labels


@pytest.mark.parametrize("metaspace", [False, True])
def test_the_ids_are_those_of_the_whole_text(metaspace: bool) -> None:
    check(merging(metaspace), PIECES)


@pytest.mark.parametrize("name", ["qwen2_5", "llama2", "gpt2"])
def test_the_ids_of_real_tokenizers_too(name: str, shared_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / name)
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    lines = ["\n", "\n\n", "  ", f"Yes.{tokenizer.eos_token}\n"]
    check(tokenizer, ["a", "It", " is", "ing", "é", *lines, *special[:3]])


def test_a_long_conversation_is_not_encoded_anew_for_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer()
    encoder = ConversationEncoder(tokenizer)
    turns = tuple(Turn(role, f"This is turn {i}.") for i in range(20) for role in ("user", "assistant"))
    lengths: list[int] = []
    encode = tokenizer.encode

    def spy(text: str, **options: bool) -> list[int]:
        lengths.append(len(text))
        return encode(text, **options)

    monkeypatch.setattr(tokenizer, "encode", spy)
    ((ids, _),) = encoder(Conversation(turns))
    assert sum(lengths) < 3 * len(tokenizer.decode(ids))
