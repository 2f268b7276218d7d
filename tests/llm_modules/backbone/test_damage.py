"""Damaged files, and files that do not belong together, are refused; nothing runs with other numbers unsaid."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from peft import LoraConfig, PeftModel

from datamodules.errors import InputError
from llm_modules.backbone.checkpoint import CheckpointFiles, check_checkpoint
from llm_modules.backbone.checksums import CHECKSUMS, check_folder, fingerprint, write_checksums
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.backbone.tensor_files import tensors_checksum
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu.adapters import read_adapter
from llm_modules.mogu.probes import LayerProbe, read_probes, save_probes
from llm_modules.s3cot.direction import Direction
from tests.supervised import RandomExamples
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), layers=3)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def flip(path: Path, place: float) -> None:
    """Flip a bit of a file, at a share of its length."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def checkpoint(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as a fit writes it."""
    folder = tmp_path_factory.mktemp("fit")
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    fit = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        reload_dataloaders_every_n_epochs=1,
        enable_checkpointing=False,
        plugins=[CheckpointFiles()],
        **quiet,
    )
    fit.fit(CausalLM(str(base), peft=LoraConfig(r=2, target_modules="all-linear")), datamodule=RandomExamples())
    fit.save_checkpoint(folder / "fit.ckpt")
    assert [path.name for path in folder.iterdir()] == ["fit.ckpt"]
    return folder / "fit.ckpt"


class TestCheckpoints:
    def test_a_flipped_bit_is_found_wherever_it_counts(self, checkpoint: Path, tmp_path: Path) -> None:
        whole = torch.load(checkpoint, weights_only=True)["state_dict"]
        damaged, refused = tmp_path / "damaged.ckpt", list[str]()
        for place in range(100):
            shutil.copy(checkpoint, damaged)
            flip(damaged, place / 99)
            try:
                check_checkpoint(damaged)
            except InputError as error:
                refused.append(str(error))
            else:  # some bytes are padding
                found = torch.load(damaged, weights_only=True)["state_dict"]
                assert all(torch.equal(whole[name], found[name]) for name in whole)
        assert len(refused) > 40
        assert {said.count("give another checkpoint") for said in refused} == {1}

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (lambda whole: b"", "is empty"),
            (lambda whole: whole[: len(whole) // 2], "is cut, damaged or no checkpoint"),
            (lambda whole: b"\0" * len(whole), "is cut, damaged or no checkpoint"),
            (lambda whole: pickle.dumps({"state_dict": {}}), "is cut, damaged or no checkpoint"),
        ],
    )
    def test_what_is_no_checkpoint(
        self, content: Callable[[bytes], bytes], said: str, checkpoint: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "x.ckpt").write_bytes(content(checkpoint.read_bytes()))
        with pytest.raises(InputError, match=said):
            check_checkpoint(tmp_path / "x.ckpt")

    def test_a_pickle_that_could_run_code(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}, "extra": Path("x")}, tmp_path / "x.ckpt")
        with pytest.raises(InputError, match="holds more than tensors and plain values, and could run code"):
            check_checkpoint(tmp_path / "x.ckpt")

    def test_a_folder_is_given_under_another_key(self, base: Path) -> None:
        with pytest.raises(InputError, match=r"--checkpoint: .* is a folder and no checkpoint; give it as model\.b"):
            check_checkpoint(base, "--checkpoint")
        with pytest.raises(InputError, match="--checkpoint: there is no file"):
            check_checkpoint(base / "no.ckpt", "--checkpoint")

    def test_a_checkpoint_of_another_project(self, checkpoint: Path, base: Path, tmp_path: Path) -> None:
        content = torch.load(checkpoint, weights_only=True)
        del content["trained_parameters"]
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(InputError, match="of another project, or none of a run"):
            check_checkpoint(tmp_path / "x.ckpt")
        module = CausalLM(str(base), peft=LoraConfig(r=2, target_modules="all-linear"))
        with pytest.raises(InputError, match="of another project, or none of a run"):
            module.on_load_checkpoint(content)

    def test_an_address(self, checkpoint: Path) -> None:
        check_checkpoint(f"file://{checkpoint}")
        with pytest.raises(InputError, match=r"ckpt_path: there is no file 'file:///no/such.ckpt'"):
            check_checkpoint("file:///no/such.ckpt")
        with pytest.raises(InputError, match=r"ckpt_path: 'nowhere://x.ckpt' cannot be reached \(Protocol not known"):
            check_checkpoint("nowhere://x.ckpt")

    def test_a_distributed_checkpoint_of_a_part_of_the_model(self, base: Path) -> None:
        """Torch asks for every weight when it reads one."""
        for peft, distributed in ((LoraConfig(r=2, target_modules="all-linear"), False), (None, True)):
            self.start(base, peft, distributed)
        with pytest.raises(InputError, match=r"trainer\.strategy\.save_distributed_checkpoint: .*; set it to false"):
            self.start(base, LoraConfig(r=2, target_modules="all-linear"), True)

    @staticmethod
    def start(base: Path, peft: LoraConfig | None, distributed: bool) -> None:
        module = CausalLM(str(base), peft=peft)
        module.configure_model()
        strategy = ModelParallelStrategy(save_distributed_checkpoint=distributed)
        module.trainer = Trainer(accelerator="cpu", strategy=strategy, logger=False)
        module.on_fit_start()

    def test_weights_of_another_size_and_infinite_ones(self, checkpoint: Path, base: Path) -> None:
        content = torch.load(checkpoint, weights_only=True)
        module = CausalLM(str(base), peft=LoraConfig(r=4, target_modules="all-linear"))
        module.configure_model()
        with pytest.raises(InputError, match=r"lora_A.default.weight has the size .* in the checkpoint and "):
            module.on_load_checkpoint({key: content[key] for key in ("state_dict", "trained_parameters")})
        module = CausalLM(str(base), peft=LoraConfig(r=2, target_modules="all-linear"))
        module.configure_model()
        next(iter(content["state_dict"].values()))[0, 0] = float("inf")
        with pytest.raises(InputError, match="holds numbers that are not finite"):
            module.on_load_checkpoint(content)


