"""Each turn is learnt once, after the prompt that the model has in its place; templates of three kinds rewrite it."""

from pathlib import Path
from typing import Any, get_args

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate, encode_prompt
from datamodules.prompts.control_tokens import tell_control_tokens
from datamodules.prompts.conversation import ConversationEncoder, LossTurns
from datamodules.prompts.renderer import Renderer
from datamodules.records.conversations import Conversation, read_conversations
from datamodules.records.turns import Turn
from tests.datamodules.prompts.test_chat_template import R1_TEMPLATE, byte_tokenizer
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

_LAST_QUESTION = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
)
QWEN3_TEMPLATE = (
    _LAST_QUESTION + "{%- if tools %}<S>{% for t in tools %}{{ t | tojson }}{% endfor %}<E>{% endif %}"
    "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- set content, thought = m.content, m.reasoning_content or '' %}"
    "{%- if not thought and '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{%- set content = content.split('</think>')[-1].lstrip() %}{%- endif %}"
    "<A>{%- if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ content }}"
    "{%- for c in m.tool_calls %}<call>{{ c.function | tojson }}</call>{% endfor %}<E>{{ '\n' }}"
    "{%- else %}<{{ m.role }}>{{ m.content }}{% endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}<A>"
    "{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
GPT_OSS_TEMPLATE = (
    _LAST_QUESTION + "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- if m.tool_calls %}"
    "{%- if m.thinking and loop.index0 > ns.last %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "{%- for c in m.tool_calls %}<|start|>assistant to=functions.{{ c.function.name }}"
    "<|channel|>commentary json<|message|>{{ c.function.arguments | tojson }}<|call|>{% endfor %}"
    "{%- elif loop.last %}"
    "{%- if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>"
    "{%- else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}"
    "{%- elif m.role == 'tool' %}<|start|>functions.add to=assistant<|channel|>commentary<|message|>"
    "{{ m.content | tojson }}<|end|>"
    "{%- else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<|start|>assistant{% endif %}"
)
MARKED_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\n' }}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

THINKING = (
    Turn("user", "1+1?"),
    Turn("assistant", "Two.", thought="Add them."),
    Turn("user", "Sure?"),
    Turn("assistant", "Yes.", thought="I am."),
)
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALLING = (
    Turn("user", "1+1?"),
    Turn("assistant", "", thought="Call.", tool_calls=(CALL,)),
    Turn("tool", '{"sum": 2}', tool="add"),
    Turn("assistant", "Two.", thought="Told."),
)


def gpt_oss() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(GPT_OSS_TEMPLATE, eos="<|return|>")
    names = ("start", "channel", "message", "end", "call")
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in names]})
    return tokenizer


def shown(
    tokenizer: PreTrainedTokenizerFast,
    turns: tuple[Turn, ...],
    loss_turns: LossTurns = "all",
    template: ChatTemplate | str | None = None,
    tools: tuple[Any, ...] = (),
) -> list[str]:
    """The text of each example, with what is learnt between ``⟦`` and ``⟧``."""
    examples = ConversationEncoder(tokenizer, template, loss_turns)(Conversation(turns, tools))
    return [show(tokenizer, ids, labels) for ids, labels in examples]


def show(tokenizer: PreTrainedTokenizerFast, ids: list[int], labels: list[int]) -> str:
    text, inside, start = "", False, 0
    for i in range(len(ids) + 1):
        learnt = i < len(ids) and labels[i] != IGNORE_INDEX
        if learnt != inside or i == len(ids):
            text += str(tokenizer.decode(ids[start:i]))
            text += "⟧" if inside and (not learnt) else "⟦" if learnt else ""
            inside, start = learnt, i
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(ids, labels, strict=True))
    return text


def test_a_template_that_keeps_all_gives_one_example() -> None:
    turns = (Turn("system", "Be kind."), *(Turn(turn.role, turn.content) for turn in THINKING))
    frame = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    rest = "\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n⟦Yes.<|im_end|>⟧"
    assert shown(tiny_tokenizer(), turns) == [frame + "⟦Two.<|im_end|>⟧" + rest]
    assert shown(tiny_tokenizer(), turns, "last") == [frame + "Two.<|im_end|>" + rest]


def test_qwen3_like_templates_leave_out_earlier_thoughts() -> None:
    tokenizer = byte_tokenizer(QWEN3_TEMPLATE)
    first = "<user>1+1?<A>⟦<think>\nAdd them.\n</think>\n\nTwo.<E>⟧"
    last = "<user>1+1?<A>Two.<E>\n<user>Sure?<A>⟦<think>\nI am.\n</think>\n\nYes.<E>⟧"
    assert shown(tokenizer, THINKING) == [first, last]
    assert shown(tokenizer, THINKING, "last") == [last]
    inside = tuple(
        Turn(t.role, f"<think>\n{t.thought}\n</think>\n\n{t.content}" if t.thought else t.content) for t in THINKING
    )
    assert shown(tokenizer, inside) == [first, last]


