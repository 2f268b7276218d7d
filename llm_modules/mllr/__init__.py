"""ML-LR (arXiv 2410.04524): find the modules that a fine-tune can change safely, and train those at the full rate.

The names below are plain torch and import no Lightning; learning rates by module are in `llm_modules.optim`. The
LightningModule is `llm_modules.mllr.module.MLLR`.

>>> from llm_modules.backbone.loading import load_model
>>> from llm_modules.mllr import CachedForward, Meter, Module, Perturbation, SecurityProbe
>>> import torch
>>> model = load_model("miniature").eval()
>>> prompts = [[5, 6, 7], [8, 9], [10, 11, 12], [13, 14]]  # token ids: two malicious prompts, two benign ones
>>> labels = torch.tensor([1, 1, 0, 0])
>>> forward = CachedForward(model, {"all": prompts})
>>> probe = SecurityProbe.fit(forward.features("all", forward.clean), labels)
>>> meter = Meter(forward, Perturbation(model, "scale", eps=0.9), probe, {"all": labels})
>>> found = meter.measure([Module(layer=0, type="down")], seed=0, part="all")
>>> found.drops["margin"] > 1  # the probe's margin on malicious prompts is gone
True
"""

from llm_modules.mllr.cached_forward import CachedForward
from llm_modules.mllr.investigation import Investigation, ProxySettings, investigate
from llm_modules.mllr.perturb import Perturbation
from llm_modules.mllr.probe import BENIGN, MALICIOUS, Scores, SecurityProbe
from llm_modules.mllr.robustness import Measurement, Meter, mean_drops, robustness_map
from llm_modules.mllr.search import Found, Search, SearchSettings, overlap
from llm_modules.mllr.swap import Swap, SwapRow, swap_both_ways
from llm_modules.optim.module_names import Module

__all__ = [
    "BENIGN",
    "MALICIOUS",
    "CachedForward",
    "Found",
    "Investigation",
    "Measurement",
    "Meter",
    "Module",
    "Perturbation",
    "ProxySettings",
    "Scores",
    "Search",
    "SearchSettings",
    "SecurityProbe",
    "Swap",
    "SwapRow",
    "investigate",
    "mean_drops",
    "overlap",
    "robustness_map",
    "swap_both_ways",
]