class TestFolders:
    def test_every_file_that_is_read_is_checked(self, copy: Path) -> None:
        write_checksums(copy)
        load_model(str(copy))
        for path in sorted(copy.iterdir()):
            if path.name != CHECKSUMS:
                whole = path.read_bytes()
                flip(path, 0.9)
                with pytest.raises(InputError, match=rf"{path.name}' is not the file that was saved"):
                    check_folder(copy, "model.backbone")
                path.write_bytes(whole)
        flip(copy / "model.safetensors", 0.7)
        with pytest.raises(
            InputError, match=r"model\.safetensors' is not the file that was saved.*copy the folder again"
        ):
            load_model(str(copy))
        load_tokenizer(str(copy))
        flip(copy / "tokenizer.json", 0.7)
        with pytest.raises(InputError, match=r"tokenizer\.json' is not the file that was saved"):
            load_tokenizer(str(copy))
        (copy / CHECKSUMS).write_bytes(b"{")
        with pytest.raises(InputError, match=r"checksums\.json' is damaged"):
            load_tokenizer(str(copy))

    def test_adapters(self, base: Path, tmp_path: Path) -> None:
        adapter = tmp_path / "adapter"
        PeftModel(load_model(str(base)), LoraConfig(r=2, target_modules=["o_proj"])).save_pretrained(str(adapter))
        write_checksums(adapter)
        CausalLM(str(base), adapter=str(adapter)).configure_model()
        read_adapter(adapter, "model.glad")
        flip(adapter / "adapter_model.safetensors", 0.9)
        with pytest.raises(InputError, match=r"model\.adapter: .*adapter_model\.safetensors' is not the file that was"):
            CausalLM(str(base), adapter=str(adapter)).configure_model()
        with pytest.raises(InputError, match=r"model\.glad: .*adapter_model\.safetensors' is not the file that was"):
            read_adapter(adapter, "model.glad")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"num_hidden_layers": 2}, r"have, and the model does not use, model\.layers\.2\.input_layernorm\.weight"),
            ({"num_hidden_layers": 4}, r"lack model\.layers\.3\.input_layernorm\.weight \(the first of 9\)"),
            ({"intermediate_size": 60}, r"have another size for model\.layers\.0\.mlp\.down_proj\.weight"),
            ({"vocab_size": 300}, r"have another size for lm_head\.weight \(the first of 2\)"),
        ],
    )
    def test_a_config_of_another_model(self, change: dict[str, int], said: str, copy: Path) -> None:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=rf"model\.backbone: the weights of '{copy}' {said}"):
            load_model(str(copy))

    @pytest.mark.parametrize("content", ["", '{"eos_token_id": [1,', "[]"])
    @pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
    def test_settings_that_are_cut_or_empty(self, name: str, content: str, copy: Path) -> None:
        (copy / name).write_text(content)
        with pytest.raises(InputError, match=rf"model\.backbone: '.*{name}' (is cut or damaged|holds no settings)"):
            load_model(str(copy))


