"""Prompts and supervised pairs, with real tokenizers where they are at hand."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.prompts.chat_template import (
    SYSTEM1_SUFFIX,
    SYSTEM2_SUFFIX,
    decode_completion,
    encode_pair,
    encode_prompt,
    render_prompt,
    require_eos,
    user_turn,
)

R1_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}<U>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{% set said = m['content'] %}"
    "{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}<A>{{ said }}{{ eos_token }}"
    "{% else %}{{ raise_exception('no system turn here') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<A>{{ '<think>\\n' }}{% endif %}"
)


def byte_tokenizer(template: str | None = None, eos: str | None = "<E>") -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<B>", eos_token=eos)
    tokenizer.chat_template = template
    return tokenizer


def learned(tokenizer: PreTrainedTokenizerBase, ids: list[int], labels: list[int]) -> str:
    start = next(i for i, label in enumerate(labels) if label != IGNORE_INDEX)
    assert labels == [IGNORE_INDEX] * start + ids[start:]
    return str(tokenizer.decode(ids[start:]))


@pytest.fixture
def qwen(shared_data: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2_5")


@pytest.fixture
def llama2(shared_data: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "llama2")


def test_the_published_instructions() -> None:
    assert user_turn("1+1?", "system2") == r"1+1? Please reason step by step, and put your final answer within \boxed{}"
    assert user_turn("1+1?", "system1") == (
        r"1+1? Please provide as a brief reasoning process as possible, and put your final answer within \boxed{}"
    )
    assert user_turn("1+1?", "plain") == "1+1?"
    assert SYSTEM1_SUFFIX.startswith(" ")
    assert SYSTEM2_SUFFIX.startswith(" ")


def test_qwen(qwen: PreTrainedTokenizerBase) -> None:
    prompt = render_prompt(qwen, "1+1?", system_prompt="Be kind.")
    assert prompt == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    ids, labels = encode_pair(qwen, "1+1?", "It is \\boxed{2}", system_prompt="Be kind.")
    assert ids[: len(encode_prompt(qwen, prompt))] == encode_prompt(qwen, prompt)
    assert learned(qwen, ids, labels) == "It is \\boxed{2}<|im_end|>"


def test_llama2(llama2: PreTrainedTokenizerBase) -> None:
    prompt = encode_prompt(llama2, render_prompt(llama2, "1+1?"))
    assert prompt.count(llama2.bos_token_id) == 1
    for response in ("It is 2", " It is 2", "It is 2 "):  # the template's own spaces are never doubled
        ids, labels = encode_pair(llama2, "1+1?", response)
        assert ids[: len(prompt)] == prompt
        assert llama2.decode(ids) == "<s> [INST] 1+1? [/INST] It is 2 </s>"
        assert ids[-1] == labels[-1] == llama2.eos_token_id


def test_plain_template_puts_bos_only_where_the_tokenizer_does(
    llama2: PreTrainedTokenizerBase, qwen: PreTrainedTokenizerBase, shared_data: Path
) -> None:
    gpt2 = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "gpt2")
    assert render_prompt(llama2, "1+1?", system_prompt="Hi.", template="plain") == "<s>Hi.\n\n1+1?\n\n"
    assert render_prompt(qwen, "1+1?", template="plain") == "1+1?\n\n"
    assert render_prompt(gpt2, "1+1?", template="plain") == "1+1?\n\n"
    ids, labels = encode_pair(gpt2, "1+1?", "2", template="plain")
    assert learned(gpt2, ids, labels) == "2<|endoftext|>"


def test_marks_of_a_thought_stay_in_what_is_decoded() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("<B>[THINK]a[/THINK]b<E>", add_special_tokens=False)
    assert decode_completion(tokenizer, ids) == "[THINK]a[/THINK]b", "plain text here"
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|x|>"]})
    ids = tokenizer.encode("<B>[THINK]a<|x|>[/THINK]b<E>", add_special_tokens=False)
    assert len(ids) == 7
    assert decode_completion(tokenizer, ids) == "[THINK]a[/THINK]b"


@pytest.mark.parametrize("opened_in_prompt", [True, False])
def test_a_template_that_strips_thinking_gets_it_back(opened_in_prompt: bool) -> None:
    tokenizer = byte_tokenizer(R1_TEMPLATE if opened_in_prompt else R1_TEMPLATE.replace("<A>{{ '<think>\\n' }}", "<A>"))
    response = "Two.\n</think>\n\n\\boxed{2}" if opened_in_prompt else "<think>\nTwo.\n</think>\n\n\\boxed{2}"
    ids, labels = encode_pair(tokenizer, "1+1?", response)
    assert tokenizer.decode(ids) == "<B><U>1+1?<A><think>\nTwo.\n</think>\n\n\\boxed{2}<E>"
    assert learned(tokenizer, ids, labels) == response + "<E>"


def test_a_template_that_ends_turns_without_eos_gets_one() -> None:
    tokenizer = byte_tokenizer("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }};{% endfor %}")
    ids, labels = encode_pair(tokenizer, "q", "a")
    assert tokenizer.decode(ids) == "<user>q;<assistant>a;<E>"
    assert learned(tokenizer, ids, labels) == "<assistant>a;<E>"


def test_the_prompt_keeps_its_tokens_where_one_would_reach_over_the_border(qwen: PreTrainedTokenizerBase) -> None:
    prompt = encode_prompt(qwen, render_prompt(qwen, "q", template="plain"))
    ids, labels = encode_pair(qwen, "q", "\n\n\nanswer", template="plain")
    assert ids[: len(prompt)] == prompt
    assert learned(qwen, ids, labels) == "\n\n\nanswer<|im_end|>"


def test_a_template_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    assert render_prompt(byte_tokenizer(), "q", template=str(file)) == "[q]"


def test_templates_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--data.chat_template plain"):
        render_prompt(byte_tokenizer(), "q")
    with pytest.raises(InputError, match=r"no\.jinja: no such file"):
        render_prompt(byte_tokenizer(), "q", template=str(tmp_path / "no.jinja"))
    with pytest.raises(InputError, match=r"turns \(system, user\): no system turn here"):
        render_prompt(byte_tokenizer(R1_TEMPLATE), "q", system_prompt="s")
    (tmp_path / "bad.jinja").write_text("{% for %}")
    with pytest.raises(InputError, match=r"bad\.jinja"):
        render_prompt(byte_tokenizer(), "q", template=str(tmp_path / "bad.jinja"))


def test_tokenizers_without_an_end_of_sequence() -> None:
    with pytest.raises(InputError, match="no EOS"):
        require_eos(byte_tokenizer(eos=None))
    with pytest.raises(InputError, match="no EOS"):
        encode_pair(byte_tokenizer(eos=None), "q", "a", template="plain")
