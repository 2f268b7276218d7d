"""The stages of a curriculum in numbers, and the table that is printed."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from datamodules.s3cot.stages import N_BUCKETS


@dataclass(frozen=True)
class StageRow:
    """One stage in numbers.

    ``lower`` is the lower end of its window of length ratios. Of the ``pairs`` drawn, ``distinct`` are different;
    ``available`` and ``drawn`` count by bucket of length ratios, completion tokens come from the items.
    """

    stage: int
    lower: float
    pairs: int
    distinct: int
    available: tuple[int, ...]
    drawn: tuple[int, ...]
    length_ratio: float
    system1_tokens: int
    system2_tokens: int


@rank_zero_only
def show_stages(rows: Sequence[StageRow], usable: Sequence[int], title: str) -> None:
    """Print the stages as a table; ``usable`` are the usable pairs per bucket of length ratios."""
    lengths = ", ".join(f"{b / N_BUCKETS:.1f}: {n:,}" for b, n in enumerate(usable) if n)
    table = Table(title=f"{title}\nvariants by Len-R: {lengths}", title_justify="left")
    for heading in ("stage", "Len-R", "pairs", "different", "System 1 tokens", "System 2 tokens", "mean Len-R"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row.stage),
            f"{row.lower:g} to 1",
            f"{row.pairs:,}",
            f"{row.distinct:,}",
            f"{row.system1_tokens:,}",
            f"{row.system2_tokens:,}",
            f"{row.length_ratio:.2f}",
        )
    Console().print(table)
