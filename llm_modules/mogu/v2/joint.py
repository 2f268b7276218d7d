"""The joint stage of MoGUv2, reconstructed: backbone modules learn with the routers, held near the base on benign data.

Of the follow-up only the abstract is public ("backbone modules train jointly with the routers"). Ours: a LoRA adapter
on modules that hold no mixture, at a lower rate, with a KL term to the untouched base on the responses to benign
requests.
"""

from collections.abc import Callable, Iterable

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax
from torch.utils.checkpoint import checkpoint

from datamodules.errors import InputError
from llm_modules import loss as loss_module
from llm_modules.mogu.model import MoGUModel
from llm_modules.optim.parameter_groups import ParameterGroup


def train_jointly(adapted: PeftModel, mogu: MoGUModel) -> None:
    """Let the backbone's adapter be trained beside the routers; the mixtures had frozen it with the rest.

    Raises:
        InputError: It would train more than the adapter's own weights: whole modules or biases of the base.
        InputError: It adapts a projection that holds a mixture: its files would not load elsewhere.
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
    """KL(base || model) of the next token at each position, (tokens,) float32, without all logits at once.

    Args:
        hidden: Hidden states of the model, (tokens, hidden).
        base_hidden: Those of the base at the same positions; no gradient goes there.
        head: From hidden states to logits.
        vocab_size: Logits a token.
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


def joint_groups(named: Iterable[tuple[str, nn.Parameter]]) -> list[ParameterGroup]:
    """Parameter groups of what is trained: the routers, and what is trained of the backbone."""
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    return [
        ParameterGroup(
            name=group,
            params=[parameter for name, parameter in trained if (".routers." in name) == (group == "routers")],
            parameter_names=[name for name, _ in trained if (".routers." in name) == (group == "routers")],
        )
        for group in ("routers", "backbone")
    ]
