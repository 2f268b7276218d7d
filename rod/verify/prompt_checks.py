"""Checks of a tokenizer and its chat template."""

import warnings
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.prompts import ChatTemplate, encode_pair, encode_prompt, render_prompt, render_turns
from llm_modules.backbone.vocabulary import check_vocabulary, required_end_ids
from rod.verify.subject import DoesNotApplyError, Subject

QUESTION, ANSWER = "What is 17 plus 25?", "17 plus 25 is 42."
_SWITCHES: dict[str, tuple[Any, Any]] = {
    "enable_thinking": (False, True),
    "thinking": (False, True),
    "reasoning_effort": ("low", "high"),
    "thinking_budget": (0, 512),
}
"""Usual arguments of templates that switch thinking, with two values of each."""


def tokenizer(subject: Subject) -> str:
    """Every token has an embedding, and some token ends a completion."""
    found = _tokenizer(subject)
    name = str(found.name_or_path)
    check_vocabulary(subject.model, found, name, name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ends = required_end_ids(subject.model, found, name)
    words = f"ends at {', '.join(map(str, found.convert_ids_to_tokens(sorted(ends))))}"
    return f"{words}; {told[0].message}" if told else words


def chat_template(subject: Subject) -> str:
    """A prompt has the user's words, and a response to learn is the response and an end."""
    found, template = _template(subject)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        prompt = render_prompt(found, QUESTION, template=template)
        ids, labels = encode_pair(found, QUESTION, ANSWER, template=template)
    learnt = found.decode([label for label in labels if label != IGNORE_INDEX])
    if ANSWER not in learnt:
        raise AssertionError(f"of the response {ANSWER!r} the labels hold {learnt!r}")
    before = encode_prompt(found, prompt)
    if ids[: len(before)] != before:
        raise AssertionError("the prompt that is learnt after is not the prompt that is answered")
    return f"learns {learnt!r}" + "".join(f"; {warning.message}" for warning in told[:1])


def system_turn(subject: Subject) -> str:
    """A system turn is rendered."""
    found, template = _template(subject)
    try:
        render_prompt(found, QUESTION, system_prompt="You are brief.", template=template)
    except InputError as error:
        raise DoesNotApplyError(f"the template refuses it: {str(error).rpartition(': ')[2]}") from error
    return ""


def several_turns(subject: Subject) -> str:
    """Earlier turns stand in the prompt."""
    found, template = _template(subject)
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "And minus 2?"},
    ]
    text = render_turns(found, turns, template=template)
    if ANSWER not in text:
        raise AssertionError("the template drops the assistant's earlier turn")
    return f"{len(encode_prompt(found, text))} tokens"


def thinking_switch(subject: Subject) -> str:
    """The template's switch of thinking changes the prompt."""
    found, template = _template(subject)
    read, changing = [], []
    for name, values in _SWITCHES.items():
        try:
            made = {
                render_prompt(found, QUESTION, template=replace(template, kwargs={**template.kwargs, name: v}))
                for v in values
            }
        except InputError as error:
            if "does not read it" not in str(error):
                raise
            continue
        read.append(name)
        changing += [name] if len(made) > 1 else []
    if not read:
        raise DoesNotApplyError("the template has none")
    if not changing:
        raise AssertionError(f"{', '.join(read)} changes nothing of a prompt")
    return f"data.chat_template_kwargs: {', '.join(changing)}"


def _tokenizer(subject: Subject) -> PreTrainedTokenizerBase:
    if subject.tokenizer is None:
        raise DoesNotApplyError("there is no tokenizer")
    return subject.tokenizer


def _template(subject: Subject) -> tuple[PreTrainedTokenizerBase, ChatTemplate]:
    found = _tokenizer(subject)
    if not found.chat_template and subject.template is None:
        raise DoesNotApplyError("there is no chat template; `--chat_template plain` is one for base models")
    return found, ChatTemplate(subject.template, subject.template_kwargs)


PROMPT_CHECKS = (tokenizer, chat_template, system_turn, several_turns, thinking_switch)
