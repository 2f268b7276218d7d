"""Weights that are loaded in the type of their files, sharded, and widened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from llm_modules.backbone import loading
from llm_modules.backbone.stored_type import type_to_load
from llm_modules.causal_lm import CausalLM
from tests.families import tiny_model
from tests.tiny import save_tiny


@pytest.fixture
def two_devices() -> Iterator[None]:
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    distributed.destroy_process_group()


def stored(folder: Path, family: str, dtype: torch.dtype) -> str:
    nn.Module.to(tiny_model(family), dtype).save_pretrained(folder)
    return str(folder)


def test_the_type_of_the_files_counts(tmp_path: Path) -> None:
    wide, narrow = (
        stored(tmp_path / "wide", "llama", torch.float32),
        stored(tmp_path / "narrow", "llama", torch.bfloat16),
    )
    half = stored(tmp_path / "half", "llama", torch.float16)
    assert type_to_load(narrow, "float32") == "bfloat16"
    assert type_to_load(half, "float32") == "float16"
    assert type_to_load(wide, "float32") == "float32"
    assert type_to_load(narrow, "bfloat16") == "bfloat16"
    assert type_to_load(half, "bfloat16") == "bfloat16"
    assert type_to_load(narrow, "auto") == "auto"
    path = Path(narrow, "model.safetensors")
    tensors = load_file(path)
    name = next(name for name in tensors if "norm" in name)
    save_file(tensors | {name: tensors[name].float()}, path, {"format": "pt"})  # whatever config.json says
    assert type_to_load(narrow, "float32") == "float32"


def test_only_files_that_are_read_count_and_damaged_ones_are_left_to_the_loading(
    tmp_path: Path,
) -> None:
    folder = Path(stored(tmp_path / "model", "llama", torch.bfloat16))
    save_file({"lora": torch.zeros(2)}, folder / "adapter_model.safetensors")
    assert type_to_load(str(folder), "float32") == "bfloat16"
    tiny_model("llama").bfloat16().save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = sorted((tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 1
    assert type_to_load(str(tmp_path / "shards"), "float32") == "bfloat16"
    shards[0].write_bytes(b"damaged")
    assert type_to_load(str(tmp_path / "shards"), "float32") == "float32"
    (folder / "model.safetensors").rename(folder / "other.safetensors")  # weights may be in files of another kind
    assert type_to_load(str(folder), "float32") == "float32"
    assert type_to_load(str(tmp_path / "nowhere"), "float32") == "float32"


def test_a_family_that_computes_buffers_in_the_type_of_its_weights_is_loaded_wide(tmp_path: Path) -> None:
    assert type_to_load(stored(tmp_path, "gemma2", torch.bfloat16), "float32") == "float32"


@pytest.mark.usefixtures("two_devices")
def test_a_sharded_model_is_loaded_narrow_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "base", layers=2)
    loading.load_model(str(folder), dtype="bfloat16").save_pretrained(folder)
    asked: list[str] = []

    def load(name: str, *, dtype: Any, **options: Any) -> Any:
        asked.append(dtype)
        return load_model(name, dtype=dtype, **options)

    load_model = loading.load_model
    monkeypatch.setattr(loading, "load_model", load)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    found = {}
    for name, peft in (("all weights", None), ("adapter", LoraConfig(r=2, target_modules="all-linear"))):
        module = CausalLM(str(folder), peft=peft)
        module._device_mesh = mesh
        module.configure_model()
        found[name] = dict(module.language_model.named_parameters())
        assert module.language_model.dtype == module.language_model.config.dtype == torch.float32
    assert asked == ["bfloat16", "float32"]  # an adapter's weights begin in the type of the weights below
    whole = dict(load_model(str(folder), dtype="float32").named_parameters())
    assert found["all weights"].keys() == whole.keys()
    for name, value in found["all weights"].items():
        assert isinstance(value, DTensor)
        local, ours = value.to_local(), whole[name].chunk(2)[0]
        torch.testing.assert_close(local, ours, atol=0, rtol=0)
