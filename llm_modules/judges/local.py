"""A judge model on this machine, run with transformers."""

import gc
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from datamodules.errors import InputError
from llm_modules.judges.judge import Exchange, Judge, Verdict, on_answers
from llm_modules.judges.templates import Message, Template, defuse, key_for, kind_of, load_template

if TYPE_CHECKING:  # loaded with the model, so that the other judges stay light
    from transformers import PreTrainedTokenizerBase

    from llm_modules.backbone.loading import DType
    from llm_modules.generation import Generator


class LocalJudge(Judge):
    """Asks a language model on this machine about each exchange. Decoding is greedy, so verdicts are deterministic.

    The model is loaded with the first exchanges and released by `close`.
    """

    def __init__(
        self,
        model: str,
        template: str = "harmbench",
        revision: str | None = None,
        dtype: "DType" = "auto",
        device: str = "auto",
        slots: int = 16,
        max_data_tokens: int = 1024,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        name: str = "local",
    ) -> None:
        """Choose a model; it is loaded with the first exchanges.

        Args:
            model: Hub id or folder of a causal language model with a chat template.
            template: ``harmbench`` (yes or no), ``safety`` (safe or unsafe), ``llama_guard`` (the exchange in the guard
                model's own chat template), ``strongreject`` (graded), ``xstest`` (compliance, partial refusal or
                refusal), or a text file with ``{prompt}`` and ``{completion}`` that asks for yes or no.
            revision: Branch, tag or commit on the hub.
            dtype: Type of the weights; ``auto`` keeps the checkpoint's.
            device: ``auto`` takes a GPU if there is one.
            slots: Exchanges judged together.
            max_data_tokens: The judge sees at most this many tokens of a request, and of a completion.
            attn_implementation: As in transformers.
            trust_remote_code: Run code that comes with the checkpoint.
            name: Name of the verdicts.
        """
        self.kind = kind_of(template)
        self.name, self.model, self.template, self.revision = name, model, template, revision
        self.dtype, self.device, self.slots, self.max_data_tokens = dtype, device, slots, max_data_tokens
        self.attn_implementation, self.trust_remote_code = attn_implementation, trust_remote_code
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._generator: Generator | None = None

    def check(self) -> None:
        """Read the template and the tokenizer, and check that a folder holds a model.

        InputError if one of them is missing or cannot be used.
        """
        if self.max_data_tokens < 1 or self.slots < 1:
            raise InputError(f"judge {self.name}: max_data_tokens and slots must be 1 or more")
        folder = Path(self.model)
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise InputError(f"judge {self.name}: '{folder}' has no config.json; give the folder of a model")
        self._encode(load_template(self.template).messages(Exchange("request", "answer")))

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """Judge exchanges; a reply in another form than the template asks for is a verdict with an error."""
        return on_answers(exchanges, self._judge)

    def identity(self) -> dict[str, str | int | float | bool]:
        """The judge, its model, and the checksum of its template."""
        from llm_modules.backbone.loading import model_id

        template = load_template(self.template)
        return {
            "name": self.name,
            "judge": "LocalJudge",
            "model": model_id(self.model),
            "revision": self.revision or "",
            "dtype": self.dtype,
            "template": template.name,
            "template_sha256": template.checksum,
            "max_data_tokens": self.max_data_tokens,
        }

    def close(self) -> None:
        """Release the model's memory."""
        if self._generator is None:
            return
        import torch

        self._generator = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        from datamodules.prompts.chat_template import decode_completion

        template = load_template(self.template)
        generator = self._start(template)
        tokenizer = self._load_tokenizer()
        prompts = [self._encode(template.messages(exchange)) for exchange in exchanges]
        longest = self._positions() - template.max_new_tokens
        fitting = [row for row, prompt in enumerate(prompts) if len(prompt) <= longest]
        completions = generator.generate([prompts[row] for row in fitting])
        error = f"the exchange is longer than the judge's {longest} tokens; lower max_data_tokens"
        verdicts = [Verdict(complied=None, error=error)] * len(prompts)
        for row, completion in zip(fitting, completions, strict=True):
            verdicts[row] = template.parse(decode_completion(tokenizer, completion.token_ids))
        return verdicts

    def _load_tokenizer(self) -> "PreTrainedTokenizerBase":
        from llm_modules.backbone.loading import load_tokenizer

        if self._tokenizer is None:
            try:
                self._tokenizer = load_tokenizer(self.model, self.revision, self.trust_remote_code, key="model")
            except InputError as error:
                raise InputError(f"judge {self.name}: {error}") from error
        return self._tokenizer

    def _start(self, template: Template) -> "Generator":
        import torch

        from llm_modules.backbone.device import choose_device
        from llm_modules.backbone.loading import load_model
        from llm_modules.backbone.vocabulary import end_ids, padding_id
        from llm_modules.generation import GenerationSettings, Generator

        if self._generator is None:
            try:
                model = load_model(
                    self.model,
                    revision=self.revision,
                    dtype=self.dtype,
                    attn_implementation=self.attn_implementation,
                    trust_remote_code=self.trust_remote_code,
                    key="model",
                )
            except InputError as error:
                raise InputError(f"judge {self.name}: {error}") from error
            torch.nn.Module.to(model.requires_grad_(False), choose_device(self.device))
            tokenizer = self._load_tokenizer()
            settings = GenerationSettings(max_new_tokens=template.max_new_tokens, slots=self.slots)
            self._generator = Generator(
                model, settings, pad_id=padding_id(model, tokenizer), eos_ids=end_ids(model, tokenizer, self.model)
            )
        return self._generator

    def _positions(self) -> int:
        assert self._generator is not None
        config: Any = self._generator.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 1_000_000)

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation; data are encoded without special tokens."""
        data = [part.text for message in messages for part in message.parts if part.is_data]
        key = key_for(*(message.text for message in messages))
        turns: list[dict[str, Any]] = []
        for message in messages:
            numbered = [f"@{key}@" if part.is_data else part.text for part in message.parts]
            turns.append({"role": message.role, "content": "".join(numbered)})
        pieces = re.split(f"@{key}@", self._render(turns))
        if len(pieces) != len(data) + 1:
            raise InputError(
                f"judge {self.name}: the chat template of '{self.model}' does not render each turn once; "
                "choose another template or model"
            )
        ids = self._encode_template(pieces[0])
        for text, piece in zip(data, pieces[1:], strict=True):
            ids += self._encode_data(text) + self._encode_template(piece)
        return ids

    def _render(self, turns: list[dict[str, Any]]) -> str:
        tokenizer = self._load_tokenizer()
        if not tokenizer.chat_template:
            raise InputError(f"judge {self.name}: '{self.model}' has no chat template; give a chat model")
        variants = [turns]
        if turns[0]["role"] == "system":
            # Some templates have no system turn; its text then starts the user turn.
            merged = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            variants.append([merged, *turns[2:]])
        # A guard template may want a list of typed contents instead of a string.
        variants.append([{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns])
        reason = ""
        for variant in variants:
            try:
                text = tokenizer.apply_chat_template(variant, tokenize=False, add_generation_prompt=True)
            except (TemplateError, TypeError) as error:
                reason = reason or str(error)
            else:
                return str(text)
        raise InputError(f"judge {self.name}: the chat template of '{self.model}' cannot be used: {reason}")

    def _encode_template(self, text: str) -> list[int]:
        return list(self._load_tokenizer().encode(text, add_special_tokens=False)) if text else []

    def _encode_data(self, text: str) -> list[int]:
        """Token ids of data, cut to the limit, without any added token of the vocabulary."""
        tokenizer = self._load_tokenizer()
        control = {token: number for token, number in tokenizer.get_added_vocab().items() if token.strip()}
        # `split_special_tokens` keeps special tokens from being parsed; other added tokens must be broken up first.
        text = defuse(text, list(control))
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        forbidden = set(control.values())
        return [number for number in ids if number not in forbidden][: self.max_data_tokens]
