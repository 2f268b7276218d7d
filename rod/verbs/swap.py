"""``rod swap``: find the modules that carry a model's refusals by swapping them between two models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.completions.refusals import REFUSAL, is_refusal

if TYPE_CHECKING:
    import re

    from torch import nn

    from datamodules.prompts import ChatTemplate
    from datamodules.records import Question
    from llm_modules.causal_lm import CausalLM


def run(
    tuned: str,
    aligned: str,
    requests: Path,
    output: Path,
    limit: int = 100,
    max_new_tokens: int = 32,
    refusal: str = REFUSAL,
    field: str = "prompt",
    chat_template: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Swap modules between a fine-tuned model and the aligned model it was made from, and count refusals.

    Modules are swapped one type or one layer at a time, in both directions. If modules carry the refusals, restoring
    them in the fine-tuned model brings its refusals back, and putting the fine-tuned ones into the aligned model loses
    them. Writes a CSV table: the modules, the share of requests refused in both directions, and the relative change
    of the modules.

    Args:
        tuned: Folder of the fine-tuned model.
        aligned: The model that it was made from: hub id, folder or miniature.
        requests: JSONL file of requests that the aligned model refuses.
        output: The CSV file to write.
        limit: Number of requests, drawn at random.
        max_new_tokens: Length of an answer. A refusal shows in its first words; a model that thinks first needs more.
        refusal: Regular expression that matches a refusal, in upper or lower case, in the answer after a thought.
        field: Name of the request's field in the file.
        chat_template: ``plain`` or a jinja file, instead of the tokenizer's own template.
        chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
        seed: Seed of the draw.
        overwrite: Overwrite an existing file.
    """
    import csv
    import random
    import re

    from rich.console import Console

    from datamodules.errors import InputError
    from datamodules.prompts import ChatTemplate
    from datamodules.records import read_questions
    from llm_modules.mllr.swap import swap_both_ways
    from rod.files import require_new

    require_new([output], overwrite)
    try:
        pattern = re.compile(refusal, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"--refusal: not a regular expression: {error}") from error
    questions = read_questions(requests, fields={"question": field}, key="--field")
    template = ChatTemplate(chat_template, chat_template_kwargs or {}).of("plain")
    questions = random.Random(seed).sample(questions, min(limit, len(questions)))
    modules = [_load(name, aligned, max_new_tokens) for name in (tuned, aligned)]
    models = [module.language_model for module in modules]
    rows = list(swap_both_ways(models[0], models[1], _refusals(modules, questions, pattern, template)))
    console = Console()
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["swapped", "refused_tuned_restored", "refused_aligned_tuned", "relative_change", "n"])
        for row in rows:
            numbers = (row.tuned_restored, row.aligned_tuned, row.relative_change)
            writer.writerow([row.swapped, *(f"{number:.4f}" for number in numbers), len(questions)])
            told = f"tuned, restored {row.tuned_restored:.2f}; aligned, tuned {row.aligned_tuned:.2f}"
            console.print(f"{row.swapped:>12}: {told}", highlight=False)
    console.print(f"wrote {output}", highlight=False, soft_wrap=True)


def _load(name: str, tokenizer: str, max_new_tokens: int) -> "CausalLM":
    from llm_modules.causal_lm import CausalLM
    from llm_modules.generation import GenerationSettings

    settings = GenerationSettings(max_new_tokens=max_new_tokens, slots=128)
    module = CausalLM(name, tokenizer=tokenizer, dtype="auto", generation=settings)
    module.configure_model()
    return module


def _refusals(
    modules: "Sequence[CausalLM]", questions: "Sequence[Question]", pattern: "re.Pattern[str]", template: "ChatTemplate"
) -> "Callable[[nn.Module], float]":
    """Return a function that measures the share of questions that the language model of one of the modules refuses."""
    from datamodules.completions.thoughts import split_thought
    from datamodules.errors import InputError
    from datamodules.prompts import decode_completion, encode_prompt, render_prompt

    tokenizer = modules[0].tokenizer
    rendered = [render_prompt(tokenizer, q.question, earlier=q.earlier, template=template) for q in questions]
    ids = [encode_prompt(tokenizer, prompt) for prompt in rendered]

    def share(model: "nn.Module") -> float:
        (module,) = (module for module in modules if module.language_model is model)
        done = module.generator.generate(ids)
        texts = [decode_completion(tokenizer, c.token_ids) for c in done]
        asked = list(zip(texts, rendered, strict=True))
        if all(split_thought(text, prompt).answer is None for text, prompt in asked):
            raise InputError("--max_new_tokens: no answer gets beyond its thought; allow more tokens")
        return sum(is_refusal(text, pattern, prompt) for text, prompt in asked) / len(texts)

    return share
