"""MoGU as the authors' code computes it, one sequence at a time; written from its description, for `mogu.py`."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.batch import IGNORE_INDEX
from llm_modules.mogu.adapters import LoRAAdapter
from llm_modules.mogu.target import output_projections


class Published(nn.Module):
    """An output projection that computes both responders in full and each router matrix by matrix."""

    def __init__(self, base: nn.Module, glad: tuple, unwilling: tuple, in_features: int, d_router: int) -> None:
        super().__init__()
        self.base, self.deltas = base, (glad, unwilling)
        self.routers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(in_features, d_router, bias=False),
                nn.Linear(d_router, in_features, bias=False),
                nn.Linear(in_features, 1, bias=False),
            )
            for _ in range(2)
        )
        self.gates = torch.empty(0)

    def forward(self, hidden: Tensor) -> Tensor:
        """Outputs of the projection; the gates stay in an attribute, as in the published code."""
        gates = [torch.sigmoid(router(hidden)) for router in self.routers]
        self.gates = torch.cat(gates, dim=-1)
        whole = [self.base(hidden) + s * ((hidden @ a.T) @ b.T) for a, b, s in self.deltas]
        return gates[0] * whole[0] + gates[1] * whole[1]


def published(model: PreTrainedModel, glad: LoRAAdapter, unwilling: LoRAAdapter, d_router: int) -> list[Published]:
    """Put the published projections into a model."""
    model.requires_grad_(False)
    made = []
    for p in output_projections(model):
        made.append(Published(p.module, glad.of(p, ""), unwilling.of(p, ""), p.in_features, d_router))
        setattr(p.parent, p.name, made[-1])
    return made


def single_loss(model: PreTrainedModel, row: tuple[list[int], int]) -> Tensor:
    ids = torch.tensor([row[0]])
    labels = ids.clone()
    labels[:, : row[1]] = IGNORE_INDEX
    return model(input_ids=ids, labels=labels, use_cache=False).loss
