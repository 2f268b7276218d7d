"""How a model is spread over devices."""

from collections.abc import Iterator

import pytest
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from datamodules.errors import InputError
from llm_modules.backbone.sharding import data_mesh
from llm_modules.causal_lm import CausalLM

NAMES = ("data_parallel", "tensor_parallel")


@pytest.fixture
def two_devices() -> Iterator[None]:
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    distributed.destroy_process_group()


def mesh_of(data: int, tensor: int) -> DeviceMesh:
    return init_device_mesh("cpu", (data, tensor), mesh_dim_names=NAMES)


@pytest.mark.usefixtures("two_devices")
def test_layers_split_over_devices_are_refused_before_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_mesh(mesh_of(2, 1)).size() == 2
    module = CausalLM("miniature")
    module._device_mesh = mesh_of(1, 2)
    monkeypatch.setattr("llm_modules.backbone.loading.load_model", pytest.fail)
    with pytest.raises(InputError, match=r"^trainer\.strategy\.tensor_parallel_size: must be 1"):
        module.configure_model()
