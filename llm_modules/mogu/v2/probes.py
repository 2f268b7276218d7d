"""Linear probes of the inputs of the output projections: which layers know whether a request is malicious.

For MoGUv2, of which only the abstract is public ("routers only in layers whose hidden states classify security well"):
this is a reconstruction of ours. A probe is a logistic unit, and so is a folded router: probes also are where routers
start from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from datamodules.errors import InputError
from llm_modules.backbone.architecture import inner_decoder
from llm_modules.logistic import fit_logistic
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.router import LogisticUnit
from llm_modules.mogu.target import Projection

ITERATIONS = 200


@dataclass(frozen=True)
class Probe:
    """A logistic unit that tells malicious requests from benign ones at one layer.

    Attributes:
        layer: Decoder layer.
        weight: (in,), of the projection's input.
        bias: (1,).
        accuracy: On requests that it was not fitted on.
        loss: Its cross-entropy on them, in nats.
    """

    layer: int
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    accuracy: float
    loss: float


@torch.no_grad()
def capture_inputs(
    model: nn.Module, projections: Sequence[Projection], ids: Tensor, mask: Tensor | None, positions: Tensor
) -> Tensor:
    """What stands at one position of each row at the projections' inputs, (batch, layers, in), float32.

    Args:
        model: A causal language model.
        projections: Of the layers to look at.
        ids: (batch, seq), right-padded.
        mask: (batch, seq).
        positions: (batch,), index of the token of each row.
    """
    found: dict[int, Tensor] = {}
    rows = torch.arange(len(ids), device=ids.device)

    def keep(layer: int) -> object:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[layer] = args[0][rows, positions].float()

        return hook

    hooks = [p.module.register_forward_pre_hook(keep(p.layer)) for p in projections]  # type: ignore[arg-type]
    try:
        inner_decoder(model)(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([found[p.layer] for p in projections], dim=1)


def fit_probe(inputs: Tensor, malicious: Tensor, l2: float = 1e-3) -> tuple[Tensor, Tensor]:
    """A logistic regression on standardised inputs, by L-BFGS in double precision.

    Args:
        inputs: (requests, in).
        malicious: (requests,) bool.
        l2: Penalty on the squared norm of the standardised weights (ours).

    Returns:
        Weight (in,) and bias (1,) for the inputs as they are, float32.

    Raises:
        InputError: One of the two kinds is missing.
    """
    if malicious.all() or not malicious.any():
        raise InputError("probes: requests of both kinds are needed, malicious and benign")
    inputs = inputs.double()
    mean, spread = inputs.mean(dim=0), inputs.std(dim=0).clamp(min=1e-6)
    weight, bias = fit_logistic(
        (inputs - mean) / spread, malicious.double(), binary_cross_entropy_with_logits, l2, max_iter=ITERATIONS
    )
    raw = weight / spread
    return raw.float(), (bias - raw @ mean).float()


def fit_probes(
    layers: Sequence[int], inputs: Tensor, malicious: Tensor, l2: float = 1e-3, held_out: float = 0.25, seed: int = 0
) -> list[Probe]:
    """A probe a layer; measured on a part of the requests, then fitted on all of them.

    Args:
        layers: Decoder layers.
        inputs: (requests, layers, in).
        malicious: (requests,) bool.
        l2: As in `fit_probe`.
        held_out: Share of the requests to measure on.
        seed: Of the split.
    """
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    n = max(2, round(held_out * len(inputs)))
    test, train = order[:n], order[n:]
    probes = []
    for index, layer in enumerate(layers):
        weight, bias = fit_probe(inputs[train, index], malicious[train], l2)
        logits = inputs[test, index] @ weight + bias
        accuracy = ((logits > 0) == malicious[test]).float().mean()
        loss = binary_cross_entropy_with_logits(logits, malicious[test].float())
        weight, bias = fit_probe(inputs[:, index], malicious, l2)
        probes.append(Probe(layer, weight, bias, float(accuracy), float(loss)))
    return probes


def choose_probes(probes: Sequence[Probe], k: int) -> list[Probe]:
    """The k probes that tell best, in the order of the layers.

    By held-out cross-entropy: several layers may have no error left.

    Raises:
        InputError: There are fewer.
    """
    if not 1 <= k <= len(probes):
        raise InputError(f"probes: {k} layers are asked for; there are {len(probes)}")
    best = sorted(probes, key=lambda probe: probe.loss)[:k]
    return sorted(best, key=lambda probe: probe.layer)


@torch.no_grad()
def warm_start(mogu: MoGUModel, probes: Sequence[Probe]) -> None:
    """Let the routers begin as the probes: unwilling opens where its probe says malicious, glad where it does not.

    Raises:
        InputError: The routers are factored or have no bias, or a layer has no probe.
    """
    if mogu.config.d_router != 0 or not mogu.config.bias:
        raise InputError("model.probes: routers start from probes folded; set model.router d_router: 0 and bias: true")
    by_layer = {probe.layer: probe for probe in probes}
    for layer, mixture in mogu.mixtures.items():
        if layer not in by_layer:
            raise InputError(f"model.probes: the file has no probe of layer {layer}; it has {sorted(by_layer)}")
        probe, routers = by_layer[layer], mixture.routers
        if len(probe.weight) != mixture.in_features:
            raise InputError(
                f"model.probes: the probe of layer {layer} is for {len(probe.weight)} features, the model has "
                f"{mixture.in_features}: it belongs to another base"
            )
        for unit, sign in ((routers.glad, -1.0), (routers.unwilling, 1.0)):
            assert isinstance(unit, LogisticUnit)
            assert unit.bias is not None
            unit.weight.copy_(sign * probe.weight)
            unit.bias.copy_(sign * probe.bias)


def save_probes(probes: Sequence[Probe], path: Path) -> None:
    """Write ``layers.<n>.{weight,bias,score}`` as safetensors; a score is (accuracy, loss)."""
    tensors: dict[str, Tensor] = {}
    for probe in probes:
        score = torch.tensor([probe.accuracy, probe.loss])
        parts = {"weight": probe.weight, "bias": probe.bias, "score": score}
        tensors |= {f"layers.{probe.layer}.{name}": tensor.contiguous() for name, tensor in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def read_probes(path: Path) -> list[Probe]:
    """The probes of a file.

    Raises:
        InputError: It is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        layers = sorted({int(name.split(".")[1]) for name in tensors})
        return [
            Probe(
                n,
                tensors[f"layers.{n}.weight"],
                tensors[f"layers.{n}.bias"],
                *map(float, tensors[f"layers.{n}.score"]),
            )
            for n in layers
        ]
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise InputError(f"model.probes: '{path}' holds no probes: {error}") from error
