"""Make predictions from generated rows, and show samples of them in loggers."""

from collections.abc import Sequence

from lightning.pytorch import Trainer

from callbacks.trainer_parts import log_table
from datamodules.batch import PromptRow
from datamodules.prompts.chat_template import decode_completion
from datamodules.suites.predictions import Prediction
from datamodules.suites.token_places import with_token_places
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion

SHOWN = 32
"""Predictions in a logger's table of samples; each table is a full snapshot, so it stays short."""
_COLUMNS = ["id", "question", "gold", "answer", "correct", "n_tokens", "completion"]


def prediction_of(module: CausalLM, row: PromptRow, completion: Completion) -> Prediction:
    """The prediction of a generated row, not yet checked or judged."""
    ids = completion.token_ids
    made = Prediction(
        id=row.id,
        completion=decode_completion(module.tokenizer, ids),
        question_id=row.question.id,
        question=row.question.asked,
        gold=row.question.gold,
        suite=row.suite,
        system=row.system,
        attack_template=row.attack_template,
        sample=row.sample,
        seed=row.seed,
        prompt=row.prompt,
        prefill=row.prefill,
        chat_template_kwargs=row.chat_template_kwargs,
        finish_reason=completion.finish_reason,
        model=module.model_id,
        engine=module.generator.description,
        **completion.steered_fields,
    )
    return with_token_places(
        made, completion.n_tokens, lambda count: len(decode_completion(module.tokenizer, ids[:count]))
    )


def log_samples(trainer: Trainer, key: str, predictions: Sequence[Prediction]) -> None:
    """Log the first predictions as a table to every logger that takes tables."""
    rows = [[getattr(prediction, column) for column in _COLUMNS] for prediction in predictions[:SHOWN]]
    log_table(trainer, key, _COLUMNS, rows)
