"""The engine ``transformers``: the library's own ``generate``, for any decoder-only model that it can decode."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from datamodules.errors import InputError
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.generation.engine import GenerationEngine, refuse_prompt_learning
from llm_modules.generation.interface import Completion, GenerationSettings
from llm_modules.generation.prefill import left_pad, pads_prompts, takes_cache
from llm_modules.generation.token_sampling import row_uniforms, sample_tokens


class TransformersGenerator(GenerationEngine):
    """Generates with ``model.generate``: ``slots`` rows are decoded together until the longest of them ends.

    Tokens are those of `Generator`, sampled ones too: each row draws from the stream of its seed. Only prompts of one
    length share a batch if the model does not mask padding everywhere, or takes no cache.
    """

    name = "transformers"

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
    ) -> None:
        """Prepare generation with a model; arguments as in `Generator`.

        Raises:
            InputError: The model cannot generate, or has a prompt-learning adapter.
        """
        super().__init__(settings, pad_id=pad_id, eos_ids=eos_ids)
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        refuse_prompt_learning(model)
        if base.config.is_encoder_decoder or not hasattr(base, "generate"):
            raise InputError(f"{type(base).__name__} cannot generate here: it must be a decoder-only language model")
        self.model, self._base = model, base
        self.equal_lengths = not pads_prompts(base)
        # Without one (rwkv) each pass computes whole rows: generate would pass the states and all tokens again.
        self.takes_cache = takes_cache(base.forward)
        self.read_positions(base)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def _complete(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limits: Sequence[int]
    ) -> list[Completion]:
        done: dict[int, Completion] = {}
        with torch.no_grad(), evaluation_mode(self.model), self._told(), _own_settings(self._base):
            for rows in self._batches(prompts):
                batch = _Batch(self, rows, [prompts[row] for row in rows], [limits[row] for row in rows])
                sampling = _Sampling(self.settings, batch, [seeds[row] for row in rows])
                self._run(batch, sampling)
                done |= batch.completions
        return [done[row] for row in range(len(prompts))]

    def _batches(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Rows to decode together, the longest prompts first."""
        rows: list[int] = []
        for row in sorted(range(len(prompts)), key=lambda row: -len(prompts[row])):
            other = self.equal_lengths and rows and len(prompts[rows[0]]) != len(prompts[row])
            if other or len(rows) == self.settings.slots:
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    def _run(self, batch: "_Batch", sampling: "_Sampling") -> None:
        self._rows = batch.rows
        for listener in self.listeners:
            listener.batch_starts(batch.width)
        self._base.generate(
            batch.ids,
            attention_mask=batch.mask,
            # Rows end by the criteria alone.
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max(batch.limits.tolist()),
                pad_token_id=self.pad_id,
                use_cache=self.takes_cache,
            ),
            logits_processor=LogitsProcessorList([sampling] if self.settings.temperature else []),
            stopping_criteria=StoppingCriteriaList([batch]),
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A block in which the listeners hear of each forward pass."""

        def tell(*_: Any) -> None:
            for listener in self.listeners:
                listener.before_forward(self._rows)

        hook = self._base.register_forward_pre_hook(tell)
        try:
            yield
        finally:
            hook.remove()


class _Batch(StoppingCriteria):
    """Rows that are decoded together; as a stopping criterion it reports each as it ends."""

    def __init__(
        self, engine: TransformersGenerator, rows: list[int], prompts: list[Sequence[int]], limits: list[int]
    ) -> None:
        self.engine, device = engine, engine.device
        ids, mask, _ = left_pad(prompts, engine.pad_id)
        self.ids, self.mask, self.width = ids.to(device), mask.long().to(device), ids.shape[1]
        self.rows, self.limits = torch.tensor(rows, device=device), torch.tensor(limits, device=device)
        self.ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self.ends = torch.tensor(engine.eos_ids, dtype=torch.long, device=device)
        self.completions: dict[int, Completion] = {}

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which rows have ended, (rows,) bool, after a token was appended to each."""
        generated = input_ids[:, self.width :]
        self.engine.tokens_generated(len(self.ended) - len(self.completions))
        ended = (generated[:, -1:] == self.ends).any(dim=1) | (self.limits <= generated.shape[1])
        for slot in (ended & ~self.ended).nonzero()[:, 0].tolist():
            row = int(self.rows[slot])
            self.completions[row] = self.engine.finish(row, tuple(generated[slot].tolist()))
        self.ended |= ended
        return self.ended


class _Sampling(LogitsProcessor):
    """Chooses the tokens of a batch, each row by its own random numbers, and leaves no other token possible."""

    def __init__(self, settings: GenerationSettings, batch: _Batch, seeds: Sequence[int]) -> None:
        self.settings, self.width = settings, batch.width
        limits = batch.limits.tolist() if settings.temperature else []
        drawn = [row_uniforms(seed, limit) for seed, limit in zip(seeds, limits, strict=False)]
        padded = [pad(uniforms, (0, max(limits) - len(uniforms))) for uniforms in drawn]
        self.uniforms = torch.stack(padded).to(batch.ids.device) if padded else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (rows, vocab) of 0 for the chosen tokens and -inf for all others."""
        assert self.uniforms is not None
        uniforms = self.uniforms[:, input_ids.shape[1] - self.width]
        chosen = sample_tokens(scores, uniforms, self.settings.temperature, self.settings.top_p, self.settings.top_k)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0.0)


@contextmanager
def _own_settings(model: PreTrainedModel) -> Iterator[None]:
    """A block in which a checkpoint's generation settings, such as a repetition penalty, do not count."""
    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before
