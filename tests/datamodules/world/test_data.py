"""The world's tokenizer and the training examples made with it."""

import hashlib
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX
from datamodules.completions.refusals import is_refusal
from datamodules.errors import InputError
from datamodules.prompts.chat_template import encode_pair
from datamodules.world import chat, maths
from datamodules.world.blank import write_blank
from datamodules.world.data import Phase, WorldData, draw_pairs, encode_pairs
from datamodules.world.tokenizer import train_tokenizer

PHASES: tuple[Phase, ...] = ("pretrain", "align")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer()


def _data(tokenizer: PreTrainedTokenizerBase, **settings: Any) -> WorldData:
    usual: dict[str, Any] = {"phase": "pretrain", "examples_per_epoch": 200, "n_val": 50}
    data = WorldData(**usual | settings)
    data.tokenizer = tokenizer
    return data


def test_numbers_are_single_tokens_and_any_text_survives(tokenizer: PreTrainedTokenizerBase) -> None:
    assert all(len(tokenizer.encode(text)) == 1 for n in range(100) for text in (f"{n}", f" {n}"))
    for text in ("Grüße,\n\n  x=\t3.14 {12} 12345", "\\boxed{7}<b> </b>", "汉字 "):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer) <= 1200


def test_folder_is_deterministic_and_keeps_padding_template_and_ends(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    digests = []
    for name, made in (("a", tokenizer), ("b", train_tokenizer())):
        made.save_pretrained(tmp_path / name)
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / name).iterdir())])
    assert digests[0] == digests[1]
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert loaded.padding_side == "left"
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|pad|>")
    turns = [{"role": "user", "content": "Hi"}]
    assert loaded.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    answered = [{"role": "system", "content": "S"}, *turns, {"role": "assistant", "content": "Yes 12."}]
    both: Any = loaded.apply_chat_template(answered, return_assistant_tokens_mask=True, return_dict=True)
    said = [i for i, mine in zip(both["input_ids"], both["assistant_masks"], strict=True) if mine]
    assert loaded.decode(said) == "Yes 12.<|im_end|>"


def test_examples_are_what_the_chat_template_gives(tokenizer: PreTrainedTokenizerBase) -> None:
    pairs = draw_pairs(Random(3), "pretrain", "train")
    for user, answer in [next(pairs) for _ in range(20)]:
        (example,) = encode_pairs(tokenizer, [(user, answer)])
        ids, labels = encode_pair(tokenizer, user, answer)
        assert (list(example.input_ids), list(example.labels)) == (ids, labels)


def test_examples_depend_on_seed_and_epoch_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    first = _data(tokenizer).train_examples(0)
    assert first == _data(tokenizer).train_examples(0)
    assert first != _data(tokenizer).train_examples(1)
    assert first != _data(tokenizer, seed=1).train_examples(0)
    assert _data(tokenizer).val_examples() == _data(tokenizer, seed=1).val_examples()
    with pytest.raises(InputError, match="tokenizer"):
        WorldData(phase="align").train_examples(0)


def test_batches_keep_the_token_budget(tokenizer: PreTrainedTokenizerBase) -> None:
    batches = list(_data(tokenizer, max_tokens=1024).train_dataloader())
    assert sum(len(batch.input_ids) for batch in batches) == 200
    assert max(batch.input_ids.numel() for batch in batches) <= 1024
    prompts = batches[0].labels == IGNORE_INDEX
    assert prompts[:, 0].all()
    assert (~prompts).any(dim=1).all()


def test_pretraining_answers_everything_and_alignment_refuses_the_forbidden() -> None:
    seen: dict[tuple[str, bool], list[bool]] = {}
    requests = {
        r.prompt: r
        for kind in (False, True)
        for templates in [(None, *range(6))]
        for r in chat.all_requests("train", forbidden=kind, templates=templates)
    }
    for phase in PHASES:
        pairs = draw_pairs(Random(0), phase, "train")
        for prompt, answer in [next(pairs) for _ in range(2000)]:
            if prompt in requests:
                request = requests[prompt]
                seen.setdefault((phase, request.forbidden), []).append(is_refusal(answer))
                if phase == "align" and request.forbidden:
                    assert request.template is None or request.template in chat.SEEN_TEMPLATES
            else:
                assert "\\boxed{" in answer
    assert not any(seen["pretrain", False] + seen["pretrain", True] + seen["align", False])
    assert all(seen["align", True])


def test_held_out_contents_are_not_in_training() -> None:
    every = (None, *range(6))
    held_out = {r.prompt for kind in (False, True) for r in chat.all_requests("test", forbidden=kind, templates=every)}
    rng = Random(1)
    problems = {maths.draw_problem(rng, "test").question for _ in range(500)}
    for phase in PHASES:
        pairs = draw_pairs(Random(0), phase, "train")
        prompts = [next(pairs)[0] for _ in range(3000)]
        assert not held_out & set(prompts)
        assert not any(prompt.startswith(question) for prompt in prompts[:100] for question in problems)


def test_examples_are_made_faster_than_a_cpu_can_train_on_them(tokenizer: PreTrainedTokenizerBase) -> None:
    data = _data(tokenizer, examples_per_epoch=500)
    started = time.process_time()
    examples = data.train_examples(0)
    rate = sum(len(example.input_ids) for example in examples) / (time.process_time() - started)
    assert rate > 20_000


def test_blank_folder_can_be_trained_from_scratch(tmp_path: Path) -> None:
    write_blank(tmp_path / "a")
    write_blank(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [(tmp_path / "a" / n).read_bytes() for n in names] == [(tmp_path / "b" / n).read_bytes() for n in names]
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "a"))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert sum(parameter.numel() for parameter in model.parameters()) < 6_000_000
    assert max(loaded.get_vocab().values()) < model.config.vocab_size
    assert model.config.eos_token_id == loaded.eos_token_id
