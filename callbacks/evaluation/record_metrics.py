"""torchmetrics that count each record once, on however many ranks and however often it was seen.

Distributed samplers pad with duplicates, and a mean of the ranks' means weights records wrongly. These metrics keep a
hash of each record's id with its value, gather all records, and drop duplicates.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from callbacks.evaluation.metrics import aes, bootstrap_interval

UNKNOWN = float("nan")


def record_hash(text: str) -> int:
    """A signed 64-bit hash that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


class RecordMetric(Metric):
    """Keeps a row of values per record id; subclasses compute over `gathered`.

    ``columns`` is the number of values per record. ``sync_on_compute=False`` is for records that are merged over ranks
    already.
    """

    full_state_update = False
    is_differentiable = False
    keys: list[Tensor]
    values: list[Tensor]

    def __init__(self, columns: int = 1, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.columns = columns
        self.add_state("keys", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Remove all records."""
        super().reset()
        # A rank without records gathers too, and needs tensors of the right shape.
        self.keys.append(torch.empty(0, 2, dtype=torch.int64, device=self.device))
        self.values.append(torch.empty(0, self.columns, dtype=torch.int64, device=self.device))

    def add(self, ids: Sequence[str], groups: Sequence[str], *columns: Sequence[float | bool | None]) -> None:
        """Add records.

        Args:
            ids: Record ids; a duplicate counts once.
            groups: Question of each record. Intervals resample groups, since samples of one question are not
                independent.
            columns: The values; None if unknown.
        """
        if not ids:
            return
        keys = [(record_hash(i), record_hash(g)) for i, g in zip(ids, groups, strict=True)]
        rows = [[UNKNOWN if v is None else float(v) for v in row] for row in zip(*columns, strict=True)]
        self.keys.append(torch.tensor(keys, dtype=torch.int64, device=self.device))
        # Stored as the bits of an integer: MPS has no 64-bit floats.
        self.values.append(torch.tensor(rows, dtype=torch.float64).view(torch.int64).to(self.device))

    def gathered(self) -> tuple[np.ndarray, np.ndarray]:
        """Groups (n,) and values (n, columns) of the distinct records, in an order that depends on the ids alone."""
        keys, values = dim_zero_cat(self.keys).cpu().numpy(), dim_zero_cat(self.values).cpu().contiguous()
        _, first = np.unique(keys[:, 0], return_index=True)
        return keys[first, 1], values.view(torch.float64).numpy()[first]


class RecordMean(RecordMetric):
    """Mean of one value per record with its 95 % bootstrap interval over groups; a rate for values of 0 and 1.

    Used for accuracy, attack success, refusal, truncation and repetition. Unknown values are left out.

    Example:
        >>> metric = RecordMean()
        >>> metric.update(["a", "b", "b"], ["a", "b", "b"], [True, False, False])
        >>> metric.compute()["value"]
        0.5
    """

    def update(self, ids: Sequence[str], groups: Sequence[str], values: Sequence[float | bool | None]) -> None:
        """Add records, see `RecordMetric.add`."""
        self.add(ids, groups, values)

    def compute(self) -> dict[str, float]:
        """``value``, ``low``, ``high`` and ``n``, the number of known values; nan without any."""
        groups, values = self.gathered()
        known = ~np.isnan(values[:, 0])
        low, high = bootstrap_interval(values[known, 0], groups[known])
        return {"value": _mean(values[known, 0]), "low": low, "high": high, "n": int(known.sum())}


class TokenLengths(RecordMetric):
    """Generated tokens per completion: mean with its interval, median and 95th percentile."""

    def update(self, ids: Sequence[str], groups: Sequence[str], tokens: Sequence[int]) -> None:
        """Add completions, see `RecordMetric.add`."""
        self.add(ids, groups, tokens)

    def compute(self) -> dict[str, float]:
        """``value`` (mean), ``low``, ``high``, ``median``, ``p95`` and ``n``."""
        groups, values = self.gathered()
        tokens = values[:, 0]
        low, high = bootstrap_interval(tokens, groups)
        median, p95 = np.quantile(tokens, [0.5, 0.95]) if tokens.size else (UNKNOWN, UNKNOWN)
        return {
            "value": _mean(tokens),
            "low": low,
            "high": high,
            "median": float(median),
            "p95": float(p95),
            "n": int(tokens.size),
        }


class Perplexity(RecordMetric):
    """exp of the mean negative log-likelihood per token, over all tokens of all responses."""

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(columns=2, sync_on_compute=sync_on_compute)

    def update(self, ids: Sequence[str], nlls: Sequence[float], tokens: Sequence[int]) -> None:
        """Add responses: negative log-likelihoods in nats and lengths in tokens."""
        self.add(ids, ids, nlls, tokens)

    def compute(self) -> dict[str, float]:
        """``value`` and ``n``."""
        _, values = self.gathered()
        nll, tokens = values.sum(axis=0)
        return {"value": float(np.exp(nll / tokens)) if tokens else UNKNOWN, "n": len(values)}


class Agreement(RecordMetric):
    """Agreement of two judges: share of equal verdicts, and Cohen's kappa, which corrects for chance."""

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(columns=2, sync_on_compute=sync_on_compute)

    def update(self, ids: Sequence[str], first: Sequence[bool | None], second: Sequence[bool | None]) -> None:
        """Add the verdicts of both; records without a verdict of both are left out."""
        self.add(ids, ids, first, second)

    def compute(self) -> dict[str, float]:
        """``value``, ``kappa`` and ``n``."""
        _, values = self.gathered()
        values = values[~np.isnan(values).any(axis=1)]
        if not len(values):
            return {"value": UNKNOWN, "kappa": UNKNOWN, "n": 0}
        same = float((values[:, 0] == values[:, 1]).mean())
        yes = values.mean(axis=0)
        chance = float(yes.prod() + (1 - yes).prod())
        return {"value": same, "kappa": (same - chance) / (1 - chance) if chance < 1 else UNKNOWN, "n": len(values)}


class AccuracyEfficiency(RecordMetric):
    """AES (paper, evaluation) against a baseline's accuracy and tokens; see `callbacks.evaluation.metrics.aes`."""

    def __init__(self, base_accuracy: float, base_tokens: float, sync_on_compute: bool = True) -> None:
        super().__init__(columns=2, sync_on_compute=sync_on_compute)
        self.base_accuracy, self.base_tokens = base_accuracy, base_tokens

    def update(
        self, ids: Sequence[str], groups: Sequence[str], correct: Sequence[bool | None], tokens: Sequence[int]
    ) -> None:
        """Add completions, see `RecordMetric.add`."""
        self.add(ids, groups, correct, tokens)

    def compute(self) -> dict[str, float]:
        """``value`` and ``n``."""
        _, values = self.gathered()
        accuracy = _mean(values[~np.isnan(values[:, 0]), 0])
        score = aes(accuracy, _mean(values[:, 1]), self.base_accuracy, self.base_tokens)
        return {"value": score, "n": len(values)}


def _mean(column: np.ndarray) -> float:
    return float(column.mean()) if column.size else UNKNOWN
