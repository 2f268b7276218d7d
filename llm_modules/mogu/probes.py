"""Linear probes of the inputs of the output projections: they tell malicious requests from benign ones.

A probe is a logistic unit, as a folded router is, so routers start from probes (ours). MoGUv2, reconstructed, also
chooses layers by them: only its abstract is public ("routers only in layers whose hidden states classify security
well").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from datamodules.errors import InputError
from llm_modules.backbone.architecture import inner_decoder
from llm_modules.backbone.tensor_files import CHECKSUM, read_tensors, tensors_checksum
from llm_modules.logistic import fit_logistic
from llm_modules.mogu.mixed_model import MixedModel
from llm_modules.mogu.mixture import Mixture
from llm_modules.mogu.router import LogisticUnit
from llm_modules.mogu.target import Projection

ITERATIONS = 200


@dataclass(frozen=True)
class LayerProbe:
    """A logistic unit that tells malicious requests from benign ones by the input of one output projection."""

    layer: int
    weight: Tensor = field(repr=False)  # (in,)
    bias: Tensor = field(repr=False)  # (1,)
    accuracy: float  # on held-out requests
    loss: float  # cross-entropy on held-out requests, in nats


@torch.no_grad()
def capture_inputs(
    model: nn.Module, projections: Sequence[Projection], ids: Tensor, mask: Tensor | None, positions: Tensor
) -> Tensor:
    """The inputs of the projections at one position of each row, (batch, layers, in), float32.

    ``ids`` is (batch, seq), right-padded; ``positions`` (batch,) holds a token's index for each row.
    """
    found: dict[int, Tensor] = {}
    rows = torch.arange(len(ids), device=ids.device)

    def keep(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[layer] = args[0][rows, positions].float()

        return hook

    hooks = [p.module.register_forward_pre_hook(keep(p.layer)) for p in projections]
    try:
        inner_decoder(model)(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([found[p.layer] for p in projections], dim=1)


@torch.inference_mode(False)  # Lightning predicts in it, and its tensors take no part in gradients
def fit_probe(
    inputs: Tensor, malicious: Tensor, l2: float = 1e-3, counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression on standardised inputs (n, in), with a penalty ``l2`` on their weights (ours).

    ``counts`` (n,) says how much each input counts, by default the same. Returns weight (in,) and bias (1,) for inputs
    that are not standardised; InputError if a class is missing.
    """
    if malicious.all() or not malicious.any():
        raise InputError("probes: one class of requests is missing; give malicious and benign ones")
    device = torch.device("cpu") if inputs.device.type == "mps" else inputs.device  # which has no double precision
    x = inputs.to(device, torch.double, copy=True)
    shares = torch.ones_like(x[:, 0]) if counts is None else counts.to(x)
    shares = shares / shares.sum()
    mean = shares @ x
    x -= mean
    spread = (shares @ x.square() * len(x) / (len(x) - 1)).sqrt().clamp(min=1e-6)
    x /= spread

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return shares @ binary_cross_entropy_with_logits(logits, labels, reduction="none")

    weight, bias = fit_logistic(x, malicious.to(x), loss, l2, max_iter=ITERATIONS)
    raw = weight / spread
    return raw.float(), (bias - raw @ mean).float()


def fit_probes(
    layers: Sequence[int], inputs: Tensor, malicious: Tensor, l2: float = 1e-3, held_out: float = 0.25, seed: int = 0
) -> list[LayerProbe]:
    """Fit one probe per layer: first on a part of the requests, to measure it on the others, then on all of them.

    ``inputs`` is (requests, layers, in); ``held_out`` is the share to measure on.
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
        probes.append(LayerProbe(layer, weight, bias, float(accuracy), float(loss)))
    return probes


def choose_probes(probes: Sequence[LayerProbe], k: int) -> list[LayerProbe]:
    """The k probes with the least held-out cross-entropy, by ascending layer: several may have no error left."""
    if not 1 <= k <= len(probes):
        raise InputError(f"probes: cannot choose {k} layers of {len(probes)}")
    best = sorted(probes, key=lambda probe: probe.loss)[:k]
    return sorted(best, key=lambda probe: probe.layer)


@torch.no_grad()
def warm_start(mogu: MixedModel, probes: Sequence[LayerProbe]) -> None:
    """Start the routers from probes: a probe's probability of malicious opens unwilling, that of benign opens glad.

    InputError if the routers are factored or have no bias, or a layer has no probe that fits.
    """
    if mogu.config.d_router != 0 or not mogu.config.bias:
        raise InputError(
            "model.probes: only folded routers can start from it; set model.router d_router: 0 and bias: true"
        )
    by_layer = {probe.layer: probe for probe in probes}
    for layer, mixture in mogu.mixtures.items():
        if layer not in by_layer:
            raise InputError(f"model.probes: the file has no probe of layer {layer}; it has {sorted(by_layer)}")
        probe = by_layer[layer]
        if len(probe.weight) != mixture.in_features:
            raise InputError(
                f"model.probes: the probe of layer {layer} is for {len(probe.weight)} features, the model has "
                f"{mixture.in_features}: it belongs to another base"
            )
        start_from(mixture, probe.weight, probe.bias)


@torch.no_grad()
def start_from(mixture: Mixture, weight: Tensor, bias: Tensor) -> None:
    """Let a probability of malicious open unwilling, and that of benign glad; the routers are folded, with a bias."""
    for unit, sign in ((mixture.routers.glad, -1.0), (mixture.routers.unwilling, 1.0)):
        assert isinstance(unit, LogisticUnit)
        assert unit.bias is not None
        unit.weight.copy_(sign * weight)
        unit.bias.copy_(sign * bias)
    if mixture.is_joined:
        mixture.join()


def save_probes(probes: Sequence[LayerProbe], path: Path) -> None:
    """Write ``layers.<n>.{weight,bias,score}`` as safetensors; score is (accuracy, loss)."""
    tensors: dict[str, Tensor] = {}
    for probe in probes:
        score = torch.tensor([probe.accuracy, probe.loss])
        parts = {"weight": probe.weight, "bias": probe.bias, "score": score}
        tensors |= {f"layers.{probe.layer}.{name}": tensor.contiguous() for name, tensor in parts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={CHECKSUM: tensors_checksum(tensors)})


def read_probes(path: Path, key: str) -> list[LayerProbe]:
    """Read a file of probes; InputError, with the option ``key`` that named it, if it holds something else."""
    try:
        tensors, header = read_tensors(path)
        stored = header.get(CHECKSUM)
        if stored is not None and stored != tensors_checksum(tensors):
            raise ValueError("its checksum differs")
        layers = sorted({int(name.split(".")[1]) for name in tensors})
        return [
            LayerProbe(
                n,
                tensors[f"layers.{n}.weight"],
                tensors[f"layers.{n}.bias"],
                *map(float, tensors[f"layers.{n}.score"]),
            )
            for n in layers
        ]
    except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"{key}: no probes can be read from '{path}' ({error}); make them with rod predict --config mogu/v2/1_probe"
        ) from error
