"""Rivals that change the prompt alone: self-reminders (Xie et al., 2023) and in-context refusals (ICD, 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.prompts.chat_template import encode_prompt, render_prompt, render_turns
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion

_PROBES = ("Apples are green.", "zebras have 7 stripes")


@dataclass(frozen=True)
class Demonstration:
    """A request and how it is answered, shown before the user's own."""

    request: str
    response: str


class PromptDefence(CausalLM):
    """A model whose user turns are put differently: with words around them, a system turn, and examples before them.

    Works on prompts of any data: what the chat template has put around the user's words is found by itself.
    """

    def __init__(
        self,
        backbone: str = "miniature",
        system_prompt: str | None = None,
        before: str = "",
        after: str = "",
        demonstrations: list[Demonstration] | None = None,
        chat_template: str | None = None,
        **model: Any,
    ) -> None:
        """Describe the model and what is put around the user's words; it is not trained here.

        Args:
            backbone: Hub id, folder, or ``miniature`` (embedded).
            system_prompt: A system turn.
            before: Put before the user's words, with a line break.
            after: Put after them.
            demonstrations: Turns before the user's.
            chat_template: The one that the data use, where that is not the tokenizer's own.
            model: As for `CausalLM`.
        """
        super().__init__(backbone=backbone, **model)
        self.system_prompt, self.before, self.after = system_prompt, before, after
        self.demonstrations = demonstrations or []
        self.chat_template = chat_template

    def generation_identity(self) -> dict[str, Any]:
        """What is put around the user's words."""
        shown = [[demonstration.request, demonstration.response] for demonstration in self.demonstrations]
        return {"system": self.system_prompt, "before": self.before, "after": self.after, "demonstrations": shown}

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """One completion for each row, of its prompt put differently."""
        return super().complete(PromptBatch(self.defend(batch.rows)))

    def defend(self, rows: Sequence[PromptRow]) -> list[PromptRow]:
        """The same rows with other prompts; what follows the prompt already, such as a prefilled answer, stays.

        Raises:
            InputError: A prompt was not made by this chat template.
        """
        head, tail = self._frame()
        defended = []
        for row in rows:
            text = row.prompt
            at = text.rfind(tail, len(head)) if tail else len(text)
            if not text.startswith(head) or at < 0:
                raise InputError(
                    f"model.chat_template: the prompt of row '{row.id}' was made by another template; give the data's"
                )
            user = "\n".join(part for part in (self.before, text[len(head) : at], self.after) if part)
            turns = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
            for shown in self.demonstrations:
                turns.append({"role": "user", "content": shown.request})
                turns.append({"role": "assistant", "content": shown.response})
            turns.append({"role": "user", "content": user})
            prompt = render_turns(self.tokenizer, turns, template=self.chat_template) + text[at + len(tail) :]
            defended.append(replace(row, prompt=prompt, token_ids=tuple(encode_prompt(self.tokenizer, prompt))))
        return defended

    def _frame(self) -> tuple[str, str]:
        """What the template puts before and after the user's words."""
        frames = set()
        for probe in _PROBES:
            text = render_prompt(self.tokenizer, probe, template=self.chat_template)
            if probe not in text:
                raise InputError("chat template: it changes the user's words, so that nothing can be put around them")
            head, _, tail = text.partition(probe)
            frames.add((head, tail))
        if len(frames) > 1:
            raise InputError("chat template: what it puts around the user's words depends on them")
        return frames.pop()
