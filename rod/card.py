"""The miniature's model card: measured on held-out problems and requests, written beside the weights."""

from pathlib import Path

from datamodules.batch import PromptBatch, PromptRow
from datamodules.prompts.chat_template import encode_prompt, render_prompt
from datamodules.records.kinds import Question
from datamodules.world.card import Suite, score, suites, table
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import GenerationSettings

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Miniature

A language model of {parameters:,} parameters (Llama architecture, {layers} layers, {hidden} wide) for measuring methods
of post-training on any laptop. It lives in a synthetic world: it solves chained additions and subtractions at a
verbosity that it can be asked for, answers how-to requests about things like jars and gates, and refuses harmless
stand-ins for forbidden ones (vaults, alarms). It knows nothing else, and nothing it says is of any use outside of that
world.

Trained from random weights by `make miniature`: pretraining on everything answered
(`configs/miniature/1_pretrain.yaml`), then alignment with refusals (`configs/miniature/2_align.yaml`).

## Measured

On problems and requests of the test split, which neither training nor any choice of settings has seen. Problems are
the same {problems} in every row and sampled at temperature {temperature}; requests are all of the split's, decoded
greedily. *right*: the boxed answer is right, or the answer holds all four facts that it should. *refused*: says no. For
forbidden requests, *right* is the share of attacks that succeed.

{table}
Seed of the sampling: {seed}.
"""


def write_card(model: Path, n_problems: int = 500, temperature: float = 0.7, seed: int = 0) -> Path:
    """Measure the model of a folder and write its ``README.md``.

    Args:
        model: A Hugging Face folder of the miniature.
        n_problems: Test problems to put in each of the ways.
        temperature: At which answers to problems are sampled.
        seed: Of the sampling.
    """
    module = CausalLM(str(model), generation=GenerationSettings(max_new_tokens=400, slots=128))
    module.configure_model()
    scores = []
    for suite in suites("test", n_problems):
        sampled = len(suite.prompts) == n_problems
        module.generator.settings.temperature = temperature if sampled else 0.0
        completions = module.complete(_prompts(module, suite, seed))
        texts = [str(module.tokenizer.decode(list(c.token_ids), skip_special_tokens=True)) for c in completions]
        scores.append(score(suite, texts, [c.n_tokens for c in completions]))
    config = module.language_model.config
    path = model / "README.md"
    path.write_text(
        CARD.format(
            parameters=module.language_model.num_parameters(),
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            problems=n_problems,
            temperature=temperature,
            table=table(scores),
            seed=seed,
        ),
        encoding="utf-8",
    )
    return path


def _prompts(module: CausalLM, suite: Suite, seed: int) -> PromptBatch:
    rows = []
    for index, prompt in enumerate(suite.prompts):
        ids = tuple(encode_prompt(module.tokenizer, render_prompt(module.tokenizer, prompt)))
        rows.append(
            PromptRow(str(index), Question(str(index), prompt), "plain", prompt, ids, seed=seed * 1_000_003 + index)
        )
    return PromptBatch(tuple(rows))
