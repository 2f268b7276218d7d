"""Backbones in other forms than a Hugging Face folder in floats."""

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import gguf
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, TorchAoConfig
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin, QuantizationMethod

from datamodules.errors import InputError
from llm_modules.backbone import hub
from llm_modules.backbone.adapters import merge
from llm_modules.backbone.hub import options_of
from llm_modules.backbone.loading import (
    load_model,
    load_tokenizer,
    max_positions,
    model_id,
    read_config,
    require_model,
    source,
    without_weights,
)
from llm_modules.backbone.quantization import quantization_config
from llm_modules.causal_lm import CausalLM
from tests.conftest import ROOT
from tests.supervised import RandomExamples
from tests.tiny import save_tiny

PAGE = ROOT / "docs/models.md"
IDS = torch.tensor([[5, 9, 200, 17]])


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    found = model.eval()(input_ids=IDS).logits
    assert isinstance(found, torch.Tensor)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("base"), layers=2))


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("adapter_config.json", "an adapter.* as model.adapter"),
        ("mogu.json", "a MoGU"),
        ("config.yaml", "a run: .*rod export"),
    ],
)
def test_a_folder_of_another_kind_is_told(file: str, said: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    with pytest.raises(InputError, match=f"is {said}"):
        require_model(str(tmp_path))


def test_a_home_folder_is_expanded(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path(base).parent))
    name = f"~/{Path(base).name}"
    assert model_id(name) == base
    assert torch.equal(logits(load_model(name)), logits(load_model(base)))


def test_the_type_of_the_weights_is_a_name_or_torch_s(base: str) -> None:
    unknown: Any = "bf16"
    for dtype in ("bfloat16", torch.bfloat16):
        assert load_model(base, dtype=dtype).dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"model\.dtype: 'bf16' is none of auto, float32, bfloat16, float16"):
        load_model(base, dtype=unknown)


