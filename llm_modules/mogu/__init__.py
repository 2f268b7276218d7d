"""MoGU: a glad and an unwilling responder in one model, and routers that weigh them for every token.

The names below are plain torch and import no Lightning. The LightningModules are `llm_modules.mogu.module.MoGU` and
`llm_modules.mogu.responder.Responder`; ``import llm_modules.mogu.serving`` lets plain transformers load MoGU folders.
"""

from llm_modules.mogu.adapters import LoRAAdapter, random_adapter, read_adapter, write_adapter
from llm_modules.mogu.config import Mode, RouterConfig
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.losses import gate_penalty, responder_loss
from llm_modules.mogu.mixture import GateRecord
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.target import output_projections

__all__ = [
    "GateRecord",
    "LoRAAdapter",
    "MoGUGenerator",
    "MoGUModel",
    "Mode",
    "RouterConfig",
    "gate_penalty",
    "output_projections",
    "random_adapter",
    "read_adapter",
    "responder_loss",
    "write_adapter",
]
