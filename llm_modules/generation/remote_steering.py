"""Steering of rows that another process completes, vLLM's or a server's."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.architecture import check_vectors
from llm_modules.generation.interface import GenerationListener


class RemoteSteering(GenerationListener):
    """Strengths of the rows that another process completes; what `Steering` is for a model of this process."""

    def __init__(self, outline: PreTrainedModel, vectors: Tensor, positions: str) -> None:
        """Keep what to add, (layers, hidden), and where; InputError if it does not fit a model of this outline."""
        check_vectors(outline, vectors)
        self.vectors, self.positions = vectors.detach().float().cpu().contiguous(), positions
        self._strengths: list[dict[str, float]] = []

    def __enter__(self) -> "RemoteSteering":
        return self

    def __exit__(self, *_: object) -> None:
        self._strengths = []

    def set_strengths(self, strengths: Tensor) -> None:
        """Set the strengths of a batch, (rows, layers)."""
        self._strengths = [
            {str(layer): row[layer] for layer in range(len(row)) if row[layer]} for row in strengths.float().tolist()
        ]

    def of(self, row: int) -> dict[str, float]:
        """Strengths of a row by layer, without zeros."""
        return self._strengths[row]

    def message(self) -> dict[str, Any]:
        """What the workers of vLLM need to know, with a name that says it, too."""
        data = base64.b64encode(self.vectors.numpy().tobytes()).decode()
        name = hashlib.sha256(f"{self.positions} {len(self.vectors)} {data}".encode()).hexdigest()[:32]
        return {"name": name, "vectors": data, "layers": len(self.vectors), "positions": self.positions}


def remote_steering(listeners: Sequence[GenerationListener]) -> RemoteSteering | None:
    """The steering among listeners; InputError if one of them needs each forward pass."""
    for listener in listeners:
        for hook in ("before_forward", "batch_starts"):
            if getattr(type(listener), hook) is not getattr(GenerationListener, hook):
                raise InputError(
                    f"model.generation.engine: {type(listener).__name__} takes part in each forward pass, which "
                    "another process computes; use slots or transformers"
                )
    return next((listener for listener in listeners if isinstance(listener, RemoteSteering)), None)
