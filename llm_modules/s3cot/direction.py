"""The variable-length direction: a vector per decoder layer, its origin and its file (paper, sec. VL-D)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_safetensors
from torch import Tensor

from datamodules.errors import InputError
from datamodules.writing import replacing
from llm_modules.backbone.tensor_files import CHECKSUM, read_tensors, tensors_checksum

HEADER = "direction"
"""Metadata key of the JSON header. It is the only key, because safetensors writes several in no fixed order."""


@dataclass(frozen=True, eq=False)
class Direction:
    """Mean difference of hidden states between a long and a short answer to the same questions.

    Adding it to the hidden states makes answers longer, subtracting it makes them shorter. The vectors are not
    normalised: strengths of 0.1 to 0.5 refer to their scale (paper).

    Attributes:
        vectors: (layers, hidden) float32; row l is added to the *output* of decoder layer l, counted from 0.
        model: Hub id or folder of the model that it was computed with; empty if unknown.
        revision: Commit of a hub id.
        model_type: Family, as the model's configuration names it (``llama``, ``qwen2``).
        layer_path: Path of the decoder layers in the model's ``base_model``.
        positive: Instruction of the long prompts.
        negative: Instruction of the short prompts.
        n: Number of pairs.
        anchor: First layer from which the direction is consistent; None if unknown.
        cosine: Mean cosine between single differences and their mean, by layer; empty if unknown.
        cosine_variance: Variance of that cosine over the pairs, by layer.
        notes: How it was computed, in words.
        source: The file that it was loaded from, for messages; not stored.

    Example:
        >>> direction = Direction(vectors=torch.tensor([[0.0, 1.0], [3.0, 4.0]]), model="miniature", anchor=1)
        >>> direction.layers, direction.hidden, direction.separation
        (2, 2, (1.0, 5.0))
        >>> direction.check(model_id="miniature", layers=2, hidden=2)  # raises InputError if it does not fit
    """

    vectors: Tensor
    model: str = ""
    revision: str | None = None
    model_type: str = ""
    layer_path: str = "layers"
    positive: str = ""
    negative: str = ""
    n: int = 0
    anchor: int | None = None
    cosine: tuple[float, ...] = ()
    cosine_variance: tuple[float, ...] = ()
    notes: str = ""
    source: str = field(default="direction", metadata={"stored": False})

    @property
    def layers(self) -> int:
        """Number of decoder layers."""
        return self.vectors.shape[0]

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.vectors.shape[1]

    @property
    def separation(self) -> tuple[float, ...]:
        """Distance between the two mean states, by layer: the norm of each vector."""
        return tuple(torch.linalg.vector_norm(self.vectors, dim=1).tolist())

    def save(self, path: Path) -> None:
        """Write a safetensors file with a JSON header; equal directions give equal bytes."""
        self.check()
        header: dict[str, Any] = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name != "vectors" and f.metadata.get("stored", True)
        }
        header["separation"] = self.separation
        tensors = {"vectors": self.vectors.float().cpu().contiguous()}
        header[CHECKSUM] = tensors_checksum(tensors, _dumped(header))
        data = to_safetensors(tensors, metadata={HEADER: _dumped(header)})
        with replacing(path) as file:
            file.write(data)

    @classmethod
    def load(cls, path: Path) -> "Direction":
        """Read a file of ``save``. InputError if the file is missing or damaged, or is no direction of this project."""
        try:
            tensors, texts = read_tensors(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: no direction can be read: {error}") from error
        header = texts.get(HEADER)
        if header is None or "vectors" not in tensors:
            raise InputError(
                f"{path}: no direction of this project; it holds {describe(tensors)}. Compute one with 'rod predict' "
                "and DirectionWriter, or give a tensor 'direction.N' for each layer N"
            )
        try:
            stored = json.loads(header)
            checksum = stored.pop(CHECKSUM, None)
            if checksum is not None and checksum != tensors_checksum(tensors, _dumped(stored)):
                raise InputError(f"{path}: the file is damaged (its checksum differs); copy it or compute it again")
            stored.pop("separation", None)
            stored |= {name: tuple(stored[name]) for name in ("cosine", "cosine_variance")}
            return cls(vectors=tensors["vectors"].float(), source=str(path), **stored)
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: the header of this direction is damaged: {error}") from error

    def check(
        self,
        *,
        model_id: str | None = None,
        layers: int | None = None,
        hidden: int | None = None,
        allow_other_model: bool = False,
    ) -> None:
        """Check that the vectors are finite and fit a model.

        Names are compared only if both are known. ``allow_other_model`` accepts a direction of another model, such as
        the base of a tuned one. InputError if a vector is not finite, or shape or model differ.
        """
        finite = torch.isfinite(self.vectors).all(dim=1)
        if not finite.all():
            bad = ", ".join(str(layer) for layer in (~finite).nonzero().flatten().tolist())
            raise InputError(
                f"{self.source}: the vectors of layers {bad} are not finite numbers; compute the direction again"
            )
        if (layers or self.layers, hidden or self.hidden) != (self.layers, self.hidden):
            raise InputError(
                f"{self.source}: {self.layers} layers x {self.hidden} do not fit the model '{model_id}' with "
                f"{layers} layers x {hidden}; use the direction of this model"
            )
        if model_id and self.model and model_id != self.model and not allow_other_model:
            raise InputError(
                f"{self.source}: computed with '{self.model}', but the model is '{model_id}'; use the direction of "
                "this model, or set allow_other_model if one was tuned from the other"
            )


def _dumped(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, ensure_ascii=False, allow_nan=False)


def random_like(direction: Direction, seed: int) -> Direction:
    """Return a control: in every layer an isotropic random vector with the norm of the direction's."""
    noise = torch.randn(direction.vectors.shape, generator=torch.Generator().manual_seed(seed))
    scale = torch.linalg.vector_norm(direction.vectors, dim=1) / torch.linalg.vector_norm(noise, dim=1)
    notes = f"random vectors of the same length, seed {seed}, in place of: {direction.notes}"
    return replace(direction, vectors=noise * scale[:, None], notes=notes)


def anchor_layer(cosine: tuple[float, ...], consistency: float = 0.9) -> int:
    """Return the first layer from which the direction is consistent (paper: "anchor"; this definition is ours).

    Every layer from there up to the one with the largest mean cosine has at least ``consistency`` times that cosine.

    Example:
        >>> anchor_layer((0.2, 0.3, 0.8, 0.7, 0.85, 0.4), consistency=0.8)
        2
    """
    best = max(range(len(cosine)), key=cosine.__getitem__)
    anchor = best
    while anchor > 0 and cosine[anchor - 1] >= consistency * cosine[best]:
        anchor -= 1
    return anchor


def describe(tensors: Mapping[str, Tensor]) -> str:
    """Return the first names and shapes of a file's tensors, for a message."""
    shown = [f"'{name}' {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3]]
    rest = f" and {len(tensors) - 3} more tensors" if len(tensors) > 3 else ""
    return ", ".join(shown) + rest if shown else "no tensors"
