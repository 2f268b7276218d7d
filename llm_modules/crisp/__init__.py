"""CRISP: on-policy self-distillation of short answers (arXiv 2603.05433), a baseline of S³-CoT without its sampling."""

from llm_modules.crisp.module import CRISP

__all__ = ["CRISP"]
