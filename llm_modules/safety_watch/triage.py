"""Which samples of a fine-tuning set look most like malicious requests to the model (after DataShield's idea; ours)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datamodules.errors import InputError
from datamodules.padding import pad_prompts
from llm_modules.backbone.states import capture_last_token
from llm_modules.logistic import auroc

BATCH_SIZE = 16


@dataclass(frozen=True)
class RefusalAxis:
    """The line through the mean hidden states of benign and of malicious requests in one layer.

    Attributes:
        layer: The decoder layer whose output is read.
        direction: (hidden,) unit vector from benign to malicious.
        benign: Mean projection of benign requests; malicious: of malicious ones.
        auroc: Chance that a malicious request of the held-out pairs lies further along the line than a benign one.
    """

    layer: int
    direction: Tensor
    benign: float
    malicious: float
    auroc: float

    @classmethod
    def fit(cls, malicious: Tensor, benign: Tensor) -> "RefusalAxis":
        """Fit on every other pair, and take the layer in which the other pairs are furthest apart for their spread.

        Args:
            malicious: (pairs, layers, hidden), the states at the last token of each request.
            benign: The same of the benign twins.

        Raises:
            InputError: There are fewer than four pairs.
        """
        if len(malicious) < 4:
            raise InputError(f"triage: {len(malicious)} pairs are too few; give at least four")
        means = [states[::2].mean(dim=0) for states in (malicious, benign)]
        axes = torch.nn.functional.normalize(means[0] - means[1], dim=-1)
        held_out = [(states[1::2] * axes).sum(dim=-1) for states in (malicious, benign)]
        between = held_out[0].mean(dim=0) - held_out[1].mean(dim=0)
        spread = torch.stack([projections.var(dim=0) for projections in held_out]).mean(dim=0).sqrt()
        layer = int((between / spread.clamp(min=torch.finfo(torch.float32).tiny)).argmax())
        found = [float(mean[layer] @ axes[layer]) for mean in means]
        return cls(layer, axes[layer], found[1], found[0], auroc(*(projections[:, layer] for projections in held_out)))

    def score(self, states: Tensor) -> Tensor:
        """Place of states, (n, layers, hidden), on the line: 0 at the mean of benign requests, 1 of malicious ones."""
        return (states[:, self.layer] @ self.direction - self.benign) / (self.malicious - self.benign)


def last_states(model: nn.Module, rows: Sequence[Sequence[int]], pad_id: int) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of rows of like length: their places, and the residual stream after every layer at their last tokens.

    The states are (batch, layers, hidden), float32 on the CPU.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for start in range(0, len(order), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        ids, mask = pad_prompts([rows[row] for row in chosen], pad_id)
        yield chosen, capture_last_token(model, ids.to(device), mask.to(device)).cpu()
