"""Tiny MoGUs of random weights, and an independent reading of the paper's equations."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm_modules.mogu.adapters import LoRAAdapter, random_adapter, write_adapter
from llm_modules.mogu.config import RouterConfig
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.target import output_projections
from tests.architectures import ARCHITECTURES, VOCAB

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14, 15, 16, 17]]


def responders(model: PreTrainedModel) -> tuple[LoRAAdapter, LoRAAdapter]:
    """Two adapters of different ranks and scales."""
    projections = output_projections(model)
    return random_adapter(projections, r=4, alpha=8, seed=1), random_adapter(projections, r=2, alpha=6, seed=2)


def adapters(base: Path, folder: Path) -> dict[str, Any]:
    """Folders of two responders of a checkpoint, as arguments of the LightningModule."""
    projections = output_projections(AutoModelForCausalLM.from_pretrained(base))
    for seed, name in enumerate(("glad", "unwilling")):
        responder = random_adapter(projections, 2, 4, seed)
        write_adapter(responder, responder.deltas, folder / name)
    return {name: str(folder / name) for name in ("glad", "unwilling")}


def tiny_mogu(name: str = "llama", d_router: int = 8, bias: bool = False, **options: Any) -> MoGUModel:
    """Mixtures in a random model of an architecture; gates are spread over (0, 1)."""
    model = ARCHITECTURES[name]()
    if implementation := options.pop("attention", None):
        model.set_attn_implementation(implementation)
    torch.manual_seed(3)
    mogu = MoGUModel(model, *responders(model), RouterConfig(d_router=d_router, bias=bias, **options))
    for parameter in mogu.router_parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return mogu


def batch(rows: int = 3, length: int = 9) -> tuple[Tensor, Tensor]:
    """Right-padded ids and mask; the second row is shorter."""
    ids = torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = 0, 0
    return ids, mask


class PlainMoGU(torch.nn.Module):
    """An output projection as the paper's equations say it, term by term, with matrices of its own."""

    def __init__(self, base: torch.nn.Module, glad: tuple, unwilling: tuple, routers: list[list[Parameter]]) -> None:
        super().__init__()
        self.base, self.deltas = base, (glad, unwilling)
        self.routers = torch.nn.ModuleList(torch.nn.ParameterList([m.clone() for m in router]) for router in routers)
        self.gates: list[Tensor] = []

    def forward(self, h: Tensor) -> Tensor:
        self.gates = []
        total = torch.zeros(())
        for (a, b, scale), router in zip(self.deltas, self.routers, strict=True):
            u, v, w = router.parameters()
            gate = torch.sigmoid(((h @ u.T) @ v.T) @ w.T)
            responder = self.base(h) + scale * ((h @ a.T) @ b.T)
            total = total + gate * responder
            self.gates.append(gate[..., 0])
        return total


def plain_copy(name: str, mogu: MoGUModel) -> tuple[PreTrainedModel, list[PlainMoGU]]:
    """The same model with the plain reading in place of the mixtures."""
    model = ARCHITECTURES[name]()
    plain = []
    for projection in output_projections(model):
        mixture = mogu.mixtures[projection.layer]
        pair = mixture.routers.glad, mixture.routers.unwilling
        routers = [[router.get_parameter(f"{name}.weight") for name in "uvw"] for router in pair]
        glad, unwilling = (r.of(projection, "") for r in (mogu.glad, mogu.unwilling))
        module = PlainMoGU(projection.module, glad, unwilling, routers)
        setattr(projection.parent, projection.name, module)
        plain.append(module)
    return model, plain
