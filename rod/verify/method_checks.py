"""Checks of what each method does to a model: steering, mixtures, adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from peft import LoraConfig
from torch import Tensor, nn

from datamodules.errors import InputError
from llm_modules.backbone.adapters import add_adapter, load_adapter
from llm_modules.backbone.architecture import decoder_layers, hidden_size, num_layers, residual_of
from llm_modules.backbone.modes import same_trainable
from llm_modules.generation import GenerationListener, GenerationSettings
from llm_modules.mogu import MoGUModel, output_projections, random_adapter
from llm_modules.s3cot import Steering
from llm_modules.s3cot.steering import Positions
from rod.verify.model_checks import SETTINGS
from rod.verify.subject import DoesNotApplyError, Subject


def strength_of_zero(subject: Subject) -> str:
    """A row of strength 0 is generated as without steering, beside rows that are steered."""
    strengths = torch.tensor([0.0, 1.0] * (len(subject.prompts) // 2))
    with _one_stream():
        plain, steered = (_steered(subject, values) for values in (torch.zeros_like(strengths), strengths))
    if steered[::2] != plain[::2]:
        raise AssertionError("rows of strength 0 change")
    if steered[1::2] == plain[1::2]:
        raise AssertionError("a strength changes nothing")
    return f"{sum(a != b for a, b in zip(plain, steered, strict=True))} of {len(plain) // 2} steered rows change"


@contextmanager
def _one_stream() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        if "several residual streams" in str(error):
            raise DoesNotApplyError("several residual streams per token; a direction is defined for one") from error
        raise


def _steered(subject: Subject, strengths: Tensor) -> list[tuple[int, ...]]:
    generator = subject.generator(SETTINGS)
    with Steering(subject.model, 5 * _directions(subject)) as steering:
        generator.listeners.append(steering)
        steering.set_strengths(strengths)
        return [done.token_ids for done in generator.generate(subject.prompts)]


def steered_places(subject: Subject) -> str:
    """Each choice of positions adds to the rows, layers and tokens that it names, and to no other."""
    counts = []
    for positions in get_args(Positions):
        with _one_stream():
            found, expected = _count(subject, positions)
        if found != expected:
            raise AssertionError(f"'{positions}' steers {found} places of row x layer x token, not {expected}")
        counts.append(f"{positions} {found}")
    return "row x layer x token: " + ", ".join(counts)


class _Rows(GenerationListener):
    """The rows of the coming pass; where their prompts end if each pass computes them again."""

    def __init__(self) -> None:
        self.rows = torch.empty(0, dtype=torch.long)
        self.width: int | None = None

    def batch_starts(self, width: int) -> None:
        self.width = width

    def before_forward(self, rows: Tensor) -> None:
        self.rows = rows.cpu()


def _count(subject: Subject, positions: Positions) -> tuple[int, int]:
    """Places that a generation steers, counted in the layers' outputs, and places that should be steered."""
    strengths = torch.tensor([0.0, 0.5, 1.0] * (len(subject.prompts) // 3))
    watched, found, expected = _Rows(), 0, 0
    outputs: dict[int, Tensor] = {}

    def hidden(output: Any) -> Tensor:
        tensor: Tensor = residual_of(output)
        return tensor.detach()

    def before(layer: int, _module: nn.Module, _args: Any, output: Any) -> None:
        outputs[layer] = hidden(output)

    def after(layer: int, _module: nn.Module, _args: Any, output: Any) -> None:
        nonlocal found, expected
        changed = (hidden(output) != outputs.pop(layer)).any(dim=-1)
        columns = torch.arange(changed.shape[1], device=changed.device)
        # With a cache, a pass of several columns reads prompts, padded on the left.
        width = watched.width or (changed.shape[1] if changed.shape[1] > 1 else 0)
        here = {
            "all": columns >= 0,
            "prompt": columns < width,
            "last": columns == width - 1,
            "generated": columns >= width,
        }[positions]
        rows = (strengths[watched.rows] != 0).to(changed.device)[:, None] & here
        found += int((changed & rows).sum()) - int((changed & ~rows).sum())
        expected += int(rows.sum())

    settings = GenerationSettings(max_new_tokens=3, slots=3)
    generator = subject.generator(settings)
    layers = list(enumerate(decoder_layers(subject.model)))
    hooks = [layer.register_forward_hook(partial(before, number)) for number, layer in layers]
    try:
        with Steering(subject.model, _directions(subject), positions) as steering:
            steering.set_strengths(strengths)
            hooks += [layer.register_forward_hook(partial(after, number)) for number, layer in layers]
            generator.listeners += [steering, watched]
            generator.generate(subject.prompts)
    finally:
        for hook in hooks:
            hook.remove()
    return found, expected


def _directions(subject: Subject) -> Tensor:
    """Random directions as long as the embeddings of the prompts, (layers, hidden)."""
    embeddings = subject.model.get_input_embeddings()
    ids = torch.tensor(subject.prompts[0], device=subject.model.device)
    with torch.no_grad():
        scale = float(embeddings(ids).float().norm(dim=-1).mean())
    generator = torch.Generator().manual_seed(1)
    random = torch.randn(num_layers(subject.model), hidden_size(subject.model), generator=generator)
    return random / random.norm(dim=-1, keepdim=True) * max(scale, 1.0)


def mixture_off(subject: Subject) -> str:
    """A MoGU with its mixtures off, and after they are taken out, is the base."""
    model, prompt = subject.model, subject.prompts[0]
    before = subject.logits(prompt)
    if not any("attention" in type(module).__name__.lower() for module in model.modules()):
        raise DoesNotApplyError("MoGU mixes at the output of attention, and there is none")
    places = output_projections(model)
    glad, unwilling = (random_adapter(places, r=2, alpha=4, seed=seed) for seed in (0, 1))
    with same_trainable(model):
        mogu = MoGUModel(model, glad, unwilling)
        try:
            mixed = subject.logits(prompt)
            with mogu.base():
                off = subject.logits(prompt)
        finally:
            mogu.unload()
    if torch.equal(mixed, before):
        raise AssertionError("the mixtures change nothing")
    if not (torch.equal(off, before) and torch.equal(subject.logits(prompt), before)):
        raise AssertionError("logits with the mixtures off are not those of the base")
    return f"{len(places)} mixtures"


def adapter_saved_and_loaded(subject: Subject) -> str:
    """A LoRA adapter on all linear modules gives the same logits after it was saved and loaded."""
    model, prompt = subject.model, subject.prompts[0]
    before = subject.logits(prompt)
    with TemporaryDirectory() as folder, same_trainable(model):
        adapted = add_adapter(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False), "peft")
        places = sum("lora_A" in name for name, _ in adapted.named_parameters())
        try:
            expected = subject.logits(prompt)
            adapted.save_pretrained(folder)
        finally:
            adapted.unload()
        loaded = load_adapter(model, folder, str(model.name_or_path))
        try:
            found = subject.logits(prompt)
        finally:
            loaded.unload()
    if torch.equal(expected, before):
        raise AssertionError("the adapter changes nothing")
    if not torch.equal(subject.logits(prompt), before):
        raise AssertionError("the base is another after the adapter was taken off")
    return f"{places} places, {subject.require_close(found, expected, 'logits of the loaded adapter')}"


METHOD_CHECKS = (strength_of_zero, steered_places, mixture_off, adapter_saved_and_loaded)