def test_a_tokenizer_without_a_configuration(base: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((Path(base) / "tokenizer.json").read_bytes())
    assert load_tokenizer(str(tmp_path)).encode("a b") == load_tokenizer(base).encode("a b")


class OneWay(HfQuantizer):
    """A kind of quantised weights that transformers cannot turn back into floats."""

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


class TestGGUF:
    def test_a_file_is_a_file_of_its_folder_or_repository(self) -> None:
        assert source("/models/a.Q4_0.gguf") == ("/models", {"gguf_file": "a.Q4_0.gguf"})
        assert source("owner/name/a.gguf") == ("owner/name", {"gguf_file": "a.gguf"})
        assert source("a.gguf") == (".", {"gguf_file": "a.gguf"})

    def test_it_gives_the_model_that_was_written(self, base: str, tmp_path: Path) -> None:
        file = tmp_path / "tiny.gguf"
        write_gguf(load_model(base), file)
        assert max_positions(str(file)) == load_model(base).config.max_position_embeddings
        torch.testing.assert_close(logits(load_model(str(file))), logits(load_model(base)), atol=1e-5, rtol=1e-5)
        assert model_id(str(file)) == str(file)
        assert "hello" in load_tokenizer(str(file)).get_vocab()

    @pytest.mark.parametrize("name", ["/no/such/model.gguf", "model.gguf"])
    def test_no_such_file(self, name: str) -> None:
        with pytest.raises(InputError, match=r"model\.backbone: there is no file"):
            load_model(name)

    def test_a_broken_file(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").write_bytes(b"GGUF")
        with pytest.raises(InputError, match=r"model\.backbone: .*m\.gguf' cannot be loaded"):
            load_model(str(tmp_path / "m.gguf"))


def write_gguf(model: PreTrainedModel, file: Path) -> None:
    """A Llama in the layout of llama.cpp, which interleaves the halves of each head's queries and keys."""
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    words = ["<unk>", "<s>", "</s>", "hello", *(f"t{n}" for n in range(config.vocab_size - 4))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        place = name.removesuffix(".weight")
        if place in whole:
            theirs = whole[place]
        else:
            _, _, layer, rest = place.split(".", 3)
            theirs = f"blk.{layer}.{names[rest]}"
        array = tensor.float().numpy()
        if (number := heads.get(theirs.rpartition(".")[2])) is not None:
            rows, columns = array.shape
            array = array.reshape(number, 2, rows // number // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(f"{theirs}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class TestQuantization:
    def test_the_short_names(self) -> None:
        four, eight = quantization_config("4bit").to_dict(), quantization_config("8bit").to_dict()
        assert (four["load_in_4bit"], four["bnb_4bit_quant_type"], four["bnb_4bit_use_double_quant"]) == (
            True,
            "nf4",
            True,
        )
        assert (eight["load_in_4bit"], eight["load_in_8bit"]) == (False, True)

    def test_random_weights(self, base: str) -> None:
        with pytest.raises(InputError, match=r"model\.quantization: random weights"):
            load_model(base, random_weights=True, quantization="4bit")

    @pytest.mark.parametrize("bits", ["4bit", "8bit"])
    def test_an_adapter_is_trained_in_float32_and_merged_into_floats(
        self, bits: Literal["4bit", "8bit"], tmp_path: Path
    ) -> None:
        pytest.importorskip("bitsandbytes")
        folder = save_tiny(tmp_path / "wide", layers=2, hidden=64)
        module = CausalLM(
            str(folder),
            quantization=bits,
            peft=LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
        )
        run = Trainer(
            max_epochs=1,
            limit_train_batches=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        run.fit(module, datamodule=RandomExamples())
        assert isinstance(module.model, PeftModel)
        trained = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
        assert {parameter.dtype for parameter in trained} == {torch.float32}
        expected = logits(module.model)
        with pytest.warns(UserWarning, match="dequantised"):
            merged = merge(module.model)
        assert not getattr(merged, "is_quantized", False)
        error = (logits(merged) - expected).abs().max() / expected.abs().max()
        assert error < 0.05  # activations are rounded, too, in the quantised product

    def test_what_cannot_be_dequantised_is_exported_as_an_adapter(self, base: str) -> None:
        """The quantiser is one of transformers' without a way back, like torchao's; transformers itself refuses."""
        adapted = get_peft_model(load_model(base), LoraConfig(r=2, target_modules="all-linear"))
        inner: Any = adapted.get_base_model()
        inner.is_quantized, inner.hf_quantizer = True, OneWay(QuantizationConfigMixin(QuantizationMethod.TORCHAO))
        with pytest.warns(UserWarning, match="dequantised"), pytest.raises(InputError, match="export it with --format"):
            merge(adapted)

    def test_the_page_s_configuration_of_torchao_is_one(self, base: str) -> None:
        """It runs if torchao is installed."""
        quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
        (written,) = re.findall(
            r"init_args: {quant_type: {class_path: torchao\.quantization\.(\w+)}}", PAGE.read_text()
        )
        config = TorchAoConfig(getattr(quantization, written)())
        model = load_model(base, quantization=config)
        assert getattr(model, "is_quantized", False)
        assert not any(parameter.requires_grad for parameter in model.parameters())

    def test_weights_themselves_are_not_trained(self, tmp_path: Path) -> None:
        pytest.importorskip("bitsandbytes")
        base = str(save_tiny(tmp_path / "wide", layers=2, hidden=64))  # the kernels of CPUs take no narrower one
        run = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
        with pytest.raises(InputError, match=r"no weight is trained; give model\.peft"):
            run.fit(CausalLM(base, quantization="4bit"), datamodule=RandomExamples())


class TestNoHub:
    """A name that is no folder is not asked for again and again; before, each of these took a minute."""

    @pytest.fixture(autouse=True)
    def no_name_service(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def fail(*_: object, **__: object) -> NoReturn:
            raise socket.gaierror(-2, "Name or service not known")

        def retried(_: float) -> NoReturn:
            raise AssertionError("the hub is asked a second time")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        monkeypatch.setattr(hub, "getproxies", dict)
        monkeypatch.setattr(time, "sleep", retried)
        (tmp_path / "runs").mkdir()
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("nosuch/model", "https://huggingface.co cannot be reached"),
            ("nosuch", "https://huggingface.co cannot be reached"),
            ("runs/nosuch", "the hub is not asked, as 'runs' is a folder here"),
        ],
    )
    @pytest.mark.parametrize("load", [load_model, load_tokenizer, read_config, without_weights])
    def test_it_is_said_at_once(self, load: Callable[[str], object], name: str, why: str) -> None:
        with pytest.raises(InputError, match=f"model.backbone: there is no folder '{name}', and no such model.*{why}"):
            load(name)

    def test_a_name_is_looked_up_where_no_folder_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
        assert options_of("owner/model") == {}
        assert options_of("runs") == {}
        assert options_of("runs/model") == {"local_files_only": True}

    def test_an_adapter(self, base: str) -> None:
        module = CausalLM(base, adapter="nosuch/adapter")
        with pytest.raises(InputError, match=r"model\.adapter: there is no folder 'nosuch/adapter'"):
            module.configure_model()

    def test_the_option_that_names_it(self) -> None:
        for load in (load_model, load_tokenizer, read_config):
            with pytest.raises(InputError, match="--base: there is no folder '/no/such'"):
                load("/no/such", key="--base")
