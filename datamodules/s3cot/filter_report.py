"""The report of a filter: how many traces it kept and dropped, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table

from datamodules.s3cot.records import CurriculumItem
from datamodules.s3cot.stages import N_BUCKETS, bucket

REASONS = {
    "not_steered": "meant to be steered, and nothing was added",
    "truncated": "stopped by the limit of new tokens",
    "no_boxed": "no answer in \\boxed{}",
    "repetition": "caught in a loop",
    "wrong": "another answer than the gold one",
    "no_gold": "no gold answer to compare with",
    "unreadable_gold": "a gold answer that is empty, or no number, letter or mathematics",
    "disagreement": "the question's traces do not all give the same answer",
    "no_initial": "the question has no trace of sample 0 at alpha = 0",
    "initial_wrong": "the question's initial trace is wrong",
    "initial_unusable": "the question's initial trace is truncated, a loop, or without answer",
    "longer_than_initial": "longer than the initial trace",
    "duplicate": "the same text as another trace of the question",
    "no_variant": "an initial trace without any variant left",
}
"""Reasons for dropping a trace. Each dropped trace has one: the first that applies."""


@dataclass(frozen=True)
class FilterReport:
    """A filter's result in numbers; rich prints it as tables.

    Attributes:
        by: The filter's name.
        traces_kept: Initial traces and variants.
        reasons: Dropped traces by reason.
        known: Kept traces that have a gold answer.
        precision: Share of ``known`` that is right; None if there are none.
        length_ratios: Kept variants by length ratio, in ten buckets from 0 to 1.
        mean_length_ratio: Mean over the kept variants.
    """

    by: str
    questions: int
    questions_kept: int
    traces: int
    traces_kept: int
    kept_share: float
    reasons: dict[str, int]
    known: int
    precision: float | None
    length_ratios: tuple[int, ...]
    mean_length_ratio: float

    def __rich__(self) -> RenderableType:
        """Return two tables: traces kept and dropped by reason, and variants by length ratio."""
        fate = Table(title=f"filter by {self.by}", title_justify="left")
        fate.add_column("traces", justify="right")
        fate.add_column("share", justify="right")
        fate.add_column("kept, or dropped because")
        right = "" if self.precision is None else f"; {self.precision:.1%} of {self.known:,} right"
        kept = f"kept, of {self.questions_kept:,} of {self.questions:,} questions{right}"
        fate.add_row(f"{self.traces_kept:,}", f"{self.kept_share:.1%}", kept, style="bold")
        for reason, count in self.reasons.items():
            fate.add_row(f"{count:,}", f"{count / self.traces:.1%}", f"{reason}: {REASONS[reason]}")
        lengths = Table(title=f"variants by Len-R, mean {self.mean_length_ratio:.2f}", title_justify="left")
        lengths.add_column("Len-R")
        lengths.add_column("variants", justify="right")
        lengths.add_column("")
        for index, count in enumerate(self.length_ratios):
            bar = "█" * round(40 * count / max(self.length_ratios))
            lengths.add_row(f"{index / N_BUCKETS:.1f}-{(index + 1) / N_BUCKETS:.1f}", f"{count:,}", bar)
        return Group(fate, lengths)


def report_of(
    by: str,
    items: Sequence[CurriculumItem],
    traces: int,
    questions: int,
    reasons: Mapping[str, int],
    right: Sequence[bool | None],
) -> FilterReport:
    """Make the report; ``right`` says for each kept trace whether its answer is the gold one (None without one)."""
    ratios = [variant.length_ratio for item in items for variant in item.variants]
    histogram = [0] * N_BUCKETS
    for ratio in ratios:
        histogram[bucket(ratio)] += 1
    known = [verdict for verdict in right if verdict is not None]
    return FilterReport(
        by=by,
        questions=questions,
        questions_kept=len(items),
        traces=traces,
        traces_kept=len(right),
        kept_share=len(right) / traces,
        reasons=dict(sorted(reasons.items(), key=lambda entry: -entry[1])),
        known=len(known),
        precision=sum(known) / len(known) if known else None,
        length_ratios=tuple(histogram),
        mean_length_ratio=sum(ratios) / len(ratios),
    )
