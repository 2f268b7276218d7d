"""Tokens that end a completion."""

import warnings

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.prompts.chat_template import turn_end_id
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.backbone.vocabulary import end_ids


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("miniature")


@pytest.fixture
def model() -> PreTrainedModel:
    return load_model("miniature")


def test_a_template_that_ends_turns_as_the_model_does(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert end_ids(model, tokenizer, "m") == {tokenizer.eos_token_id}


def test_a_turn_ends_a_completion_where_no_setting_says_so(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.eos_token = "<|im_start|>"
    assert model.generation_config is not None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with pytest.warns(UserWarning, match=r"template of 'm' ends an assistant turn with '<\|im_end\|>'"):
        assert end_ids(model, tokenizer, "m") == {tokenizer.eos_token_id, turn_end}


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{% for m in messages %}{{ m.content }}\n<|im_end|>\n{% endfor %}", "<|im_end|>"),
        ("{% for m in messages %}{{ m.content }}\n\n{% endfor %}", None),
        ("{% for m in messages %}{{ m.content }} Human:{% endfor %}", None),
        ("{{ raise_exception('no') }}", None),
        ("<|im_start|>{% for m in messages %}{% for p in m.content if p is mapping %}x{% endfor %}{% endfor %}", None),
        (None, None),
    ],
    ids=["a token", "line breaks", "words", "an error", "words are dropped", "no template"],
)
def test_only_an_added_token_ends_a_turn(
    tokenizer: PreTrainedTokenizerBase, template: str | None, found: str | None
) -> None:
    tokenizer.chat_template = template
    assert turn_end_id(tokenizer) == (None if found is None else tokenizer.convert_tokens_to_ids(found))
