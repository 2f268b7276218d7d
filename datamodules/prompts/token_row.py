"""Token ids and labels of texts that follow one another, and the text of an assistant's turn in a template."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX
from datamodules.completions.thoughts import opened_thought, split_thought
from datamodules.errors import InputError
from datamodules.prompts.renderer import Turns, without_space

RESPONSE_MARK = "@@response@@"


class TokenRow:
    """Token ids and labels of texts that are added one after the other; no text changes the ids before it.

    A text is encoded together with those before it from the last ``special`` token (by id) on, or all of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special: Mapping[int, str] | None = None) -> None:
        self.tokenizer, self._special = tokenizer, special or {}
        self.text = ""
        self.ids: list[int] = []
        self.labels: list[int] = []
        self._apart = False  # whether `ids` are no longer those of `text`: a token would span two texts

    def add(self, text: str, *, learnt: bool) -> None:
        """Add a text; its tokens up to the last EOS are learnt, or all of them if it has none."""
        ids = self._following(text)
        n_learnt = len(ids) if learnt else 0
        if learnt and self.tokenizer.eos_token_id in ids:
            # The model never generates what a template writes after EOS, mostly a line break.
            n_learnt -= ids[::-1].index(self.tokenizer.eos_token_id)
        self.text += text
        self.ids += ids
        self.labels += ids[:n_learnt] + [IGNORE_INDEX] * (len(ids) - n_learnt)

    def end(self) -> bool:
        """Add an EOS to learn after what was added last, unless one is learnt there; return if it was added."""
        last = next((i for i in range(len(self.labels) - 1, -1, -1) if self.labels[i] != IGNORE_INDEX), -1)
        if last >= 0 and self.labels[last] == self.tokenizer.eos_token_id:
            return False
        self._apart = True
        self.ids.append(int(self.tokenizer.eos_token_id or 0))
        self.labels.append(self.ids[-1])
        return True

    def finished(self) -> tuple[list[int], list[int]]:
        """Ids and labels up to the last token that is learnt."""
        n = next((i for i in range(len(self.labels), 0, -1) if self.labels[i - 1] != IGNORE_INDEX), 0)
        return self.ids[:n], self.labels[:n]

    def _following(self, text: str) -> list[int]:
        for start, n_before in [] if self._apart else [self._last_special(), (0, 0)]:
            ids = self.tokenizer.encode(self.text[start:] + text, add_special_tokens=False)
            known = self.ids[n_before:]
            if ids[: len(known)] == known:
                return list(ids[len(known) :])
        self._apart = True
        # A token would span both texts. With EOS in front, the second is not encoded as the start of a text.
        return list(self.tokenizer.encode(str(self.tokenizer.eos_token) + text, add_special_tokens=False)[1:])

    def _last_special(self) -> tuple[int, int]:
        """Where the last special token begins, in the text and in the ids. What follows it is encoded by itself."""
        for index in range(len(self.ids) - 1, -1, -1):
            if self.ids[index] in self._special:
                return max(0, self.text.rfind(self._special[self.ids[index]])), index
        return 0, 0


class Tail(NamedTuple):
    """What follows a prompt: the text, and the turns that the template renders it for; None if it does not."""

    text: str
    turns: Turns | None


def assistant_tail(
    render: Callable[[Turns, bool], str],
    context: Turns,
    turn: Mapping[str, Any],
    prompt: str,
    spoken: str | None = None,
) -> Tail:
    """Return what follows ``prompt``, the rendering of ``context``, if the assistant's ``turn`` is the next one.

    Templates may change what the model said, or leave the thought open that the prompt opens. Then ``spoken`` follows
    the prompt, by default the turn's content with the thought closed, and only the end of the turn comes from the
    template. InputError if the template cannot render the turn, or drops its words or its calls of tools.
    """
    content = str(turn["content"])
    ending: str | None = None
    if content:
        marked = render([*context, {**turn, "content": RESPONSE_MARK}], False)
        before, found, after = marked.rpartition(RESPONSE_MARK)
        # White space around the response is not doubled if both the template and the response have it.
        if before.startswith(prompt) and before[len(prompt) :][-1:].isspace():
            content = content.lstrip()
        if after[:1].isspace():
            content = content.rstrip()
        ending = after if found else None
    turns = [*context, {**turn, "content": content}]
    full = render(turns, False)
    if full.startswith(prompt) and _says(full[len(prompt) :], turns[-1]):
        tail = full[len(prompt) :]
        if turn.get("tool_calls") or ending is None or not _stays_open(prompt, tail):
            return Tail(tail, turns)
    if turn.get("tool_calls") or ending is None:
        what = "calls of tools or the thought" if turn.get("tool_calls") else "words"
        raise InputError(f"chat template: it drops or changes the {what} of the assistant's turn ({content[:60]!r})")
    return Tail((_spoken(prompt, content) if spoken is None else spoken) + ending, None)


def closing_mark(prompt: str) -> str:
    """The mark that closes the thought that a prompt opens; empty if it opens none, or the mark is not known."""
    mark = opened_thought(prompt).strip()
    if "begin_of" in mark:
        return mark.replace("begin_of", "end_of")
    return f"{mark[0]}/{mark[1:]}" if mark[:1] in ("<", "[", "◁") and not mark.startswith("<|") and mark else ""


def _spoken(prompt: str, content: str) -> str:
    """What a model says after a prompt: it does not open the thought again, and closes it before it answers."""
    if _stays_open(prompt, content):
        return f"\n{closing_mark(prompt)}\n\n{content}"
    mark = opened_thought(prompt).strip() if closing_mark(prompt) else ""
    return content.removeprefix(mark).lstrip() if mark and content.startswith(mark) else content


def _stays_open(prompt: str, said: str) -> bool:
    """If what is said leaves the thought open that the prompt opens, as an answer without a thought does."""
    return closing_mark(prompt) != "" and split_thought(said, prompt).answer is None


def _says(text: str, turn: Mapping[str, Any]) -> bool:
    """If a text holds all that a turn says."""
    packed = without_space(text)
    names = (call["function"]["name"] for call in turn.get("tool_calls", ()))
    return all(without_space(words) in packed for words in (turn["content"], turn.get("reasoning_content", ""), *names))
