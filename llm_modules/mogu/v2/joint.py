"""The joint stage of MoGUv2, reconstructed: an adapter of the backbone is trained with the routers.

Only the abstract of the follow-up is public ("backbone modules train jointly with the routers"). Our reading: a LoRA
adapter on modules that hold no mixture, with a lower rate, and a KL term that holds the model near the untouched base
on the responses to benign requests.
"""

from collections.abc import Callable

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from torch.utils.checkpoint import checkpoint

from datamodules.errors import InputError
from llm_modules import loss as loss_module
from llm_modules.mogu.mixed_model import MixedModel


def train_jointly(adapted: PeftModel, mogu: MixedModel) -> None:
    """Unfreeze the backbone's adapter, which the mixtures have frozen with the rest of the model.

    InputError if it trains weights of the base, or adapts a projection with a mixture: its files would not load.
    """
    config = adapted.peft_config[adapted.active_adapter]
    for option in ("modules_to_save", "trainable_token_indices", "bias"):
        if getattr(config, option, None) not in (None, "none", []):
            raise InputError(f"model.backbone_peft.{option}: the base itself would be changed; leave it out")
    inside = [f"{p.path}.base" for p in mogu.projections]
    for name, parameter in adapted.get_base_model().named_parameters():
        if str(adapted.base_model.prefix) in name:
            if any(name.startswith(path) for path in inside):
                raise InputError(
                    f"model.backbone_peft: it adapts {name.split('.base.')[0]}, which holds a mixture; "
                    "name other target_modules"
                )
            parameter.requires_grad_(True)


def token_kl(hidden: Tensor, base_hidden: Tensor, head: Callable[[Tensor], Tensor], vocab_size: int) -> Tensor:
    """KL(base || model) of the next token at each position, (tokens,) float32, computed in chunks.

    ``hidden`` and ``base_hidden`` are (tokens, hidden); no gradient goes to the base's.
    """
    rows = max(1, loss_module.LOGITS_BYTES // (8 * vocab_size))

    def chunk_kl(part: Tensor, base: Tensor) -> Tensor:
        ours, theirs = (log_softmax(head(states).float(), dim=-1) for states in (part, base))
        return kl_div(ours, theirs.detach(), log_target=True, reduction="none").sum(dim=-1)

    parts = [
        checkpoint(chunk_kl, hidden[start : start + rows], base_hidden[start : start + rows], use_reentrant=False)
        for start in range(0, len(hidden), rows)
    ]
    return torch.cat(parts) if parts else hidden.sum(dim=-1)
