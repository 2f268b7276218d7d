"""What every generation engine has: its settings, its listeners, the checks of its input."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.generation.interface import Completion, EngineName, GenerationListener, GenerationSettings, Steered
from llm_modules.generation.server import find_server
from llm_modules.generation.vllm_process import vllm_version

_LIBRARIES: dict[EngineName, str] = {"slots": "lightning-rod", "transformers": "transformers"}


def engine_version(engine: EngineName, settings: GenerationSettings) -> str:
    """The version of the package that generates; that of a checkout that is not installed is unknown.

    That of a server is what it says. InputError if the engine is ``vllm`` and is not installed, or ``server`` and does
    not answer.
    """
    if engine == "vllm":
        return vllm_version(settings.vllm.interpreter)
    if engine == "server":
        return find_server(settings.server).version
    try:
        return version(_LIBRARIES[engine])
    except PackageNotFoundError:
        return "unknown"


def weights_type(engine: EngineName, settings: GenerationSettings, dtype: str) -> str | None:
    """The type of the weights for records: ``dtype``, or None of a server that does not say its own."""
    return dtype if engine != "server" or find_server(settings.server).dtype else None


class GenerationEngine(ABC):
    """Completes prompts with a decoder-only model.

    Attributes:
        name: The engine's name in settings.
        settings: May be replaced between calls.
        listeners: Notified of what happens to rows. An exception of a listener ends the call.
        drawn: Random numbers of each row's stream that another engine has used before.
    """

    name: ClassVar[EngineName]

    def __init__(self, settings: GenerationSettings, *, pad_id: int, eos_ids: Collection[int]) -> None:
        """Keep the settings.

        Args:
            settings: May be replaced between calls.
            pad_id: Any token of the vocabulary; padding is masked.
            eos_ids: Tokens that end a completion; empty if only its length ends it.
        """
        self.settings = settings
        self.pad_id = pad_id
        self.eos_ids = tuple(eos_ids)
        self.listeners: list[GenerationListener] = []
        self.drawn = 0
        self.max_positions: int | None = None
        self.positions_end = False

    @property
    def description(self) -> str:
        """Name and version for records, such as ``transformers 5.23.0``."""
        return f"{self.name} {engine_version(self.name, self.settings)}"

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Complete every prompt.

        A row's completion depends on its prompt, seed and limit and on the settings, not on the other rows (except for
        the rounding of the model itself, which differs with the shape of a batch).

        Args:
            prompts: Token ids, at least one each.
            seeds: A seed per row, used when sampling; the row's index by default.
            max_new_tokens: A limit per row that overrides the setting.

        Returns:
            One completion per prompt, in the order of the prompts, without rows that fail alone (in an engine of
            another process) and that a listener sets aside.

        Raises:
            InputError: A prompt is empty or longer than the model's positions, a limit is below 1, the device has no
                memory for a single row, or rows have failed alone and no listener sets them aside.
        """
        limits = self.limits(prompts, max_new_tokens)
        return self._complete(prompts, seeds if seeds is not None else range(len(prompts)), limits)

    @abstractmethod
    def _complete(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limits: Sequence[int]
    ) -> list[Completion]:
        """Complete checked prompts; `finish` each row as soon as it is complete."""

    def read_positions(self, model: PreTrainedModel) -> None:
        """Read how long an input the model takes, and whether its positions end there."""
        self.max_positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.positions_end = any(
            isinstance(module, nn.Embedding) and (name.endswith("wpe") or "position" in name)
            for name, module in model.named_modules()
        )

    def limits(self, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int] | None) -> list[int]:
        """Check the prompts; return how many tokens each row may generate."""
        limits = list(max_new_tokens) if max_new_tokens is not None else [self.settings.max_new_tokens] * len(prompts)
        if min(limits, default=1) < 1:
            raise InputError(f"Row {limits.index(min(limits))} may generate {min(limits)} tokens: allow at least one.")
        for row, prompt in enumerate(prompts):
            if not prompt:
                raise InputError(f"Prompt {row} of the batch has no tokens: give it at least one, such as BOS.")
            if self.max_positions is not None and len(prompt) > self.max_positions:
                raise InputError(
                    f"Prompt {row} of the batch has {len(prompt)} tokens, but the model has {self.max_positions} "
                    "positions: shorten or drop it, or use a model with a longer context."
                )
            if self.max_positions is not None and self.positions_end:
                # The last token is never an input, so it needs no position.
                limits[row] = min(limits[row], self.max_positions - len(prompt) + 1)
        return limits

    def tokens_generated(self, number: int) -> None:
        """Tell the listeners that rows have got tokens."""
        for listener in self.listeners:
            listener.tokens_generated(number)

    def before_shared_prompts(self, rows: Tensor, readers: Tensor) -> None:
        """Tell the listeners that prompts are read in two passes; see `GenerationListener`."""
        for listener in self.listeners:
            listener.before_shared_prompts(rows, readers)

    def rows_begin_again(self, rows: Sequence[int]) -> None:
        """Tell the listeners that what was generated for these rows is thrown away."""
        for listener in self.listeners:
            listener.rows_begin_again(rows)

    def finish(self, row: int, token_ids: tuple[int, ...], steered: Steered | None = None) -> Completion:
        """The completion of a row, told to the listeners; ``steered`` if the engine knows it, and no listener does."""
        done = [done for listener in self.listeners if (done := listener.steered(row)) is not None]
        ends = token_ids[-1] in self.eos_ids
        completion = Completion(token_ids, "stop" if ends else "length", done[0] if done else steered)
        for listener in self.listeners:
            listener.row_finished(row, completion)
        return completion


class RemoteRows:
    """The rows of a call that another process completes: each is told to the listeners of the engine as it ends."""

    def __init__(self, engine: GenerationEngine, rows: int) -> None:
        self.engine, self.rows = engine, rows
        self.done: dict[int, Completion] = {}
        self.failed: dict[int, str] = {}

    def complete(self, row: int, token_ids: tuple[int, ...], steered: Steered | None) -> None:
        """Take a row that is complete."""
        self.done[row] = self.engine.finish(row, token_ids, steered)

    def fail(self, row: int, reason: str) -> None:
        """Take a row that has failed alone; a listener may set it aside."""
        taken = [listener.row_failed(row, reason) for listener in self.engine.listeners]
        if not any(taken):
            self.failed[row] = reason

    def in_order(self) -> list[Completion]:
        """The completions, in the order of the rows; InputError if rows have failed that no listener sets aside."""
        if self.failed:
            row = min(self.failed)
            raise InputError(
                f"{self.engine.name} could not complete {len(self.failed)} of {self.rows} rows (row {row}: "
                f"{self.failed[row]}); the others are complete"
            )
        return [self.done[row] for row in sorted(self.done)]


def refuse_prompt_learning(model: Any) -> None:
    """Raise InputError if a model's adapter puts virtual tokens before each pass."""
    config = getattr(model, "active_peft_config", None)
    if config is not None and config.is_prompt_learning:
        raise InputError(
            f"Cannot generate with an adapter of type {config.peft_type}: it puts virtual tokens before each forward "
            "pass. Use an adapter that changes weights, such as LoRA."
        )
