"""What an adapter says of itself is held against the model that it is put on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file

from datamodules.errors import InputError
from llm_modules.backbone.adapters import add_adapter, load_adapter, merge
from llm_modules.backbone.loading import load_model
from llm_modules.backbone.origin import adapter_settings, check_settings
from llm_modules.causal_lm import CausalLM
from tests.families import tiny_model
from tests.tiny import save_tiny

IDS = torch.tensor([[5, 9, 80, 17]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("base"), layers=2))


def adapted(base: str, config: PeftConfig) -> PeftModel:
    model = get_peft_model(load_model(base), config)
    assert isinstance(model, PeftModel)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    found = model.eval()(input_ids=IDS).logits
    assert isinstance(found, torch.Tensor)
    return found


def rewritten(folder: Path, change: Callable[[str], str | None]) -> None:
    """Change the names of an adapter's tensors; None drops one."""
    file = folder / "adapter_model.safetensors"
    tensors = {change(name): tensor for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in tensors.items() if name is not None}, file)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules="all-linear"),
        LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, bias="all"),
        LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=[1, 2]),
        LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]),
        LoraConfig(r=2, target_modules=["q_proj"], layer_replication=[(0, 2), (0, 2)]),
        VeraConfig(r=2, target_modules=["q_proj"]),
        IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
        LoHaConfig(r=2, target_modules=["q_proj"]),
        LNTuningConfig(target_modules=["input_layernorm"]),
    ],
    ids=["lora", "dora", "head", "tokens", "embeddings", "replication", "vera", "ia3", "loha", "norms"],
)
def test_every_kind_is_loaded_whole(base: str, config: PeftConfig, tmp_path: Path) -> None:
    model = adapted(base, config)
    model.save_pretrained(str(tmp_path))
    assert torch.equal(logits(load_adapter(load_model(base), str(tmp_path), base)), logits(model))


OWN_TOKENS: dict[str, dict[str, Any]] = {
    "whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "indices": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 260]},
    "tables": {"target_modules": ["embed_tokens", "lm_head"]},
    "table": {"target_modules": ["q_proj", "embed_tokens"]},
}


@pytest.mark.parametrize("kind", ["whole", "indices", "tables"])
def test_an_adapter_with_tokens_of_its_own(base: str, kind: str, tmp_path: Path) -> None:
    model = load_model(base)
    rows = int(model.config.vocab_size)
    model.resize_token_embeddings(rows + 2)
    adapted = get_peft_model(model, LoraConfig(r=2, **OWN_TOKENS[kind]))
    ids = torch.tensor([[5, rows, rows + 1]])
    with torch.no_grad():
        expected = adapted.eval()(input_ids=ids).logits
    adapted.save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text().replace(base, "/a/folder/that/has/moved"))
    with torch.no_grad(), pytest.warns(UserWarning, match="was made for"):
        found = load_adapter(load_model(base), str(tmp_path), base).eval()(input_ids=ids).logits
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("tied", "kind", "stored"), [(False, "table", True), (True, "table", False)])
def test_the_weights_of_its_own_tokens_are_missing(
    base: str, tied: bool, kind: str, stored: bool, tmp_path: Path
) -> None:
    model = load_model(base)
    model.config.tie_word_embeddings = tied
    model.resize_token_embeddings(int(model.config.vocab_size) + 2)
    get_peft_model(model, LoraConfig(r=2, **OWN_TOKENS[kind])).save_pretrained(
        str(tmp_path), save_embedding_layers=stored
    )
    fresh = load_model(base)
    fresh.config.tie_word_embeddings = tied
    with pytest.raises(
        InputError, match=r"^model\.adapter: .* of 261 tokens, and lacks the weights of those .* to 259"
    ):
        load_adapter(fresh, str(tmp_path), base)


def tied(base: str) -> Any:
    """The base with its output head tied to its embeddings."""
    model = load_model(base)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model


def test_own_tokens_of_tied_embeddings_come_with_either(base: str, tmp_path: Path) -> None:
    model = tied(base)
    model.resize_token_embeddings(261)
    adapted = get_peft_model(model, LoraConfig(r=2, **OWN_TOKENS["table"]))
    adapted.save_pretrained(str(tmp_path))
    assert torch.equal(logits(load_adapter(tied(base), str(tmp_path), base)), logits(adapted))


@pytest.mark.parametrize("table", ["embed_tokens", "lm_head"])
def test_a_copy_of_one_of_two_tied_tables_is_not_enough(base: str, table: str, tmp_path: Path) -> None:
    """The other one has the rows of the model before training, which are not stored."""

    model = tied(base)
    model.resize_token_embeddings(261)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=[table]))
    adapted.save_pretrained(str(tmp_path), save_embedding_layers=False)
    with pytest.raises(InputError, match="of 261 tokens, and lacks the weights of those"):
        load_adapter(tied(base), str(tmp_path), base)
    grown = tied(base)
    grown.resize_token_embeddings(261)
    load_adapter(grown, str(tmp_path), base)


