"""Find the user's instruction in a rendered prompt, with any chat template."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate, encode_prompt, render_prompt
from datamodules.records.turns import Turn

_PROBES = ("Apples are green.", "zebras have 7 stripes")
"""Two user turns that differ at both ends and in length. What their prompts have in common belongs to the template."""
_REMEDY = "so the instruction cannot be found in its prompts; give another data.chat_template"


@dataclass(frozen=True)
class _Frame:
    """The template's text before and after the user's words, and the token ids of the prompts of ``_PROBES``."""

    head: str
    tail: str
    probes: tuple[tuple[int, ...], ...]


class InstructionFinder:
    """Finds the user's instruction in the prompts of one chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | str | None = None) -> None:
        """Arguments as in `render_prompt`."""
        self.tokenizer, self.template = tokenizer, template
        self._frames: dict[str | None, _Frame] = {}

    def find(
        self, user: str, prompt_ids: Sequence[int], system_prompt: str | None = None, earlier: Sequence[Turn] = ()
    ) -> tuple[int, int]:
        """Return the index of the instruction's first token and that of the first token after it.

        Of a chat of several turns, the instruction is the last one of the user (ours); ``earlier`` are those before.

        Tokens that the prompt shares with the prompts of two other instructions are before or after its own. The last
        token of the prompt always counts as after it. ``prompt_ids`` are the ids of the rendered ``user``. InputError
        if the template omits or changes the instruction, or its own text depends on it.
        """
        frame = None if earlier else self._frames.get(system_prompt)
        if frame is None:
            frame = self._frame(system_prompt, earlier)
            if not earlier:  # chats differ from each other
                self._frames[system_prompt] = frame
        self._check(user, self._render(user, system_prompt, earlier), frame)
        start = min(_common(prompt_ids, probe) for probe in frame.probes)
        after = min(_common(prompt_ids[::-1], probe[::-1]) for probe in frame.probes)
        return start, max(start, min(len(prompt_ids) - after, len(prompt_ids) - 1))

    def _frame(self, system_prompt: str | None, earlier: Sequence[Turn]) -> _Frame:
        rendered = [self._render(probe, system_prompt, earlier) for probe in _PROBES]
        frames = set()
        for probe, text in zip(_PROBES, rendered, strict=True):
            if probe not in text:
                raise InputError(f"chat template: it does not keep the user's words unchanged, {_REMEDY}")
            frames.add((text.partition(probe)[0], text.rpartition(probe)[2]))
        if len(frames) > 1:
            raise InputError(f"chat template: its text around the user's words depends on them, {_REMEDY}")
        ((head, tail),) = frames
        return _Frame(head, tail, tuple(tuple(encode_prompt(self.tokenizer, text)) for text in rendered))

    def _check(self, user: str, prompt: str, frame: _Frame) -> None:
        """Check that the prompt is the frame around these words. Templates may strip white space from their ends."""
        words = user.strip()
        inside = prompt[len(frame.head) : len(prompt) - len(frame.tail)].strip()
        if not prompt.startswith(frame.head) or not prompt.endswith(frame.tail):
            raise InputError(f"chat template: its text around the words {_short(words)} depends on them, {_REMEDY}")
        # Not `inside == words`: some templates repeat the words.
        if not inside.startswith(words) or not inside.endswith(words):
            raise InputError(f"chat template: it does not keep the words {_short(words)} unchanged, {_REMEDY}")

    def _render(self, user: str, system_prompt: str | None, earlier: Sequence[Turn]) -> str:
        return render_prompt(self.tokenizer, user, system_prompt=system_prompt, earlier=earlier, template=self.template)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _short(words: str) -> str:
    return repr(words if len(words) <= 60 else words[:60] + " ...")
