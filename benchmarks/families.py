"""What works for every decoder-only family that transformers has, on tiny random models.

    python benchmarks/families.py
    python benchmarks/families.py qwen3_5_text lfm2

Each family's default configuration is shrunk to a model with one decoder layer of each kind. It *trains* if the loss of
transformers can be differentiated; otherwise the shrunk configuration is at fault, and the family is not counted.
Then it is tried whether

- its decoder *layers* are found;
- its module *types* are named, for ML-LR;
- the decoder and the output *head* give the model's logits;
- six prompts of different lengths *generate*, in three slots, the tokens of uncached greedy decoding of each alone;
- *steering* changes the rows that have a strength and leaves the tokens of the others.

Prints the families with a failure and its reason, then the counts. On two cores it takes some minutes.
"""

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PreTrainedModel
from transformers.utils import logging

from llm_modules.backbone.architecture import num_layers
from llm_modules.backbone.head import OutputHead
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.optim.module_names import modules_of
from llm_modules.s3cot import Steering
from tests.families import HIDDEN, families, tiny_model

NEW = 8
END = 7
PROMPTS = [torch.arange(5, 5 + n).mul(7).remainder(90).tolist() for n in (4, 9, 5, 9, 12, 6)]
SETTINGS = GenerationSettings(max_new_tokens=NEW, slots=3)


def trains(model: PreTrainedModel) -> str:
    """The loss of transformers and its gradient."""
    ids = torch.tensor([PROMPTS[1], PROMPTS[3]])
    model.train()(input_ids=ids, labels=ids).loss.backward()
    model.eval()
    return ""


def layers(model: PreTrainedModel) -> str:
    """The decoder layers are found."""
    return f"{num_layers(model)}"


def types(model: PreTrainedModel) -> str:
    """The module types; a family of attention must have its four."""
    found = list(dict.fromkeys(module.type for module in modules_of(model)))
    missing = set() if "mixer" in found else {"q", "k", "v", "o"} - set(found)
    if missing:
        raise AssertionError(f"only {' '.join(found)}")
    return " ".join(found)


def head(model: PreTrainedModel) -> str:
    """Decoder and head give the logits."""
    OutputHead(model).check()
    return ""


@torch.no_grad()
def generates(model: PreTrainedModel) -> str:
    """Tokens in slots are those of uncached greedy decoding."""
    generator = Generator(model, SETTINGS, pad_id=0, eos_ids={END})
    found = [done.token_ids for done in generator.generate(PROMPTS)]
    differ = sum(own != greedy(model, prompt) for own, prompt in zip(found, PROMPTS, strict=True))
    if differ:
        raise AssertionError(f"{differ} of {len(PROMPTS)} rows are not those of uncached greedy decoding")
    return "slots" if generator.takes_newcomers else "batches"


def greedy(model: PreTrainedModel, prompt: list[int]) -> tuple[int, ...]:
    """Each token from a pass over all tokens before it, one row, no cache."""
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW and (len(ids) == len(prompt) or ids[-1] != END):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@torch.no_grad()
def steers(model: PreTrainedModel) -> str:
    """A strength changes its row and no other."""
    vectors = 20 * torch.randn(num_layers(model), HIDDEN, generator=torch.Generator().manual_seed(1))
    found = []
    for strength in (0.0, 1.0):
        generator = Generator(model, SETTINGS, pad_id=0, eos_ids=())
        with Steering(model, vectors) as steering:
            generator.listeners.append(steering)
            steering.set_strengths(torch.tensor([0.0, strength] * 3))
            found.append([done.token_ids for done in generator.generate(PROMPTS)])
    plain, steered = found
    if steered[::2] != plain[::2]:
        raise AssertionError("rows of strength 0 change")
    if steered[1::2] == plain[1::2]:
        raise AssertionError("a strength changes nothing")
    return ""


CHECKS: tuple[Callable[[PreTrainedModel], str], ...] = (layers, types, head, generates, steers)


def attempt(check: Callable[[PreTrainedModel], str], model: PreTrainedModel) -> tuple[bool, str]:
    """Whether a check passes, and what it says; any exception is a failure of the family."""
    try:
        return True, check(model)
    except Exception as error:
        return False, (str(error).strip().splitlines() or [""])[0] or type(error).__name__


def main() -> None:
    """Check the families that are named, or all."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("family", "check", "reason", title="Failures")
    unsound: dict[str, str] = {}
    passed = dict.fromkeys((check.__name__ for check in CHECKS), 0)
    sound, whole, batches = 0, 0, []
    for family in track(sys.argv[1:] or families(), "families", console=Console(stderr=True)):
        try:
            model = tiny_model(family)
        except Exception as error:
            unsound[family] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        fine, reason = attempt(trains, model)
        if not fine:
            unsound[family] = reason
            continue
        sound += 1
        results = {check.__name__: attempt(check, model) for check in CHECKS}
        for name, (fine, said) in results.items():
            passed[name] += fine
            if not fine:
                table.add_row(family, name, said)
            elif said == "batches":
                batches.append(family)
        whole += all(fine for fine, _ in results.values())
    console.print(table)
    console.print(f"in batches of one prompt length: {', '.join(batches) or 'none'}", highlight=False)
    for family, reason in unsound.items():
        console.print(f"no sound tiny configuration: {family}: {reason}", highlight=False, markup=False)
    counts = ", ".join(f"{name} {count}" for name, count in passed.items())
    console.print(f"{sound} families: all checks {whole}; {counts}", highlight=False)


if __name__ == "__main__":
    main()
