"""One folder holds a MoGU; what is loaded from it in another process says the same, and what does not fit is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from datamodules.errors import InputError
from llm_modules.generation import GenerationSettings
from llm_modules.mogu.model import MoGUModel
from tests.architectures import ARCHITECTURES
from tests.conftest import ROOT
from tests.llm_modules.mogu.parts import PROMPTS, batch, tiny_mogu

SETTINGS = GenerationSettings(max_new_tokens=8)


def save(name: str, folder: Path, folded: bool = True) -> tuple[MoGUModel, Path]:
    base = folder / "base"
    ARCHITECTURES[name]().save_pretrained(base)
    mogu = tiny_mogu(name)
    mogu.m = 3
    mogu.save_pretrained(folder / "mogu", base=str(base), folded=folded)
    return mogu, folder / "mogu"


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_loaded_generates_the_same_tokens(name: str, folded: bool, tmp_path: Path) -> None:
    mogu, folder = save(name, tmp_path, folded)
    expected = [mogu.generate(PROMPTS, SETTINGS, mode=mode, eos_ids=[]) for mode in ("first_m", "always", "off")]
    loaded = MoGUModel.from_pretrained(folder)
    assert loaded.m == 3
    assert [
        loaded.generate(PROMPTS, SETTINGS, mode=mode, eos_ids=[]) for mode in ("first_m", "always", "off")
    ] == expected
    assert not [*folder.rglob("*.bin"), *folder.rglob("*.pt")], "no pickle"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_each_responder_is_an_ordinary_peft_folder(name: str, tmp_path: Path) -> None:
    mogu, folder = save(name, tmp_path)
    ids, mask = batch()
    for responder, gates in (("glad", (1.0, 0.0)), ("unwilling", (0.0, 1.0))):
        single = PeftModel.from_pretrained(ARCHITECTURES[name](), folder / responder)
        with torch.no_grad(), mogu.control.set(forced=gates):
            ours = mogu.model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
            theirs = single(input_ids=ids, attention_mask=mask).logits[mask.bool()]
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


SERVE = """
import sys, torch
import llm_modules.mogu.serving
from transformers import AutoModelForCausalLM
for folder in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert not [name for name in sys.modules if name.startswith("lightning")]
    for prompt in eval(sys.argv[1]):
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        print(out[0, len(prompt):].tolist())
"""


@pytest.mark.slow
def test_plain_transformers_serves_the_folders_in_a_new_process(tmp_path: Path) -> None:
    expected, folders = [], []
    for name in ("llama", "gpt2", "gemma3"):
        mogu, folder = save(name, tmp_path / name)
        made = mogu.generate(PROMPTS, SETTINGS, mode="keep_cache", eos_ids=[])
        expected += [list(done.token_ids) for done in made]
        folders.append(str(folder))
    command = [sys.executable, "-W", "ignore", "-c", SERVE, str(PROMPTS), *folders]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


def test_the_base_in_another_float_type_is_the_same_base_and_another_base_is_not(tmp_path: Path) -> None:
    _, folder = save("llama", tmp_path)
    for dtype in ("bfloat16", "float16"):
        mogu = MoGUModel.from_pretrained(folder, dtype=dtype)
        assert mogu.model.dtype == getattr(torch, dtype)
        assert all(p.dtype == torch.float32 for p in mogu.router_parameters())
    other = ARCHITECTURES["llama"](seed=1)
    with pytest.raises(InputError, match=r"belongs to the base .* the weights of this model are others"):
        MoGUModel.from_pretrained(folder, other)
    with pytest.raises(InputError, match=r"model\.glad.*nothing for"):
        MoGUModel.from_pretrained(folder, ARCHITECTURES["gpt2"]())
    # Tuned ever so slightly, as a LoRA that was merged into one layer.
    for name in ("self_attn.o_proj", "self_attn.q_proj", "mlp.down_proj"):
        tuned = ARCHITECTURES["llama"]()
        with torch.no_grad():
            weight = tuned.model.layers[1].get_submodule(name).weight
            weight.mul_(1 + 0.01 * torch.rand_like(weight))
        with pytest.raises(InputError, match=rf"weights of this model are others \(layers\.1\.{name}\.weight\)"):
            MoGUModel.from_pretrained(folder, tuned)
    assert not hasattr(tuned.model.layers[0].self_attn.o_proj, "routers"), "what was refused is left as it was"


def test_a_base_that_has_moved_is_named_with_the_remedy(tmp_path: Path) -> None:
    mogu, folder = save("llama", tmp_path)
    expected = mogu.generate(PROMPTS, SETTINGS, eos_ids=[])
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=rf"the base model of '{folder}' cannot be loaded; if it has moved, say base="):
        MoGUModel.from_pretrained(folder)
    again = MoGUModel.from_pretrained(folder, base=str(tmp_path / "moved"))
    assert again.generate(PROMPTS, SETTINGS, eos_ids=[]) == expected


def test_what_is_folded_already_is_saved_so_whatever_is_asked(tmp_path: Path) -> None:
    mogu, folder = save("llama", tmp_path, folded=False)
    mogu.fold()
    expected = mogu.generate(PROMPTS, SETTINGS, eos_ids=[])
    mogu.save_pretrained(folder, base=str(tmp_path / "base"), folded=False)
    assert MoGUModel.from_pretrained(folder, revision=None).generate(PROMPTS, SETTINGS, eos_ids=[]) == expected


def test_a_shift_of_the_gates_is_saved_as_the_bias_of_folded_routers(tmp_path: Path) -> None:
    ids, mask = batch()
    mogu, folder = save("llama", tmp_path)
    unshifted = mogu.gates(ids, mask)
    mogu.shift_gates(1.5)
    expected = mogu.gates(ids, mask)
    assert not torch.allclose(expected, unshifted, atol=0.05)
    mogu.save_pretrained(folder, base=str(tmp_path / "base"))
    torch.testing.assert_close(MoGUModel.from_pretrained(folder).gates(ids, mask), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="folded routers only"):
        mogu.save_pretrained(folder, base=str(tmp_path / "base"), folded=False)


def test_there_is_one_copy_of_the_base(tmp_path: Path) -> None:
    model = ARCHITECTURES["llama"]()
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    _, folder = save("llama", tmp_path)
    mogu = MoGUModel.from_pretrained(folder, model)
    after = {name.replace(".base.", "."): p.data_ptr() for name, p in model.named_parameters()}
    assert before.items() <= after.items()
    mogu.unload()
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == before


def rewrite(folder: Path, tensors: dict) -> None:
    """Routers with other content and the checksum that goes with it."""
    save_file(tensors, folder / "routers.safetensors")
    settings = json.loads((folder / "mogu.json").read_text())
    import hashlib

    digest = hashlib.sha256((folder / "routers.safetensors").read_bytes()).hexdigest()
    settings["checksums"]["routers.safetensors"] = digest
    (folder / "mogu.json").write_text(json.dumps(settings))


def test_missing_and_unknown_keys_and_other_shapes_are_errors(tmp_path: Path) -> None:
    _, folder = save("llama", tmp_path)
    tensors = load_file(folder / "routers.safetensors")
    key = "layers.1.glad.weight"
    rewrite(folder, {name: t for name, t in tensors.items() if name != key})
    with pytest.raises(InputError, match=r"layers \[0, 1, 2\]; missing: layers\.1\.glad\.weight"):
        MoGUModel.from_pretrained(folder)
    rewrite(folder, tensors | {"layers.9.glad.weight": tensors[key].clone()})
    with pytest.raises(InputError, match=r"unknown: layers\.9\.glad\.weight"):
        MoGUModel.from_pretrained(folder)
    rewrite(folder, tensors | {key: torch.zeros(48)})
    with pytest.raises(InputError, match=r"has shape \(48,\).*another base"):
        MoGUModel.from_pretrained(folder)
    rewrite(folder, tensors | {key: torch.full_like(tensors[key], torch.nan)})
    with pytest.raises(InputError, match=r"'layers\.1\.glad\.weight' holds numbers that are not finite"):
        MoGUModel.from_pretrained(folder)
    rewrite(folder, tensors)
    MoGUModel.from_pretrained(folder)


def test_broken_folders_are_named(tmp_path: Path) -> None:
    _, folder = save("llama", tmp_path)
    with pytest.raises(InputError, match=r"has no mogu\.json"):
        MoGUModel.from_pretrained(tmp_path)
    swapped = tmp_path / "swapped"
    shutil.copytree(folder, swapped)
    shutil.rmtree(swapped / "glad")
    shutil.copytree(folder / "unwilling", swapped / "glad")
    with pytest.raises(InputError, match="its checksum differs"):
        MoGUModel.from_pretrained(swapped)
    shutil.rmtree(swapped / "glad")
    shutil.copytree(folder / "glad", swapped / "glad")
    config = swapped / "glad/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 800'))
    with pytest.raises(InputError, match=r"glad/adapter_config\.json.*its checksum differs"):
        MoGUModel.from_pretrained(swapped)
    shutil.rmtree(swapped / "glad")
    with pytest.raises(InputError, match=r"has no glad/adapter_model\.safetensors"):
        MoGUModel.from_pretrained(swapped)
    settings = json.loads((folder / "mogu.json").read_text())
    for change, message in (
        ({"format": 9}, r"^[^:]*mogu\.json: has format 9"),
        ({"extra": 1}, "missing or unknown: extra"),
        ({"m": -1}, r"mogu\.json: m: -1 is not a number"),
        ({"m": "five"}, r"mogu\.json: m: 'five' is not a number"),
        ({"mode": "frist_m"}, r"mogu\.json: mode: 'frist_m' is unknown"),
    ):
        (folder / "mogu.json").write_text(json.dumps(settings | change))
        with pytest.raises(InputError, match=message):
            MoGUModel.from_pretrained(folder)
