"""Train the refusal classifier, and estimate its agreement on models that it has not seen."""

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from datamodules.errors import InputError
from llm_modules.judges.classifier import NGram, RefusalModel
from llm_modules.judges.features import SHAPE, ngrams, read
from llm_modules.judges.labelled_answers import LabelledAnswer
from llm_modules.judges.training_settings import TrainingSettings
from llm_modules.logistic import fit_logistic


@dataclass(frozen=True)
class LeftOut:
    """A source that was left out of training, with the classifier's predictions for it.

    ``refusal`` is the probability of refusal of each answer by a classifier trained without the source's family,
    ``refusal_kin`` by one that was trained with the rest of the family.
    """

    source: str
    answers: tuple[LabelledAnswer, ...]
    refusal: tuple[float, ...]
    refusal_kin: tuple[float, ...]


def train(answers: Sequence[LabelledAnswer], settings: TrainingSettings, about: dict[str, object]) -> RefusalModel:
    """Fit the classifier. The same answers in the same order give the same model.

    InputError if the answers are all refusals, or none is.
    """
    if len({answer.refused for answer in answers}) < 2:
        raise InputError("data: there must be answers that refuse and answers that do not")
    chosen = _choose(answers, settings)
    # A model with zero weights serves to find the n-grams in the answers.
    finder = RefusalModel(chosen, np.zeros(len(chosen) + len(SHAPE), dtype=np.float32), 0.0, {})
    inputs = torch.zeros(len(answers), len(chosen) + len(SHAPE))
    for row, answer in enumerate(answers):
        reading = read(answer.completion, answer.prompt)
        inputs[row, sorted(finder.entries(reading))] = 1.0
        inputs[row, len(chosen) :] = torch.tensor(reading.shape)
    labels = torch.tensor([float(answer.refused) for answer in answers])
    weights = _balanced(answers, settings.source_weight)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return (weights * binary_cross_entropy_with_logits(logits, labels, reduction="none")).sum()

    coefficients, bias = fit_logistic(
        inputs, labels, loss, settings.l2 / 2, max_iter=100, tolerance_grad=1e-4, tolerance_change=1e-6
    )
    return RefusalModel(chosen, coefficients.numpy().astype(np.float32), float(bias), about)


def leave_one_out(
    answers: Sequence[LabelledAnswer],
    held_out: Sequence[str],
    settings: TrainingSettings,
    progress: Callable[[str], None] = lambda source: None,
) -> list[LeftOut]:
    """Judge each source by classifiers that know neither the model nor the prompts.

    The prompts of a source are split into folds. The answers to a fold are judged by a classifier trained without the
    source, without the other sources of its family, and without any answer to the fold's prompts. They are judged a
    second time by a classifier that was trained with the rest of the family. ``progress`` is called with each source.
    """
    found = []
    for source in held_out:
        progress(source)
        own = tuple(answer for answer in answers if answer.source == source)
        strangers = [answer for answer in answers if answer.family != own[0].family]
        kin = [answer for answer in answers if answer.source != source]
        found.append(LeftOut(source, own, _across(own, strangers, settings), _across(own, kin, settings)))
    return found


def _across(
    own: Sequence[LabelledAnswer], others: Sequence[LabelledAnswer], settings: TrainingSettings
) -> tuple[float, ...]:
    """Probability of refusal of each own answer, by classifiers trained on the others' answers to other prompts."""
    refusal: dict[int, float] = {}
    for fold in range(settings.folds):
        model = train([answer for answer in others if _fold(answer.prompt, settings.folds) != fold], settings, {})
        for row, answer in enumerate(own):
            if _fold(answer.prompt, settings.folds) == fold:
                refusal[row] = model.refusal(answer.prompt, answer.completion)
    return tuple(refusal[row] for row in range(len(own)))


def _fold(prompt: str, folds: int) -> int:
    return zlib.crc32(prompt.strip().encode()) % folds


@lru_cache(maxsize=50_000)
def _features(completion: str, prompt: str) -> frozenset[NGram]:
    """All n-grams of an answer, both with their part and with part -1 (any)."""
    found = set(ngrams(read(completion, prompt)))
    return frozenset(found | {(-1, tokens) for _, tokens in found})


def _choose(answers: Sequence[LabelledAnswer], settings: TrainingSettings) -> list[NGram]:
    """The most informative n-grams, scored by their log odds ratio times the square root of their frequency."""
    counts: tuple[Counter[NGram], Counter[NGram]] = (Counter(), Counter())
    sources: dict[NGram, set[str]] = defaultdict(set)
    for answer in answers:
        found = _features(answer.completion, answer.prompt)
        counts[answer.refused].update(found)
        for ngram in found:
            sources[ngram].add(answer.source)
    n_refused = sum(answer.refused for answer in answers)
    n_other = len(answers) - n_refused
    scores = []
    for ngram, where in sources.items():
        other, refused = counts[False][ngram], counts[True][ngram]
        if len(where) >= settings.min_sources and other + refused >= settings.min_count:
            ratio = (refused + 0.5) / (n_refused + 1) / ((other + 0.5) / (n_other + 1))
            scores.append((abs(math.log(ratio)) * math.sqrt(min(other + refused, 400)), ngram))
    scores.sort(key=lambda pair: (-pair[0], pair[1]))
    return sorted(ngram for _, ngram in scores[: settings.n_ngrams])


def _balanced(answers: Sequence[LabelledAnswer], source_weight: float) -> Tensor:
    """Weights of the answers: large sources are damped, and refusals weigh as much in total as all others."""
    sizes = Counter((answer.source, answer.refused) for answer in answers)
    weights = torch.tensor(
        [answer.weight * min(1.0, source_weight / sizes[answer.source, answer.refused]) for answer in answers]
    )
    refused = torch.tensor([answer.refused for answer in answers])
    half = weights.sum() / 2
    return torch.where(refused, weights * half / weights[refused].sum(), weights * half / weights[~refused].sum())
