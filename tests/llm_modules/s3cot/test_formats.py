"""Exports mean the same in the programs they are for; published vectors can be read."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.backbone.architecture import layer_path
from llm_modules.s3cot.direction import Direction
from llm_modules.s3cot.formats import Format, export_vectors, import_vectors, read_direction
from llm_modules.s3cot.steering import Steering
from tests.architectures import ARCHITECTURES, HIDDEN, LAYERS

ALPHA, STEERED = -0.3, (1, 2)
IDS = torch.tensor([[5, 9, 17, 33], [8, 44, 3, 7]])


def direction_for(name: str) -> tuple[Any, Direction]:
    model = ARCHITECTURES[name]()
    vectors = 4 * torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(1))
    return model, Direction(
        vectors=vectors, model="m", anchor=1, model_type=model.config.model_type, layer_path=layer_path(model)
    )


def scaled(direction: Direction) -> dict[int, Tensor]:
    return {layer: ALPHA * direction.vectors[layer] for layer in STEERED}


@torch.no_grad()
def steered_logits(model: Any, direction: Direction) -> Tensor:
    """What an export has to reproduce."""
    strengths = torch.zeros(len(IDS), LAYERS)
    strengths[:, list(STEERED)] = ALPHA
    with Steering(model, direction.vectors) as steering:
        steering.set_strengths(strengths)
        return model(IDS).logits


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon", "opt", "gpt_neox"])
def test_lm_eval_file_by_hand(name: str, tmp_path: Path) -> None:
    """Read as the harness reads it: names are looked up from the model's ``base_model``, vectors are added."""
    model, direction = direction_for(name)
    path = tmp_path / "steer.pt"
    export_vectors(direction, STEERED, ALPHA, "lm-eval", path)
    steer = torch.load(path, weights_only=True)
    assert all(set(entry) >= {"steering_vector", "action"} for entry in steer.values())
    expected = steered_logits(model, direction)
    modules = dict(model.base_model.named_modules())
    for hookpoint, entry in steer.items():
        assert (entry["action"], entry["bias"], entry["head_index"]) == ("add", None, None)
        vector = entry["steering_vector"] * entry["steering_coefficient"]
        modules[hookpoint].register_forward_hook(
            lambda _m, _a, out, v=vector: (out[0] + v, *out[1:]) if isinstance(out, tuple) else out + v
        )
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, expected)


def test_lm_eval_file_in_the_harness(tmp_path: Path) -> None:
    harness = pytest.importorskip("lm_eval.models.hf_steered")
    model, direction = direction_for("llama")
    export_vectors(direction, STEERED, ALPHA, "lm-eval", tmp_path / "steer.pt")
    steer = torch.load(tmp_path / "steer.pt", weights_only=False)
    add: Callable[..., Tensor] = harness.SteeredModel.add
    hooks = {
        point: lambda acts, e=entry: add(acts, vector=e["steering_vector"] * e["steering_coefficient"], head_index=None)
        for point, entry in steer.items()
    }
    expected = steered_logits(model, direction)
    with torch.no_grad(), harness.steer(model, hooks):
        torch.testing.assert_close(model(IDS).logits, expected)


