"""Checks of what every method needs of a model: its layers, its modules, its loss and its generation."""

import torch
from torch import nn

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from datamodules.padding import pad_prompts
from llm_modules.backbone.architecture import decoder_of, num_layers
from llm_modules.backbone.head import OutputHead
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.loss import completion_loss
from llm_modules.optim.module_names import modules_of, parameters_by_module
from llm_modules.optim.parameter_groups import named_groups
from rod.verify.subject import Subject

NEW = 8
"""Tokens that are generated for each prompt."""
SETTINGS = GenerationSettings(max_new_tokens=NEW, slots=3)


def layers(subject: Subject) -> str:
    """The decoder layers are found."""
    return f"{num_layers(subject.model)} decoder layers"


def module_types(subject: Subject) -> str:
    """The modules that ML-LR tells apart are named; attention has its four."""
    found = list(dict.fromkeys(module.type for module in modules_of(subject.model)))
    missing = set() if "mixer" in found else {"q", "k", "v", "o"} - set(found)
    if missing:
        raise AssertionError(f"only {' '.join(found)}")
    pairs = [(parameter, modules) for parameter, modules in parameters_by_module(subject.model) if parameter.ndim > 1]
    named = sum(parameter.numel() for parameter, modules in pairs if modules)
    return f"{' '.join(found)}: {named / sum(parameter.numel() for parameter, _ in pairs):.1%} of the layers' matrices"


def parameter_groups(subject: Subject) -> str:
    """Every parameter is in exactly one group of the optimiser."""
    model: nn.Module = subject.model
    trained = [p for p in model.parameters() if p.requires_grad]
    named = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    groups = named_groups(named)
    grouped = [id(p) for group in groups for p in group["params"]]
    if sorted(grouped) != sorted(map(id, trained)):
        raise AssertionError(f"{len(trained)} parameters, {len(set(grouped))} of them in groups")
    return f"{len(trained)} parameters in {', '.join(group['name'] for group in groups)}"


def output_head(subject: Subject) -> str:
    """Decoder and output head give the model's logits: losses are computed without them in memory."""
    OutputHead(subject.model).check()
    return ""


@torch.no_grad()
def loss(subject: Subject) -> str:
    """The loss of a batch with padding is that of transformers."""
    ids, mask = (rows.to(subject.model.device) for rows in pad_prompts(subject.prompts[:3], subject.pad_id))
    labels = ids.masked_fill(mask == 0, IGNORE_INDEX)
    batch = SupervisedBatch(ids, labels, mask)
    own = float(completion_loss(decoder_of(subject.model), OutputHead(subject.model), batch))
    theirs = float(subject.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss)
    if not abs(own - theirs) <= 10 * subject.exact * abs(theirs):
        raise AssertionError(f"{own:.5f}, that of transformers is {theirs:.5f}")
    return f"{own:.4f}"


@torch.no_grad()
def padding(subject: Subject) -> str:
    """Padding on the right, as in training, changes no logits."""
    short, long = sorted(subject.prompts, key=len)[:: len(subject.prompts) - 1]
    ids, mask = (rows.to(subject.model.device) for rows in pad_prompts([short, long], subject.pad_id))
    found = subject.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return subject.require_close(found[0, : len(short)], subject.logits(short), "logits of a padded row")


@torch.no_grad()
def generation(subject: Subject) -> str:
    """Six prompts of different lengths in three slots give the tokens of uncached greedy decoding."""
    generator = subject.generator(SETTINGS)
    rows = [list(done.token_ids) for done in generator.generate(subject.prompts)]
    good = sum(
        len(row) == NEW and _greedy(subject, prompt, row) for prompt, row in zip(subject.prompts, rows, strict=True)
    )
    if good < len(rows):
        raise AssertionError(f"{len(rows) - good} of {len(rows)} rows are not those of uncached greedy decoding")
    if not isinstance(generator, Generator):
        return "by transformers"
    return "in slots" if generator.takes_newcomers else "in batches of one prompt length"


@torch.no_grad()
def early_end(subject: Subject) -> str:
    """A row that ends frees its slot, and the others stay as they are."""
    whole = subject.generator(SETTINGS)
    rows = [list(done.token_ids) for done in whole.generate(subject.prompts)]
    end = rows[0][2]
    ending = subject.generator(SETTINGS, eos_ids={end})
    for prompt, row, done in zip(subject.prompts, rows, ending.generate(subject.prompts), strict=True):
        found, expected = list(done.token_ids), row[: row.index(end) + 1] if end in row else row
        ends = found.index(end) + 1 if end in found else NEW
        # Rows of other batches may be rounded otherwise.
        if found != expected and not (len(found) == ends and _greedy(subject, prompt, found)):
            raise AssertionError(f"a row has {len(found)} tokens and should have {len(expected)}")
    return f"{sum(end in row for row in rows)} of {len(rows)} rows end early"


def _greedy(subject: Subject, prompt: list[int], tokens: list[int]) -> bool:
    """Whether each token has the largest logit after those before it, up to rounding."""
    logits = subject.logits([*prompt, *tokens])[len(prompt) - 1 : -1]
    chosen = logits.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    tolerance = subject.exact * (logits.max() - logits.min())
    return bool((chosen >= logits.max(dim=-1).values - tolerance).all())


MODEL_CHECKS = (layers, module_types, parameter_groups, output_head, loss, padding, generation, early_end)
