"""torchmetrics that count each record once, on however many ranks and however often it was seen.

Distributed samplers pad with duplicates, and a mean of the ranks' means weights records wrongly. These metrics keep a
hash of each record's id with its value, gather all records, and drop duplicates. What they compute is in
`callbacks.evaluation.statistics`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from callbacks.evaluation import statistics
from callbacks.evaluation.statistics import Statistic, hashed, numbers


class RecordMetric(Metric):
    """Keeps a row of values per record id, and computes a statistic over all of them.

    ``columns`` is the number of values per record. ``sync_on_compute=False`` is for records that are merged over ranks
    already.
    """

    full_state_update = False
    is_differentiable = False
    keys: list[Tensor]
    values: list[Tensor]

    def __init__(self, statistic: Statistic, columns: int = 1, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.statistic, self.columns = statistic, columns
        self.add_state("keys", [], dist_reduce_fx="cat")
        self.add_state("values", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Remove all records."""
        super().reset()
        # A rank without records gathers too, and needs tensors of the right shape.
        self.keys.append(torch.empty(0, 2, dtype=torch.int64, device=self.device))
        self.values.append(torch.empty(0, self.columns, dtype=torch.int64, device=self.device))

    def update(self, ids: Sequence[str], groups: Sequence[str], *columns: Sequence[float | bool | None]) -> None:
        """Add records by id, duplicates once; ``columns`` are their values, None if unknown.

        ``groups`` are their questions: samples of one question are not independent, so intervals resample groups.
        """
        if not ids:
            return
        self.keys.append(torch.tensor(hashed(ids, groups), dtype=torch.int64, device=self.device))
        # Stored as the bits of an integer: MPS has no 64-bit floats.
        rows = torch.tensor(numbers(columns), dtype=torch.float64)
        self.values.append(rows.view(torch.int64).to(self.device))

    def gathered(self) -> tuple[np.ndarray, np.ndarray]:
        """Groups (n,) and values (n, columns) of the distinct records, in an order that depends on the ids alone."""
        keys, values = dim_zero_cat(self.keys).cpu().numpy(), dim_zero_cat(self.values).cpu().contiguous()
        _, first = np.unique(keys[:, 0], return_index=True)
        return keys[first, 1], values.view(torch.float64).numpy()[first]

    def compute(self) -> dict[str, float]:
        """The statistic of the distinct records."""
        return self.statistic(*self.gathered())


class RecordRate(RecordMetric):
    """Rate of one value from 0 to 1 per record, with its 95 % interval, see `statistics.rate_of`.

    Used for accuracy, attack success, refusal, truncation and repetition. Unknown values are left out.

    Example:
        >>> metric = RecordRate()
        >>> metric.update(["a", "b", "b"], ["a", "b", "b"], [True, False, False])
        >>> metric.compute()["value"]
        0.5
    """

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(statistics.rate_of, sync_on_compute=sync_on_compute)


class TokenLengths(RecordMetric):
    """Generated tokens per completion: mean with its interval, median and 95th percentile."""

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(statistics.lengths_of, sync_on_compute=sync_on_compute)
