"""Generation for many prompts of different lengths at once, with seeds and listeners for each row."""

from llm_modules.generation.generator import Generator
from llm_modules.generation.interface import Completion, GenerationListener, GenerationSettings

__all__ = ["Completion", "GenerationListener", "GenerationSettings", "Generator"]
