"""Render questions with a chat template, and encode them."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from datamodules.completions.thoughts import closes_thought, split_response, thought_tokens
from datamodules.errors import InputError
from datamodules.prompts.messages import Message, message_of
from datamodules.prompts.renderer import PLAIN_TEMPLATE, ChatTemplate, Renderer, Turns, name_of
from datamodules.prompts.token_row import RESPONSE_MARK, TokenRow, assistant_tail
from datamodules.records.kinds import System
from datamodules.records.turns import Turn

__all__ = [
    "PLAIN_TEMPLATE",
    "SYSTEM1_SUFFIX",
    "SYSTEM2_SUFFIX",
    "ChatTemplate",
    "decode_completion",
    "encode_pair",
    "encode_prompt",
    "render_prompt",
    "render_turns",
    "require_eos",
    "user_turn",
]

SYSTEM1_SUFFIX = " Please provide as a brief reasoning process as possible, and put your final answer within \\boxed{}"
"""Instruction for fast thinking, appended to the user turn (paper, word for word)."""
SYSTEM2_SUFFIX = " Please reason step by step, and put your final answer within \\boxed{}"
"""Instruction for slow thinking, appended to the user turn (paper, word for word)."""
_SUFFIXES: dict[System, str] = {"system1": SYSTEM1_SUFFIX, "system2": SYSTEM2_SUFFIX, "plain": ""}


def user_turn(question: str, system: System) -> str:
    r"""Return the question with the instruction of System 1 or 2 appended (paper), or unchanged for ``plain``.

    >>> user_turn("What is 1 + 1?", "system2")
    'What is 1 + 1? Please reason step by step, and put your final answer within \\boxed{}'
    """
    return question + _SUFFIXES[system]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    *,
    system_prompt: str | None = None,
    earlier: Sequence[Turn] = (),
    template: ChatTemplate | str | None = None,
) -> str:
    """Render system, ``earlier`` and user turn as text, up to where the assistant's turn begins.

    Without ``system_prompt`` the template may have a default. ``template`` is used in place of the tokenizer's own.
    InputError if there is none, it cannot render these turns or drops their words, or it does not read an argument;
    or there is a system prompt among the earlier turns too.
    """
    render = Renderer(tokenizer, template)
    return render(_messages(render, user, system_prompt, earlier), True)


def render_turns(
    tokenizer: PreTrainedTokenizerBase, turns: Turns, *, template: ChatTemplate | str | None = None
) -> str:
    """Render a conversation whose last turn is the user's; arguments and errors as in `render_prompt`."""
    return Renderer(tokenizer, template)(turns, True)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Encode a rendered prompt. No BOS is added: if there is one, the template has rendered it."""
    return tokenizer.encode(prompt, add_special_tokens=False)


def decode_completion(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Decode a completion without special tokens, except those that part its thought from its answer."""
    decoder = tokenizer.added_tokens_decoder
    special = {number: token.content for number, token in decoder.items() if token.special}
    kept = thought_tokens(set(special.values()))
    if not kept:
        return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))
    return str(tokenizer.decode([number for number in token_ids if special.get(number) in {None, *kept}]))


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    response: str,
    *,
    system_prompt: str | None = None,
    earlier: Sequence[Turn] = (),
    template: ChatTemplate | str | None = None,
) -> tuple[list[int], list[int]]:
    """Encode a prompt and the response to learn, as ``(ids, labels)``; the prompt's labels are ``IGNORE_INDEX``.

    The chat template renders the response as an assistant turn, up to and including EOS. Some templates change what
    the model said: R1-style ones remove the think block, which their prompts open. Then the response follows the
    prompt, and only the end of the turn comes from the template (ours). A response without a thought closes the
    thought that the prompt opens, so that no answer is learnt as a thought; after a prompt that closes the thought
    (``enable_thinking: false``), the response is learnt without its own. InputError as `render_prompt`, if the
    tokenizer has no EOS, or if nothing but a thought is left.
    """
    require_eos(tokenizer)
    render = Renderer(tokenizer, template)
    turns = _messages(render, user, system_prompt, earlier)
    prompt = render(turns, True)
    if closes_thought(prompt):
        if not (answer := split_response(response).answer):
            raise InputError(f"the response to {user[:40]!r} is only a thought, which its prompt closes; leave it out")
        response = answer
    row = TokenRow(tokenizer)
    row.add(prompt, learnt=False)
    row.add(assistant_tail(render, turns, {"role": "assistant", "content": response}, prompt).text, learnt=True)
    row.end()
    return row.finished()


def require_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `InputError` if the tokenizer has no EOS token: a model could not learn when to stop."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"tokenizer {name_of(tokenizer)}: it has no EOS token to end a response with; "
            "set `eos_token` in its tokenizer_config.json"
        )


def turn_end_id(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | str | None = None) -> int | None:
    """The added token that the chat template writes after an assistant turn; None if it writes none."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": RESPONSE_MARK}]
    try:
        text = Renderer(tokenizer, template)(turns, False)
    except InputError:
        return None  # where prompts are rendered, the same error is told
    _, found, ending = text.rpartition(RESPONSE_MARK)
    if not found:
        return None  # it drops what the assistant says
    ids = tokenizer.encode(ending.strip(), add_special_tokens=False)
    return ids[0] if ids and ids[0] in tokenizer.added_tokens_decoder else None


def _messages(render: Renderer, user: str, system_prompt: str | None, earlier: Sequence[Turn]) -> list[Message]:
    turns = [message_of(turn, render, earlier=True) for turn in earlier] + [{"role": "user", "content": user}]
    if system_prompt is None or not system_prompt.strip():  # a table has an empty cell for none
        return turns
    if turns[0]["role"] == "system":
        raise InputError("there are two system prompts: one of the conversation, and one beside it; leave one out")
    return [{"role": "system", "content": system_prompt}, *turns]