class TestAFolderThatDoesNotFit:
    """PEFT itself only warns, and the base is measured in the adapter's name."""

    @pytest.fixture
    def folder(self, base: str, tmp_path: Path) -> Path:
        adapted(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(str(tmp_path))
        return tmp_path

    def test_names_of_another_wrapper(self, base: str, folder: Path) -> None:
        rewritten(folder, lambda name: name.replace("model.model.layers", "model.model.language_model.layers"))
        message = r"lacks 8 of 8 weights .* first base_model\.model\.model\.layers\.0.*it has .*language_model"
        with pytest.raises(InputError, match=message):
            load_adapter(load_model(base), str(folder), base)

    def test_a_part_is_missing(self, base: str, folder: Path) -> None:
        rewritten(folder, lambda name: None if "layers.1" in name else name)
        with pytest.raises(InputError, match=r"lacks 4 of 8 weights .*saved in part"):
            load_adapter(load_model(base), str(folder), base)

    def test_a_part_has_no_place(self, base: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        one = str(save_tiny(tmp_path_factory.mktemp("one"), layers=1))
        with pytest.raises(InputError, match=r"has 4 weights for which .* has no place, first .*layers\.1"):
            load_adapter(load_model(one), str(folder), one)

    @pytest.mark.parametrize("size", [0, 100], ids=["empty", "cut"])
    def test_a_broken_file(self, base: str, folder: Path, size: int) -> None:
        file = folder / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(InputError, match=r"model\.adapter: .* does not fit"):
            load_adapter(load_model(base), str(folder), base)

    def test_another_base_of_the_same_shape_is_told(
        self, folder: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = str(save_tiny(tmp_path_factory.mktemp("other"), layers=2, seed=1))
        with pytest.warns(UserWarning, match="was made for"):
            load_adapter(load_model(other), str(folder), other)


class TestMerge:
    @pytest.fixture(scope="class")
    def tied(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        folder = tmp_path_factory.mktemp("tied")
        model = load_model(str(save_tiny(folder, layers=2)))
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(folder)
        return str(folder)

    def test_the_merged_model_computes_the_same(self, tied: str) -> None:
        model = adapted(tied, LoraConfig(r=2, target_modules="all-linear"))
        expected = logits(model)
        torch.testing.assert_close(logits(merge(model)), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("more", [{}, {"ensure_weight_tying": True}], ids=["loose", "tied"])
    def test_shared_embeddings_cannot_be_merged(self, tied: str, more: dict[str, Any]) -> None:
        model = adapted(tied, LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], **more))
        with pytest.raises(InputError, match="shares with its output head"):
            merge(model)

    def test_an_untied_embedding_can(self, base: str) -> None:
        model = adapted(base, LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]))
        expected = logits(model)
        torch.testing.assert_close(logits(merge(model)), expected, atol=1e-5, rtol=1e-5)

    def test_repeated_layers_cannot(self, base: str) -> None:
        model = adapted(base, LoraConfig(r=2, target_modules=["q_proj"], layer_replication=[(0, 2), (0, 2)]))
        with pytest.raises(InputError, match="layer_replication"):
            merge(model)


@pytest.mark.parametrize(
    "options",
    [{"target_modules": ["embed_tokens", "q_proj"]}, {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}],
    ids=["embeddings", "tokens"],
)
def test_embeddings_can_be_adapted(base: str, options: dict[str, Any]) -> None:
    module = CausalLM(base, peft=LoraConfig(r=2, **options))
    module.configure_model()
    assert any("embed_tokens" in name for name in module.trainable_names())


def test_settings_that_change_what_is_computed_are_compared(base: str) -> None:
    def settings(**options: Any) -> dict[str, Any]:
        changed: dict[str, Any] = {"lora_alpha": 8, "target_modules": "all-linear"} | options
        return adapter_settings(adapted(base, LoraConfig(r=2, **changed)))

    own = settings()
    check_settings(settings(lora_dropout=0.5), own)
    check_settings({}, own)
    others: dict[str, Any] = {"lora_alpha": 64, "use_rslora": True, "use_dora": True, "init_lora_weights": "pissa"}
    for key, value in others.items():
        with pytest.raises(InputError, match=rf"model\.peft\.{key} "):
            check_settings(settings(**{key: value}), own)


@pytest.mark.parametrize("family", ["laguna", "inkling2_text"])
def test_tensors_that_peft_would_rename_are_loaded(family: str, tmp_path: Path) -> None:
    """PEFT left their shared experts and convolutions at random, and said nothing."""
    model = tiny_model(family)
    adapted = add_adapter(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False), "model.peft")
    expected = logits(adapted)
    adapted.save_pretrained(str(tmp_path))
    adapted.unload()
    assert torch.equal(logits(load_adapter(model, str(tmp_path), str(model.name_or_path))), expected)


@pytest.mark.parametrize(
    ("family", "left_out"),
    [("llama4_text", {"router"}), ("nemotron_h", {"out_proj", "conv1d"}), ("llama", set())],
)
def test_all_linear_leaves_out_what_cannot_be_adapted(family: str, left_out: set[str]) -> None:
    config = LoraConfig(r=2, target_modules="all-linear")
    model = add_adapter(tiny_model(family), config, "model.peft")
    assert set(config.exclude_modules or ()) == left_out
    adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted
    assert not adapted & left_out
