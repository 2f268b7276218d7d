"""Judges: whether a model did what it was asked. Importing them loads neither torch nor transformers."""

from llm_modules.judges.classifier import RefusalClassifier
from llm_modules.judges.judge import Exchange, Judge, JudgeKind, Verdict
from llm_modules.judges.local import LocalJudge
from llm_modules.judges.phrases import RefusalPhrases
from llm_modules.judges.server import ServerJudge

__all__ = [
    "Exchange",
    "Judge",
    "JudgeKind",
    "LocalJudge",
    "RefusalClassifier",
    "RefusalPhrases",
    "ServerJudge",
    "Verdict",
]