class TestFilesOfTensors:
    @pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.7, 0.9, 1.0])
    def test_a_direction(self, place: float, tmp_path: Path) -> None:
        path = tmp_path / "d.safetensors"
        Direction(torch.randn(3, 40), model="m", positive="Long, please.", n=5, cosine=(0.1, 0.2, 0.3)).save(path)
        assert Direction.load(path).positive == "Long, please."
        flip(path, place)
        with pytest.raises(InputError, match=r"d\.safetensors: "):
            Direction.load(path)

    @pytest.mark.parametrize("place", [0.6, 0.9, 1.0])
    def test_probes(self, place: float, tmp_path: Path) -> None:
        path = tmp_path / "p.safetensors"
        save_probes([LayerProbe(0, torch.randn(1, 60), torch.zeros(1), 0.9, 0.1)], path)
        read_probes(path, "model.probes")
        flip(path, place)
        with pytest.raises(InputError, match=r"no probes can be read.*checksum differs"):
            read_probes(path, "model.probes")

    def test_names_types_and_shapes_count(self) -> None:
        one = torch.zeros(2, 3)
        others = [{"b": one}, {"a": one.T.contiguous()}, {"a": one.int()}, {"a": one, "b": one}]
        assert len({tensors_checksum(tensors) for tensors in [{"a": one}, *others]}) == 5
        assert tensors_checksum({"a": one.bfloat16()}) == tensors_checksum({"a": one.bfloat16()})


def test_a_fingerprint_tells_weights_from_others_in_their_place(copy: Path, tmp_path: Path) -> None:
    first = fingerprint(copy)
    assert fingerprint(Path(shutil.copytree(copy, tmp_path / "elsewhere"))) == first
    for name in ("model.safetensors", "config.json"):
        flip(copy / name, 0.9)
        assert fingerprint(copy) != first
        flip(copy / name, 0.9)
    (copy / "README.md").write_text("Of a person.")
    (copy / "eval").mkdir()
    (copy / "eval" / "predictions.jsonl").write_text("{}")  # of a run within the folder
    assert fingerprint(copy) == first
    write_checksums(copy)
    summed = fingerprint(copy)
    flip(copy / "model.safetensors", 0.3)
    write_checksums(copy)
    assert fingerprint(copy) != summed
    large = tmp_path / "large.gguf"
    large.write_bytes(bytes(50 * 2**20))
    first = fingerprint(large)
    with large.open("r+b") as file:
        file.seek(2**20 * 30)
        file.write(b"x" * 2**18)
    assert fingerprint(large) != first
