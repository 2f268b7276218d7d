"""The output head of a model, separate from its decoder."""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_of
from llm_modules.backbone.modes import evaluation_mode

_MULTIPLIED = ("logit_scale",)
_DIVIDED = ("logits_scaling", "logits_mup_width_multiplier")
"""Keys of configurations that scale the logits."""
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "softcap")
"""Keys of configurations that cap the logits."""


class OutputHead:
    """Maps hidden states to logits: the output projection, and the scaling that some families add.

    Gemma caps its logits, Cohere multiplies, Granite divides and Inkling cuts them. ``check`` compares with the model's
    own logits and refuses a family that does something else.

    It is not an ``nn.Module``: it has no parameters of its own, and sees every wrapper of the model's modules.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        config = model.config.get_text_config()
        self.vocab_size = int(config.vocab_size)
        self.cap: float | None = next(filter(None, (getattr(config, name, None) for name in _CAPS)), None)
        multiplied, divided = (
            [float(getattr(config, name, None) or 1.0) for name in names] for names in (_MULTIPLIED, _DIVIDED)
        )
        self.scale = math.prod(multiplied) / math.prod(divided)
        self.kept: int | None = getattr(config, "unpadded_vocab_size", None)

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of the projection."""
        return list(self.model.get_output_embeddings().parameters())

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of hidden states (..., hidden)."""
        logits = self.model.get_output_embeddings()(hidden)
        if self.kept is not None:
            logits = logits[..., : self.kept]
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits

    @torch.no_grad()
    def check(self) -> None:
        """Raise ``InputError`` if decoder and head do not give the model's own logits."""
        ids = torch.arange(4, device=self.model.device)[None] % self.vocab_size
        with evaluation_mode(self.model):
            whole = self.model(input_ids=ids, use_cache=False).logits
            parts = self(decoder_of(self.model)(input_ids=ids, use_cache=False).last_hidden_state)
        if not torch.allclose(whole.float(), parts.float(), atol=1e-3, rtol=1e-3):
            kind = self.model.config.model_type
            raise InputError(
                f"model.backbone: the logits of a '{kind}' model are not its output projection of its last hidden "
                "states; this family cannot be trained here"
            )
