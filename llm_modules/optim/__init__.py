"""Optimisation: modular learning rates, named parameter groups, schedules, and the Muon optimiser.

The names below are plain torch and import no Lightning.

>>> import torch
>>> from llm_modules.backbone.loading import load_model
>>> from llm_modules.optim import LearningRates, named_groups
>>> model = load_model("miniature")
>>> rates = LearningRates(modules=["layers.2-5.q"])
>>> groups = named_groups(model.named_parameters(), rates.parts(model, "miniature").of)
>>> [group["name"] for group in groups]
['rest/embeddings', 'rest/matrices', 'rest/vectors', 'robust/matrices']
>>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
"""

from llm_modules.optim.learning_rates import LearningRates, Parts
from llm_modules.optim.module_names import Module, modules_of
from llm_modules.optim.muon import MuonAdamW
from llm_modules.optim.parameter_groups import ParameterGroup, named_groups
from llm_modules.optim.robust_modules import RobustModules
from llm_modules.optim.schedules import Multiplied, WarmupConstant, WarmupCosine

__all__ = [
    "LearningRates",
    "Module",
    "Multiplied",
    "MuonAdamW",
    "ParameterGroup",
    "Parts",
    "RobustModules",
    "WarmupConstant",
    "WarmupCosine",
    "modules_of",
    "named_groups",
]