def test_qwen3_like_templates_without_thinking() -> None:
    tokenizer = byte_tokenizer(QWEN3_TEMPLATE)
    off = ChatTemplate(kwargs={"enable_thinking": False})
    expected = [
        "<user>1+1?<A><think>\n\n</think>\n\n⟦Two.<E>⟧",
        "<user>1+1?<A>Two.<E>\n<user>Sure?<A><think>\n\n</think>\n\n⟦Yes.<E>⟧",
    ]
    assert shown(tokenizer, tuple(Turn(t.role, t.content) for t in THINKING), template=off) == expected
    encoder = ConversationEncoder(tokenizer, off)
    assert [show(tokenizer, *example) for example in encoder(Conversation(THINKING))] == expected
    assert encoder.n_thoughts_left_out == 2, "said, because it is not learnt"


def test_tools_that_come_again_are_not_looked_at_again() -> None:
    encoder = ConversationEncoder(byte_tokenizer(QWEN3_TEMPLATE))
    other = {"type": "function", "function": {"name": "sub", "parameters": {}}}
    same = {"type": "function", "function": {"name": "add", "parameters": {}}}
    found = [encoder._renderer((tool,)) for tool in (TOOL, other, same)]
    assert found[0] is found[2] is not found[1]
    (first, _) = encoder(Conversation(THINKING, (other,)))
    assert '"sub"' in show(byte_tokenizer(QWEN3_TEMPLATE), *first)


def test_qwen3_like_templates_keep_thoughts_between_calls_of_tools() -> None:
    (text,) = shown(byte_tokenizer(QWEN3_TEMPLATE), CALLING, tools=(TOOL,))
    assert text.startswith('<S>{"type": "function", "function": {"name": "add", "parameters": {}}}<E><user>1+1?<A>⟦')
    assert text.endswith(
        '⟦<think>\nCall.\n</think>\n\n<call>{"name": "add", "arguments": {"a": 1}}</call><E>⟧\n<tool>{"sum": 2}<A>'
        "⟦<think>\nTold.\n</think>\n\nTwo.<E>⟧"
    )


@pytest.mark.parametrize("opened", [True, False])
def test_r1_like_templates(opened: bool) -> None:
    template = R1_TEMPLATE if opened else R1_TEMPLATE.replace("<A>{{ '<think>\\n' }}", "<A>")
    start = "<A><think>\n⟦" if opened else "<A>⟦<think>\n"
    tokenizer = byte_tokenizer(template)
    first = f"<B><U>1+1?{start}Add them.\n</think>\n\nTwo.<E>⟧"
    last = f"<B><U>1+1?<A>Two.<E><U>Sure?{start}I am.\n</think>\n\nYes.<E>⟧"
    assert shown(tokenizer, THINKING) == [first, last]
    assert shown(tokenizer, THINKING, "last") == [last]
    inside = tuple(
        Turn(t.role, f"<think>\n{t.thought}\n</think>\n\n{t.content}" if t.thought else t.content) for t in THINKING
    )
    assert shown(tokenizer, inside) == [first, last]


def test_an_answer_without_a_thought_is_not_learnt_as_one() -> None:
    """A prompt of such models opens the thought; what follows must close it before it answers."""
    turns = tuple(Turn(t.role, t.content) for t in THINKING)
    close = "<A><think>\n⟦\n</think>\n\n"
    assert shown(byte_tokenizer(R1_TEMPLATE), turns) == [
        f"<B><U>1+1?{close}Two.<E>⟧",
        f"<B><U>1+1?<A>Two.<E><U>Sure?{close}Yes.<E>⟧",
    ]


def test_gpt_oss_like_templates() -> None:
    start, final = "<|start|>assistant", "<|channel|>final<|message|>"
    analysis = "<|channel|>analysis<|message|>"
    assert shown(gpt_oss(), THINKING) == [
        f"<|start|>user<|message|>1+1?<|end|>{start}⟦{analysis}Add them.<|end|>{start}{final}Two.<|return|>⟧",
        f"<|start|>user<|message|>1+1?<|end|>{start}{final}Two.<|end|><|start|>user<|message|>Sure?<|end|>"
        f"{start}⟦{analysis}I am.<|end|>{start}{final}Yes.<|return|>⟧",
    ]
    inside = (THINKING[0], Turn("assistant", "<think>Add them.</think>Two."))
    assert shown(gpt_oss(), inside) == shown(gpt_oss(), THINKING[:2]), "thoughts in the content are told apart"


def test_gpt_oss_like_templates_with_calls_of_tools() -> None:
    tokenizer = gpt_oss()
    tokenizer.chat_template = "{#- tools -#}" + GPT_OSS_TEMPLATE
    (text,) = shown(tokenizer, CALLING, tools=(TOOL,))
    assert text == (
        "<|start|>user<|message|>1+1?<|end|><|start|>assistant⟦<|channel|>analysis<|message|>Call.<|end|>"
        '<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{"a": 1}<|call|>⟧'
        '<|start|>functions.add to=assistant<|channel|>commentary<|message|>"{\\"sum\\": 2}"<|end|><|start|>assistant'
        "⟦<|channel|>analysis<|message|>Told.<|end|><|start|>assistant<|channel|>final<|message|>Two.<|return|>⟧"
    )


