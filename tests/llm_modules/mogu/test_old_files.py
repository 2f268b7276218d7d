"""Files written before 0.1 load: PEFT folders, a MoGU folder, and the run of routers with its configuration.

The files in ``old/`` are of the miniature, with routers in two layers. The expected tokens and gates are those that the
code of that time computed from them.
"""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from llm_modules.backbone.loading import load_model
from llm_modules.generation import GenerationSettings
from llm_modules.mogu import MoGUModel, read_adapter
from llm_modules.mogu.module import MoGU
from rod.load import config_of, load_module

OLD = Path(__file__).parent / "old"
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12]]
TOKENS = {
    "first_m": [(16, 573, 572, 93, 21, 95, 2, 343), (16, 573, 572, 93, 21, 95, 2, 573)],
    "always": [(16, 573, 572, 93, 19, 95, 2, 573), (16, 573, 572, 93, 19, 95, 2, 573)],
}
GATES = [[0.9995536, 1.0], [0.0907312, 0.9999996]]
"""Of both layers at the last token of the second prompt, glad first."""


def test_a_mogu_folder() -> None:
    mogu = MoGUModel.from_pretrained(OLD / "mogu")
    assert (mogu.layers, mogu.mode, mogu.m) == ((1, 4), "first_m", 3)
    torch.testing.assert_close(mogu.gates(torch.tensor([PROMPTS[1]]))[:, 0, -1], torch.tensor(GATES))
    for mode, tokens in TOKENS.items():
        done = mogu.generate(PROMPTS, GenerationSettings(max_new_tokens=8), mode=mode, eos_ids=[])
        assert [completion.token_ids for completion in done] == tokens


@pytest.mark.parametrize("name", ["glad", "unwilling"])
def test_a_peft_folder(name: str) -> None:
    adapter = read_adapter(OLD / name, f"model.{name}")
    assert adapter.base == "miniature"
    single = PeftModel.from_pretrained(load_model("miniature"), OLD / name)
    weights = {key: value for key, value in single.named_parameters() if "lora_" in key}
    assert len(weights) == 2 * len(adapter.deltas) == 4
    for path, (down, up) in adapter.deltas.items():
        assert torch.equal(weights[f"base_model.model.{path}.lora_A.default.weight"], down)
        assert torch.equal(weights[f"base_model.model.{path}.lora_B.default.weight"], up)


def test_a_run_of_routers_exports_to_the_folder_that_it_was_exported_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(OLD)
    checkpoint = OLD / "router/checkpoints/last.ckpt"
    module = load_module(config_of(checkpoint), checkpoint)
    assert isinstance(module, MoGU)
    module.save(tmp_path)
    for name in ("routers", "base", "glad/adapter_model", "unwilling/adapter_model"):
        found, expected = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, OLD / "mogu"))
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor)
    assert settings(tmp_path) == settings(OLD / "mogu")


def settings(folder: Path) -> dict[str, object]:
    """But for the checksums: other versions of PEFT write other adapter configurations."""
    return {k: v for k, v in json.loads((folder / "mogu.json").read_text()).items() if k != "checksums"}
