"""What vLLM mixes into its workers, by its own extension point ``worker_extension_cls``."""

import base64
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from rod_steering import PassSteering

DIRECTIONS = 4
"""Directions that are kept at least; of others only those that rows are steered by."""


class SteeringExtension:
    """Methods that vLLM mixes into its workers; ``collective_rpc`` calls them."""

    model_runner: Any
    vllm_config: Any

    def rod_steer(self, name: str, vectors: str, layers: int, positions: str, mark: str = "") -> str:
        """Steer by vectors (layers, hidden), float32 in base64, the requests that have the returned name.

        It is ``name``, which the vectors have in common, with the ``mark`` of the first who sent them. A direction that
        was dropped and comes again has another mark: requests that were not steered meanwhile, and their keys and
        values, are not taken for steered ones.
        """
        known = self._rod()
        found = next((one for one in known if one.partition("-")[0] == name), None)
        if found is not None:
            known[found] = known.pop(found)  # the last one that was sent
            return found
        from rod_steering import PassSteering, decoder_layers, parts_of, rows_of
        from vllm.forward_context import get_forward_context

        model, full = self.model_runner.model, f"{name}-{mark}"
        device = next(model.parameters()).device
        values = torch.frombuffer(bytearray(base64.b64decode(vectors)), dtype=torch.float32).view(layers, -1)
        known[full] = PassSteering(
            decoder_layers(model, layers),
            values.to(device),
            positions,
            key=lambda: context if (context := get_forward_context()).attn_metadata is not None else None,
            parts=partial(parts_of, self.model_runner, full),
            rows=partial(rows_of, self.model_runner, full),
        )
        for one in list(known)[:-DIRECTIONS]:
            if not known[one].rows():
                known.pop(one).remove()
        return full

    def rod_steered(self, name: str, rows: list[int]) -> list[tuple[int, int, float] | None] | None:
        """`PassSteering.told` of rows; None from workers that compute a share of the same layers as another."""
        from vllm.distributed import get_tensor_model_parallel_rank

        steering = self._rod().get(name)
        found = [steering.told(row) if steering is not None else None for row in rows]
        return found if get_tensor_model_parallel_rank() == 0 else None

    def rod_about(self) -> dict[str, Any]:
        """What a client has to know before it sends rows."""
        from rod_environment import SAMPLING

        model = self.vllm_config.model_config
        return {
            "dtype": str(model.dtype).removeprefix("torch."),
            "revision": model.revision,
            "eager": bool(model.enforce_eager),
            "draws": SAMPLING in (model.logits_processors or ()),
        }

    def _rod(self) -> "dict[str, PassSteering]":
        """The steerings by name, the one that was sent last at the end."""
        if not hasattr(self, "rod"):
            self.rod: dict[str, PassSteering] = {}
        return self.rod
