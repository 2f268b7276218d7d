"""Encode training conversations: each turn of the assistant is learnt after the prompt that it will have in use."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from datamodules.completions.thoughts import closes_thought
from datamodules.prompts.chat_template import require_eos
from datamodules.prompts.messages import Message, message_of, parts_of
from datamodules.prompts.renderer import ChatTemplate, Renderer
from datamodules.prompts.token_row import Tail, TokenRow, assistant_tail, closing_mark
from datamodules.records.conversations import Conversation
from datamodules.records.turns import Turn

LossTurns = Literal["all", "last"]
"""The assistant's turns that are learnt."""


class ConversationEncoder:
    """Encodes conversations with one chat template.

    Each turn that is learnt follows the prompt that the model will have in its place: the template's rendering of the
    turns before. A template that rewrites these, as those of thinking models leave out earlier thoughts, gives several
    examples for a conversation: one for all turns up to such a place, one for those up to the next. No turn is learnt
    twice. If the template marks what the assistant says (``{% generation %}``), only that is learnt.

    Attributes:
        n_rewritten: Conversations that gave several examples.
        n_thoughts_left_out: Turns whose thought is not learnt because their prompt closes it
            (``enable_thinking: false``).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate | str | None = None,
        loss_turns: LossTurns = "all",
    ) -> None:
        """Resolve the template.

        Args:
            tokenizer: The model's tokenizer.
            template: As in `render_prompt`.
            loss_turns: Learn ``all`` turns of the assistant after the first request, or the ``last`` one.

        Raises:
            InputError: There is no template, it does not read one of its arguments, or the tokenizer has no EOS.
        """
        require_eos(tokenizer)
        self.tokenizer, self.template, self.loss_turns = tokenizer, template, loss_turns
        self.plain = Renderer(tokenizer, template)
        self.n_rewritten = self.n_thoughts_left_out = 0
        self._special = {n: token.content for n, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._with_tools: dict[str, Renderer] = {}

    def __call__(self, conversation: Conversation) -> list[tuple[list[int], list[int]]]:
        """Return ``(ids, labels)`` of each example; labels are ``IGNORE_INDEX`` on what is not learnt.

        InputError if the template cannot render the conversation, or drops something of it.
        """
        render = self._renderer(conversation.tools)
        messages = [message_of(turn, render, earlier=True) for turn in conversation.turns]
        rows: list[TokenRow] = []
        open_row = False
        for index in self._learnt(conversation.turns):
            prompt = render(messages[:index], True)
            tail = self._tail(render, messages[:index], conversation.turns[index], prompt)
            if not open_row or not prompt.startswith(rows[-1].text):
                rows.append(TokenRow(self.tokenizer, self._special))
            row = rows[-1]
            row.add(prompt[len(row.text) :], learnt=False)
            for text, learnt in _pieces(render, tail, len(prompt)):
                row.add(text, learnt=learnt)
            calls = conversation.turns[index].tool_calls
            marked = render.has_marks and tail.turns is not None
            ends = marked or (bool(calls) and tail.text.rstrip().endswith(tuple(self._special.values())))
            open_row = ends or not row.end()
        self.n_rewritten += len(rows) > 1
        return [row.finished() for row in rows]

    def _renderer(self, tools: Sequence[Mapping[str, Any]]) -> Renderer:
        if not tools:
            return self.plain
        key = json.dumps(tools, default=str)
        if key not in self._with_tools:
            if len(self._with_tools) == 100:  # sets with other tools in every conversation do not fill the memory
                self._with_tools.clear()
            self._with_tools[key] = Renderer(self.tokenizer, self.template, tools)
        return self._with_tools[key]

    def _learnt(self, turns: Sequence[Turn]) -> list[int]:
        first = next(i for i, turn in enumerate(turns) if turn.role in ("user", "tool"))
        found = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.weight and i > first]
        return found if self.loss_turns == "all" else found[-1:]

    def _tail(self, render: Renderer, context: list[Message], turn: Turn, prompt: str) -> Tail:
        thought, content = parts_of(turn)
        if closes_thought(prompt):
            self.n_thoughts_left_out += bool(thought)
            turn, thought = Turn(turn.role, content, tool_calls=turn.tool_calls), ""

        close = closing_mark(prompt)
        spoken = f"{thought}\n{close}\n\n{content}" if turn.thought and close else None
        return assistant_tail(render, context, message_of(turn, render), prompt, spoken)


def _pieces(render: Renderer, tail: Tail, start: int) -> Iterator[tuple[str, bool]]:
    """The tail in parts, and if they are learnt. ``start`` is its place in the rendered turns."""
    if not render.has_marks or tail.turns is None:
        yield tail.text, True
        return
    done = 0
    for first, last in render.marks(tail.turns):
        first, last = max(first - start, done), last - start
        if first < last:
            yield tail.text[done:first], False
            yield tail.text[first:last], True
            done = last
    yield tail.text[done:], False
