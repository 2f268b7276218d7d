"""Generation for many prompts of different lengths at once, with seeds and listeners for each row."""

from llm_modules.generation.engine import GenerationEngine
from llm_modules.generation.generator import Generator
from llm_modules.generation.interface import Completion, EngineName, GenerationListener, GenerationSettings, Steered
from llm_modules.generation.transformers_engine import TransformersGenerator

__all__ = [
    "Completion",
    "EngineName",
    "GenerationEngine",
    "GenerationListener",
    "GenerationSettings",
    "Generator",
    "Steered",
    "TransformersGenerator",
]
