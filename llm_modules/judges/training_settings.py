"""Settings of the refusal classifier's training; apart from it, so that they can be read without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training. The defaults are ours, chosen by leaving models out (`leave_one_out`).

    Attributes:
        n_ngrams: Number of n-grams with a weight; the most informative are chosen.
        min_count: Answers that must contain an n-gram.
        min_sources: Sources that must contain an n-gram; the wording of a single model does not generalise.
        l2: Weight of the L2 penalty in the loss.
        source_weight: The answers of one source and label count at most as much as this many answers.
        folds: Folds of the prompts in `leave_one_out`.
    """

    n_ngrams: int = 6_000
    min_count: int = 4
    min_sources: int = 3
    l2: float = 10.0
    source_weight: float = 200.0
    folds: int = 3
