"""Hidden states at the last token of prompts."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llm_modules.backbone.architecture import decoder_layers, residual_of, uncompiled, unwrap


@dataclass(frozen=True)
class ContrastStates:
    """The residual stream after each decoder layer at both last tokens of pairs: (batch, layers, hidden), float32."""

    positive: Tensor
    negative: Tensor

    def to(self, device: torch.device | str) -> "ContrastStates":
        """The same states on another device; Lightning calls it to collect predictions."""
        return ContrastStates(self.positive.to(device), self.negative.to(device))


@torch.no_grad()
def capture_last_token(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The residual stream after every decoder layer at the last token of each prompt, (batch, layers, hidden) float32.

    Forward hooks read it where steering adds. ``output_hidden_states`` would differ: its first entry is the embedding,
    its last one is taken after the final norm. ``input_ids`` and ``attention_mask`` are (batch, seq), padded on either
    side; the model is in eval mode.
    """
    last = attention_mask.cumsum(dim=1).argmax(dim=1)
    rows = torch.arange(len(last), device=last.device)
    states: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        hidden = residual_of(output)
        states.append(hidden[rows.to(hidden.device), last.to(hidden.device)].float().to(last.device))

    options: dict[str, Any] = {"use_cache": False}
    accepted = inspect.signature(unwrap(model).forward).parameters
    if "position_ids" in accepted:
        options["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    if "logits_to_keep" in accepted:
        options["logits_to_keep"] = 1
    handles = [layer.register_forward_hook(keep) for layer in decoder_layers(model)]
    try:
        with uncompiled():
            model(input_ids=input_ids, attention_mask=attention_mask, **options)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(states, dim=1)