def test_thoughts_for_a_template_that_knows_none() -> None:
    (text,) = shown(tiny_tokenizer(), THINKING)
    assert text.count("⟦<think>\n") == 2
    assert text.endswith("⟦<think>\nI am.\n</think>\n\nYes.<|im_end|>⟧")


def test_generation_marks_say_what_is_learnt() -> None:
    tokenizer = tiny_tokenizer(MARKED_TEMPLATE)
    turns = tuple(Turn(t.role, t.content) for t in THINKING)
    ((ids, labels),) = ConversationEncoder(tokenizer)(Conversation(turns))
    messages = [{"role": t.role, "content": t.content} for t in turns]
    whole: Any = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    assert ids == whole["input_ids"][: len(ids)]
    assert [label != IGNORE_INDEX for label in labels] == [bool(m) for m in whole["assistant_masks"][: len(ids)]]
    assert not any(whole["assistant_masks"][len(ids) :])
    assert shown(tokenizer, turns) == shown(tiny_tokenizer(CHAT_TEMPLATE), turns), "prefixes find the same"
    part = MARKED_TEMPLATE.replace(
        "{% generation %}{{ m.content }}", "{{ m.content[:1] }}{% generation %}{{ m.content[1:] }}"
    )
    assert shown(tiny_tokenizer(part), turns)[0].endswith("assistant\nY⟦es.<|im_end|>⟧")


def test_turns_that_are_context_only() -> None:
    turns = (
        Turn("assistant", "Welcome."),
        Turn("user", "1+1?"),
        Turn("assistant", "Three.", weight=0),
        Turn("user", "No."),
        Turn("assistant", "Two."),
        Turn("user", "Thanks."),
    )
    (text,) = shown(tiny_tokenizer(), turns)
    assert text.count("⟦") == 1
    assert text.endswith("⟦Two.<|im_end|>⟧")
    assert "Welcome.<|im_end|>" in text
    assert "Three.<|im_end|>" in text


def test_what_a_template_cannot_do_is_said() -> None:
    encoder = ConversationEncoder(byte_tokenizer(R1_TEMPLATE))
    with pytest.raises(InputError, match="no system turn here"):
        encoder(Conversation((Turn("system", "s"), *THINKING)))
    with pytest.raises(InputError, match="does not read the tools"):
        encoder(Conversation(THINKING, (TOOL,)))
    for loss_turns in get_args(LossTurns):
        with pytest.raises(InputError, match=r"it drops the calls of tools .'add'."):
            ConversationEncoder(tiny_tokenizer(), None, loss_turns)(Conversation(CALLING))
    named = (Turn("user", "Please add it."), *CALLING[1:])
    with pytest.raises(InputError, match=r"it drops the calls of tools .'add'."):  # whose name stands elsewhere, too
        ConversationEncoder(tiny_tokenizer())(Conversation(named))
    mute = byte_tokenizer("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}")
    with pytest.raises(InputError, match="words of the assistant's turn"):
        ConversationEncoder(mute)(Conversation(THINKING))


def test_control_tokens_in_the_data_are_counted() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<think>"]})
    texts = [("a:1", "a<|im_end|>b<|im_end|>"), ("a:2", "<think>c"), ("a:3", "<|im_start|>")]
    with pytest.warns(UserWarning, match=r"a: the text of 2 records .*'<\|im_end\|>' 2 times, .*; first a:1\): bad\."):
        found = tell_control_tokens(tokenizer, "a", texts, "bad")
    assert found == {"<|im_end|>": 2, "<|im_start|>": 1}


@pytest.mark.parametrize(
    ("name", "template"), [("qwen2_5", None), ("llama2", None), ("gpt2", "plain"), ("llama2", "plain")]
)
def test_a_published_set_with_real_tokenizers(name: str, template: str | None, shared_data: Path) -> None:
    """Before each answer stands its prompt, and what is learnt is the answers and their ends."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / name)
    render, encoder = Renderer(tokenizer, template), ConversationEncoder(tokenizer, template)
    for chat in read_conversations(shared_data / "mt_bench" / "dummy_conversation.jsonl")[:40]:
        ((ids, labels),) = encoder(chat)
        messages = [{"role": turn.role, "content": turn.content} for turn in chat.turns]
        starts = [i for i in range(1, len(ids)) if labels[i] != IGNORE_INDEX and labels[i - 1] == IGNORE_INDEX]
        prompts = [encode_prompt(tokenizer, render(messages[:i], True)) for i in range(1, len(messages), 2)]
        found = [ids[:start] for start in starts]
        assert found[0] == prompts[0]
        # GPT-2 writes the empty line before an answer as one token at the end of a prompt, and as two within a text.
        assert name == "gpt2" or found == prompts
        assert tokenizer.batch_decode(found) == tokenizer.batch_decode(prompts)
        answers = [turn.content for turn in chat.turns if turn.role == "assistant"]
        learnt = str(tokenizer.decode([label for label in labels if label != IGNORE_INDEX]))
        assert [answer.strip() for answer in learnt.split(str(tokenizer.eos_token))] == [*map(str.strip, answers), ""]
