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
    ChatTemplate,
    decode_completion,
    encode_pair,
    encode_prompt,
    render_prompt,
    require_eos,
    user_turn,
)
from datamodules.prompts.conversation import ConversationEncoder
from datamodules.prompts.renderer import TODAY
from datamodules.records.conversations import Conversation
from datamodules.records.turns import Turn
from llm_modules.backbone.loading import load_tokenizer
from tests.tiny import tiny_tokenizer

R1_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}<U>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{% set said = m['content'] %}"
    "{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}<A>{{ said }}{{ eos_token }}"
    "{% else %}{{ raise_exception('no system turn here') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<A>{{ '<think>\\n' }}{% endif %}"
)


def byte_tokenizer(template: str | dict[str, str] | None = None, eos: str | None = "<E>") -> PreTrainedTokenizerFast:
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


ALWAYS_OPEN = R1_TEMPLATE.replace("<A>{{ said }}", "<A>{{ '<think>\\n' + m['content'] }}")
"""It continues, in the turn itself, the thought that its prompt opens."""


@pytest.mark.parametrize("template", [R1_TEMPLATE, ALWAYS_OPEN, R1_TEMPLATE.replace("think>", "seed:think>")])
@pytest.mark.parametrize(
    ("response", "learnt"),
    [
        ("4.", "\n</think>\n\n4.<E>"),
        ("Two.\n</think>\n\n4.", "Two.\n</think>\n\n4.<E>"),
        ("</think>4.", "</think>4.<E>"),
    ],
)
def test_an_answer_closes_the_thought_that_its_prompt_opens(template: str, response: str, learnt: str) -> None:
    """As in conversations: an answer that is learnt as a thought would never end."""
    name = "seed:think>" if "seed" in template else "think>"
    response, learnt = response.replace("think>", name), learnt.replace("think>", name)
    tokenizer = byte_tokenizer(template)
    ids, labels = encode_pair(tokenizer, "2+2?", response)
    assert learned(tokenizer, ids, labels) == learnt
    assert ids[: labels.count(IGNORE_INDEX)] == encode_prompt(tokenizer, render_prompt(tokenizer, "2+2?"))
    turns = (Turn("user", "2+2?"), Turn("assistant", response))
    assert ConversationEncoder(tokenizer)(Conversation(turns)) == [(ids, labels)]


def test_an_opening_mark_of_the_response_is_not_said_twice() -> None:
    tokenizer = byte_tokenizer(R1_TEMPLATE)
    ids, labels = encode_pair(tokenizer, "2+2?", "<think>\nTwo.\n</think>\n\n4.")
    assert learned(tokenizer, ids, labels) == "Two.\n</think>\n\n4.<E>"


RESPONSES = ("4.", "4.\n</think>\n\n4.", "<think>\nTwo.\n</think>\n\n4.", "<think>Two.")


@pytest.mark.parametrize("name", ["miniature", "tiny", "qwen2_5", "llama2"])
def test_responses_stay_as_they_are_if_the_prompt_opens_no_thought(name: str, request: pytest.FixtureRequest) -> None:
    if name == "miniature":
        tokenizer: PreTrainedTokenizerBase = load_tokenizer("miniature")
    elif name == "tiny":
        tokenizer = tiny_tokenizer()
    else:
        tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue("shared_data") / "tokenizers" / name)
    for response in RESPONSES:
        ids, labels = encode_pair(tokenizer, "2+2?", response)
        prompt = render_prompt(tokenizer, "2+2?")
        space = " " if name == "llama2" else ""
        text = f"{prompt}{space}{response}{space}{tokenizer.eos_token}"
        assert ids == tokenizer.encode(text, add_special_tokens=False)
        assert labels.count(IGNORE_INDEX) == len(encode_prompt(tokenizer, prompt))


def test_after_a_prompt_that_closes_the_thought_no_second_one_is_learnt() -> None:
    tokenizer = byte_tokenizer(R1_TEMPLATE.replace("<think>\\n", "<think></think>"))
    for response in RESPONSES[:3]:
        assert learned(tokenizer, *encode_pair(tokenizer, "2+2?", response)) == "4.<E>"
    with pytest.raises(InputError, match="only a thought"):
        encode_pair(tokenizer, "2+2?", RESPONSES[3])
    for text in ("See the </think> tag.", "a [THINK] b [/THINK] c", "Write `<think>...</think>` first."):
        assert learned(tokenizer, *encode_pair(tokenizer, "2+2?", text)) == f"{text}<E>"
        turns = (Turn("user", "2+2?"), Turn("assistant", text))
        assert ConversationEncoder(tokenizer)(Conversation(turns)) == [encode_pair(tokenizer, "2+2?", text)]


