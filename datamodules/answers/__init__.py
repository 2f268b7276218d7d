"""Extract answers from completions and compare them with gold answers."""

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.places import extract_boxed
from datamodules.answers.rule import AnswerRule

__all__ = ["AnswerChecker", "AnswerRule", "extract_boxed"]