def test_gguf_file_in_its_reader(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    _, direction = direction_for("llama")
    path = tmp_path / "vector.gguf"
    export_vectors(direction, STEERED, ALPHA, "gguf", path)
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == len(STEERED)
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert set(found) == {f"direction.{layer}" for layer in STEERED}
    for layer, vector in scaled(direction).items():
        tensor = found[f"direction.{layer}"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert np.array_equal(tensor.data, vector.numpy())


def test_gguf_file_in_repeng(tmp_path: Path) -> None:
    """Its layer ids are ours: no off-by-one."""
    try:
        import repeng
    except (ImportError, AttributeError):
        pytest.skip("repeng is not installed, or not with the NumPy 1 that it needs")
    model, direction = direction_for("llama")
    export_vectors(direction, STEERED, ALPHA, "gguf", tmp_path / "vector.gguf")
    expected = steered_logits(model, direction)
    vector = repeng.ControlVector.import_gguf(tmp_path / "vector.gguf")
    controlled = repeng.ControlModel(model, list(STEERED))
    controlled.set_control(vector, 1.0)
    with torch.no_grad():
        positions = torch.arange(IDS.shape[1]).expand(len(IDS), -1)
        torch.testing.assert_close(controlled(input_ids=IDS, position_ids=positions).logits, expected)


def test_gguf_has_no_layer_0(tmp_path: Path) -> None:
    _, direction = direction_for("llama")
    with pytest.raises(InputError, match="no control vector for layer 0"):
        export_vectors(direction, (0, 1), ALPHA, "gguf", tmp_path / "vector.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["lm-eval", "gguf", "layers"])
def test_an_export_touches_no_other_file(format: Format, tmp_path: Path) -> None:
    theirs = tmp_path / "steer.partial"
    theirs.write_bytes(b"theirs")
    export_vectors(direction_for("llama")[1], STEERED, ALPHA, format, tmp_path / "steer")
    assert theirs.read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steer", "steer.partial"]


def test_gguf_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install 'lightning-rod\[gguf\]'"):
        export_vectors(direction_for("llama")[1], (1,), ALPHA, "gguf", tmp_path / "vector.gguf")


def test_layer_dictionary(tmp_path: Path) -> None:
    _, direction = direction_for("llama")
    export_vectors(direction, (0, 2), ALPHA, "layers", tmp_path / "sub" / "vectors.safetensors")
    tensors = load_file(tmp_path / "sub" / "vectors.safetensors")
    assert set(tensors) == {"direction.0", "direction.2"}
    assert torch.equal(tensors["direction.2"], ALPHA * direction.vectors[2])


@pytest.mark.parametrize(("format", "suffix"), [("lm-eval", "pt"), ("gguf", "gguf"), ("layers", "safetensors")])
def test_the_same_export_has_the_same_bytes(format: Format, suffix: str, tmp_path: Path) -> None:
    files = [tmp_path / folder / f"vector.{suffix}" for folder in ("a", "b")]
    for path in files:
        export_vectors(direction_for("llama")[1], STEERED, ALPHA, format, path)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(("format", "suffix"), [("gguf", "gguf"), ("layers", "safetensors")])
def test_what_is_exported_can_be_imported(format: Format, suffix: str, tmp_path: Path) -> None:
    _, direction = direction_for("llama")
    path = tmp_path / f"vector.{suffix}"
    export_vectors(direction, STEERED, ALPHA, format, path)
    imported = read_direction(path, layers=5)
    assert (imported.layers, imported.hidden, imported.anchor, imported.model) == (5, HIDDEN, None, "")
    for layer in range(5):
        expected = scaled(direction).get(layer, torch.zeros(HIDDEN))
        assert torch.equal(imported.vectors[layer], expected)
    with pytest.raises(InputError, match="has a vector for layer 2; the model has layers 0-1"):
        import_vectors(path, layers=2)


def test_reads_its_own_directions_too(tmp_path: Path) -> None:
    _, direction = direction_for("llama")
    direction.save(tmp_path / "own.safetensors")
    own = read_direction(tmp_path / "own.safetensors", layers=99)
    assert (own.model, own.anchor, own.layers) == ("m", 1, LAYERS)


@pytest.mark.parametrize(
    "name",
    [
        "seal_execution.r1-distill-qwen",
        "seal_reflection.r1-distill-qwen",
        "seal_transition.r1-distill-qwen",
        "easysteer_refusal_diffmean",
        "easysteer_cast_refuse_pca",
        "easysteer_fractreason_math500",
        "easysteer_thinkingspeed_math500",
    ],
)
def test_published_control_vectors(name: str, shared_data: Path) -> None:
    path = shared_data / "steering_vectors" / f"{name}.safetensors"
    direction = read_direction(path, layers=28)
    direction.check(model_id="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", layers=28, hidden=1536)
    tensors = load_file(path)
    for layer in range(28):
        assert torch.equal(direction.vectors[layer], tensors[f"direction.{layer}"].float())
    assert min(direction.separation) > 0


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("refusal_direction.gemma-2b-it", r"'tensor' \(2048,\)"),
        ("refusal_mean_diffs.gemma-2b-it", r"'tensor' \(5, 18, 2048\)"),
        ("asc_cot_compression.r1-distill-qwen-7b", r"'tensor' \(75, 3584\)"),
    ],
)
def test_published_vectors_without_layers_are_refused_with_what_was_found(
    name: str, found: str, shared_data: Path
) -> None:
    with pytest.raises(InputError, match=rf"named 'direction.N'; found {found}"):
        read_direction(shared_data / "steering_vectors" / f"{name}.safetensors")


def test_refuses_other_files(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    with pytest.raises(InputError, match="no direction can be read"):
        read_direction(tmp_path / "absent.safetensors")
    (tmp_path / "text.gguf").write_text("not a GGUF file, but long enough to be read as one")
    with pytest.raises(InputError, match="no GGUF file can be read"):
        read_direction(tmp_path / "text.gguf")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="architecture 'llama', expected a 'controlvector'"):
        read_direction(tmp_path / "model.gguf")
    save_file({"direction.0": torch.zeros(4), "direction.1": torch.zeros(5)}, tmp_path / "ragged.safetensors")
    with pytest.raises(InputError, match=r"found 'direction.0' \(4,\), 'direction.1' \(5,\)"):
        read_direction(tmp_path / "ragged.safetensors")
    save_file({"direction.0": torch.zeros(4), "bias": torch.zeros(4)}, tmp_path / "mixed.safetensors")
    with pytest.raises(InputError, match="'bias'"):
        read_direction(tmp_path / "mixed.safetensors")
