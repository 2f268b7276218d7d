"""Baselines that change only the prompt: self-reminders (Xie et al., 2023) and in-context refusals (ICD, 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion

_USER_TURNS = ("Apples are green.", "zebras have 7 stripes")
"""Two user turns that begin and end differently: what their prompts share is the chat template's."""

Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Demonstration:
    """A request and its answer, shown before the user's request.

    Attributes:
        request: The user's turn.
        response: The assistant's turn.
    """

    request: str
    response: str


class PromptDefence(CausalLM):
    """A base model that gets every request in a defended prompt: with words around it, a system turn, or examples.

    The chat template's text around the user's words is found by rendering two other requests.
    """

    def __init__(
        self,
        backbone: str = "miniature",
        system_prompt: str | None = None,
        before: str = "",
        after: str = "",
        demonstrations: list[Demonstration] | None = None,
        chat_template: Path | None = None,
        **model: Any,
    ) -> None:
        """Describe the model and the defence; it is not trained.

        Args:
            backbone: Hub id, folder, or ``miniature`` (embedded).
            system_prompt: A system turn.
            before: Text on a line before the user's words.
            after: Text on a line after the user's words.
            demonstrations: Turns before the user's.
            chat_template: Jinja file of the template that the data use, if that is not the tokenizer's own.
            model: As in `CausalLM`.
        """
        super().__init__(backbone=backbone, **model)
        self.system_prompt, self.before, self.after = system_prompt, before, after
        self.demonstrations = demonstrations or []
        if chat_template is not None and not chat_template.is_file():
            raise InputError(f"model.chat_template: there is no file '{chat_template}'; give the data's jinja file")
        self.chat_template = chat_template.read_text(encoding="utf-8-sig") if chat_template is not None else None

    def generation_identity(self) -> dict[str, Any]:
        """The text around the user's words."""
        shown = [[demonstration.request, demonstration.response] for demonstration in self.demonstrations]
        return {"system": self.system_prompt, "before": self.before, "after": self.after, "demonstrations": shown}

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """One completion for each row, of its defended prompt."""
        return super().complete(PromptBatch(self.defend(batch.rows)))

    def defend(self, rows: Sequence[PromptRow]) -> list[PromptRow]:
        """The same rows with defended prompts.

        InputError if a row comes after other turns, or its prompt was made by another chat template.
        """
        head, tail = self._frame
        defended = []
        for row in rows:
            if row.question.earlier:
                raise InputError(f"'{row.id}' comes after other turns, and this defence is of single requests")
            text = row.prompt
            at = text.rfind(tail, len(head)) if tail else len(text)
            if not text.startswith(head) or at < 0:
                raise InputError(
                    f"model.chat_template: the prompt of row '{row.id}' was made by another template; give the data's"
                )
            user = "\n".join(part for part in (self.before, text[len(head) : at], self.after) if part)
            prompt = self._render([*self._first_turns(), {"role": "user", "content": user}]) + text[at + len(tail) :]
            ids = self.tokenizer.encode(prompt + row.prefill, add_special_tokens=False)
            defended.append(replace(row, prompt=prompt, token_ids=tuple(ids)))
        return defended

    def _first_turns(self) -> Turns:
        turns = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        for shown in self.demonstrations:
            turns.append({"role": "user", "content": shown.request})
            turns.append({"role": "assistant", "content": shown.response})
        return turns

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """The template's text before and after the user's words."""
        frames = set()
        for words in _USER_TURNS:
            text = self._render([{"role": "user", "content": words}])
            if words not in text:
                raise InputError("model.chat_template: it changes the user's words; nothing can be put around them")
            head, _, tail = text.partition(words)
            frames.add((head, tail))
        if len(frames) > 1:
            raise InputError("model.chat_template: its text around the user's words depends on them")
        return frames.pop()

    def _render(self, turns: Turns) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                turns, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, ValueError) as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise InputError(
                f"model.chat_template: the turns of this defence ({roles}) cannot be rendered: {error}"
            ) from error
        return str(text)
