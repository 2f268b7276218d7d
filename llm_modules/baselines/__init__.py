"""Published defences that the methods are compared with, on the same models and data."""

from llm_modules.baselines.conditional_steering import ConditionalSteering
from llm_modules.baselines.prompt_defence import Demonstration, PromptDefence
from llm_modules.baselines.safe_decoding import SafeDecoding, SafeDecodingGenerator, mix_distributions
from llm_modules.baselines.safelora import Projected, project

__all__ = [
    "ConditionalSteering",
    "Demonstration",
    "Projected",
    "PromptDefence",
    "SafeDecoding",
    "SafeDecodingGenerator",
    "mix_distributions",
    "project",
]