def test_an_empty_system_prompt_is_none() -> None:
    tokenizer = byte_tokenizer(R1_TEMPLATE)
    assert render_prompt(tokenizer, "2+2?", system_prompt=" ") == render_prompt(tokenizer, "2+2?")


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


THINKING = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<A>{% if enable_thinking is defined and not enable_thinking %}<think></think>"
    "{% endif %}{% endif %}"
)


def test_arguments_reach_the_template_and_may_differ_by_system() -> None:
    tokenizer = byte_tokenizer(THINKING)
    assert render_prompt(tokenizer, "Hi") == "<user>Hi<A>"
    off = ChatTemplate(kwargs={"enable_thinking": False})
    assert render_prompt(tokenizer, "Hi", template=off) == "<user>Hi<A><think></think>"
    switch = ChatTemplate(kwargs={"system1": {"enable_thinking": False}, "system2": {"enable_thinking": True}})
    assert render_prompt(tokenizer, "Hi", template=switch.of("system1")).endswith("</think>")
    assert render_prompt(tokenizer, "Hi", template=switch.of("system2")) == "<user>Hi<A>"
    assert render_prompt(tokenizer, "Hi", template=switch.of("plain")) == "<user>Hi<A>"
    ids, labels = encode_pair(tokenizer, "Hi", "Yes", template=off)
    assert tokenizer.decode(ids[: labels.count(IGNORE_INDEX)]) == "<user>Hi<A><think></think>"


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"enable_thoughts": False}, "enable_thoughts: the chat template of tokenizer .* does not read it"),
        ({"tokenize": True}, "tokenize: is set by the rendering itself"),
        ({"system1": {"add_generation_prompt": True}}, "add_generation_prompt: is set by the rendering itself"),
        ({"system1": {}, "enable_thinking": False}, "but not both"),
        ({"date": "2026-01-31"}, "does not ask for the day"),
    ],
)
def test_arguments_that_would_do_nothing(kwargs: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        render_prompt(byte_tokenizer(THINKING), "Hi", template=ChatTemplate(kwargs=kwargs).of("system1"))


def test_today_is_the_same_day_in_every_run() -> None:
    tokenizer = byte_tokenizer("{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert render_prompt(tokenizer, "Hi") == f"{TODAY:%d %b %Y}Hi"
    assert render_prompt(tokenizer, "Hi", template=ChatTemplate(kwargs={"date": "2026-01-31"})) == "31 Jan 2026Hi"
    with pytest.raises(InputError, match="is no day such as"):
        render_prompt(tokenizer, "Hi", template=ChatTemplate(kwargs={"date": "tomorrow"}))


def test_a_template_that_drops_the_words_of_a_turn_is_refused() -> None:
    parts = (
        "{% for m in messages %}<{{ m['role'] }}>{% for part in m['content'] %}{% if part['type'] == 'text' %}"
        "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}<A>"
    )
    with pytest.raises(InputError, match=r"drops or changes the words of the user turn .'What is 2"):
        render_prompt(byte_tokenizer(parts), "What is 2 + 2?")
    only_user = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(InputError, match="words of the system turn"):
        render_prompt(byte_tokenizer(only_user), "Hi", system_prompt="Be kind.")
    assert render_prompt(byte_tokenizer(only_user), "  Hi \n you ") == "  Hi \n you "


def test_template_files_of_any_kind(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    file = tmp_path / "bom.jinja"
    file.write_bytes("\ufeff{% for m in messages %}{{ m['content'] }}{% endfor %}".encode())
    assert render_prompt(tokenizer, "Hi", template=str(file)) == "Hi"
    file.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}", encoding="utf-16")
    with pytest.raises(InputError, match="save it as UTF-8"):
        render_prompt(tokenizer, "Hi", template=str(file))
    file.write_text("{% for m in messages %}{{ m['content'] + 1 }}{% endfor %}")
    with pytest.raises(InputError, match=r"cannot render the turns .user.: can only concatenate"):
        render_prompt(tokenizer, "Hi", template=str(file))
    with pytest.raises(InputError, match=r"several chat templates .chat, tool_use. and no default"):
        render_prompt(byte_tokenizer({"chat": THINKING, "tool_use": THINKING}), "Hi")


def test_a_missing_bos_is_told(llama2: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    file = tmp_path / "qa.jinja"
    file.write_text("Question: {{ messages[-1]['content'] }}\nAnswer:")
    with pytest.warns(UserWarning, match="do not begin with '<s>'"):
        render_prompt(llama2, "Hi", template=str(file))
