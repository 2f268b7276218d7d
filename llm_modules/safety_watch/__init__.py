"""Refusals of a model, watched while it is tuned; plain torch, for any training loop."""

from llm_modules.safety_watch.safety_check import (
    REQUESTS,
    SafetyCheck,
    SafetyRates,
    WatchedRequest,
    read_requests,
)

__all__ = ["REQUESTS", "SafetyCheck", "SafetyRates", "WatchedRequest", "read_requests"]
