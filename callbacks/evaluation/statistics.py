"""Numbers over records, with intervals over groups of records that are not independent. Needs no torch."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from callbacks.evaluation.metrics import aes, bootstrap_interval, rate_interval

UNKNOWN = float("nan")

Statistic = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""Groups (n,) and values (n, columns) of distinct records -> numbers by name."""


def record_hash(text: str) -> int:
    """A signed 64-bit hash that is the same in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def hashed(ids: Sequence[str], groups: Sequence[str]) -> list[tuple[int, int]]:
    """The hashes of each record's id and group."""
    return [(record_hash(i), record_hash(g)) for i, g in zip(ids, groups, strict=True)]


def numbers(columns: Sequence[Sequence[float | bool | None]]) -> list[list[float]]:
    """The columns as rows of numbers; nan for None."""
    return [[UNKNOWN if v is None else float(v) for v in row] for row in zip(*columns, strict=True)]


class Records:
    """Values by record id, of one process; `callbacks.evaluation.record_metrics` gathers those of several.

    Example:
        >>> records = Records(rate_of)
        >>> records.update(["a", "b", "b"], ["a", "b", "b"], [True, False, False])
        >>> records.compute()["value"]
        0.5
    """

    def __init__(self, statistic: Statistic) -> None:
        self.statistic = statistic
        self._keys: list[tuple[int, int]] = []
        self._values: list[list[float]] = []

    def update(self, ids: Sequence[str], groups: Sequence[str], *columns: Sequence[float | bool | None]) -> None:
        """Add records: their ids (a duplicate counts once), their groups, and their values (None if unknown)."""
        self._keys += hashed(ids, groups)
        self._values += numbers(columns)

    def compute(self) -> dict[str, float]:
        """The statistic of the distinct records, in an order that depends on their ids alone."""
        keys = np.array(self._keys, dtype=np.int64).reshape(-1, 2)
        _, first = np.unique(keys[:, 0], return_index=True)
        return self.statistic(keys[first, 1], np.array(self._values, dtype=np.float64)[first])


def mean_of(groups: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """``value``, the mean of the known values, its 95 % interval ``low``, ``high``, and ``n``."""
    return _mean_of(groups, values)


def rate_of(groups: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Like `mean_of`, of values from 0 to 1; the interval is Wilson's if they are 0 and 1."""
    return _mean_of(groups, values, (0.0, 1.0))


def _mean_of(groups: np.ndarray, values: np.ndarray, bounds: tuple[float, float] | None = None) -> dict[str, float]:
    known = ~np.isnan(values[:, 0])
    column = values[known, 0]
    is_rate = bounds == (0, 1) and np.isin(column, (0, 1)).all()
    low, high = (
        rate_interval(column, groups[known]) if is_rate else bootstrap_interval(column, groups[known], bounds=bounds)
    )
    return {"value": mean(column), "low": low, "high": high, "n": int(known.sum())}


def lengths_of(groups: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Like `mean_of`, with ``median`` and ``p95``, the 95th percentile."""
    found = mean_of(groups, values)
    known = values[~np.isnan(values[:, 0]), 0]
    median, p95 = np.quantile(known, [0.5, 0.95]) if known.size else (UNKNOWN, UNKNOWN)
    return found | {"median": float(median), "p95": float(p95)}


def counted_of(groups: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Like `mean_of`; ``exact`` is the share of values that were counted, not estimated (second column)."""
    return mean_of(groups, values) | {"exact": mean(values[:, 1])}


def perplexity_of(groups: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """The exponential of the mean negative log-likelihood per token; the columns are nats and tokens of a response."""
    nll, tokens = values.sum(axis=0)
    return {"value": float(np.exp(nll / tokens)) if tokens else UNKNOWN, "n": len(values)}


def agreement_of(groups: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Agreement of two verdicts (0 or 1): share of equal ones, and Cohen's kappa, which corrects for chance.

    Records without one of the verdicts are left out.
    """
    values = values[~np.isnan(values).any(axis=1)]
    if not len(values):
        return {"value": UNKNOWN, "kappa": UNKNOWN, "n": 0}
    same = float((values[:, 0] == values[:, 1]).mean())
    yes = values.mean(axis=0)
    chance = float(yes.prod() + (1 - yes).prod())
    return {"value": same, "kappa": (same - chance) / (1 - chance) if chance < 1 else UNKNOWN, "n": len(values)}


def efficiency_of(base_accuracy: float, base_tokens: float) -> Statistic:
    """AES (paper, evaluation) against a base; the columns are right (0 or 1) and tokens of a completion."""
    return partial(_efficiency, base_accuracy, base_tokens)


def _efficiency(base_accuracy: float, base_tokens: float, groups: np.ndarray, values: np.ndarray) -> dict[str, float]:
    accuracy = mean(values[~np.isnan(values[:, 0]), 0])
    return {"value": aes(accuracy, mean(values[:, 1]), base_accuracy, base_tokens), "n": len(values)}


def mean(column: np.ndarray) -> float:
    """The mean; nan of nothing."""
    return float(column.mean()) if column.size else UNKNOWN
