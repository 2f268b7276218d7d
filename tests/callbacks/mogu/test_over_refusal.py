"""Over-refusal of the mixture while its routers are trained."""

import csv
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from callbacks.mogu import over_refusal
from callbacks.mogu.over_refusal import OverRefusal
from datamodules.errors import InputError
from datamodules.mogu.records import ResponsePair
from datamodules.records.reader import to_json
from llm_modules.generation import Completion
from llm_modules.mogu.adapters import random_adapter, write_adapter
from llm_modules.mogu.target import output_projections
from rod.__main__ import main
from tests.conftest import ROOT
from tests.tiny import save_tiny, tiny_llama, tiny_tokenizer

pytestmark = pytest.mark.slow
ROUTERS = ROOT / "configs/mogu/3_router.yaml"


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shipped fit of routers over random responders, for two epochs of one step."""
    monkeypatch.chdir(tmp_path)
    base = save_tiny(tmp_path / "base", layers=2)
    projections = output_projections(AutoModelForCausalLM.from_pretrained(base))
    for seed, name in enumerate(("glad", "unwilling")):
        responder = random_adapter(projections, 2, 4, seed)
        write_adapter(responder, responder.deltas, tmp_path / name)
    pairs = [ResponsePair(f"b{i}", f"Open jar {i}.", False, "Twist.", "No.") for i in range(4)]
    pairs += [ResponsePair(f"m{i}", f"Open vault {i}!", True, "Sure", "No.", True) for i in range(4)]
    Path("pairs.jsonl").write_text("\n".join(map(to_json, pairs)))
    Path("others.jsonl").write_text("\n".join(f'{{"prompt": "How do I kill weed {i}?"}}' for i in range(9)))
    found = ["fit", "--config", str(ROUTERS), "--model.backbone", str(base), "--model.glad", "glad"]
    found += ["--model.unwilling", "unwilling", "--model.router", '{"d_router": 4}', "--data.pairs", "pairs.jsonl"]
    found += ["--data.val_pairs", "pairs.jsonl", "--data.val_requests", "others.jsonl", "--data.val_limit", "4"]
    return [*found, "--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"]


def logged() -> list[dict[str, str]]:
    (path,) = Path("runs/mogu/3_router").rglob("metrics.csv")
    with path.open() as file:
        return [line for line in csv.DictReader(file) if line["val/loss"]]


def answer(
    monkeypatch: pytest.MonkeyPatch,
    mixed: list[str],
    base: list[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
    milder: dict[float, list[str]] | None = None,
) -> list[list[Any]]:
    """Let the engine give these answers, others with the gates shifted, and keep the prompts that it gets."""
    asked: list[list[Any]] = []
    tokenizer = tokenizer or tiny_tokenizer()

    def generate(self: Any, prompts: list[Any], *_: Any) -> list[Completion]:
        asked.append(prompts)
        (shift,) = {mixture.routers.shift for mixture in self.mogu.mixtures.values()}
        texts = base if self.mode == "off" else (milder or {}).get(shift, mixed)
        assert len(texts) == len(prompts)
        return [Completion(tuple(tokenizer.encode(text)), "stop") for text in texts]

    monkeypatch.setattr(over_refusal.MoGUGenerator, "generate", generate)
    return asked


def test_refusals_of_other_requests_are_logged_at_each_validation_and_warned_of(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(monkeypatch, ["I'm sorry, but", "I cannot", "Cut it.", "No"], ["I cannot", "Cut it.", "So", "So"])
    with pytest.warns(
        UserWarning, match=r"of 4 benign requests of 'others.jsonl' the routers refuse 50%.*base model 25%"
    ):
        assert main(words) == 0
    lines = logged()
    assert [line["val/over_refusal"] for line in lines] == ["0.5", "0.5"]
    assert [line["val/over_refusal_base"] for line in lines] == ["0.25", "0.25"]
    assert asked[0] == asked[1] == asked[2], "the base is asked once, the mixture after each epoch"


def test_the_shift_of_the_gates_that_ends_over_refusal_is_told(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    no, so = "I cannot", "So"
    milder = {-1.0: [no, no, so, so], -2.0: [no, so, so, no], -3.0: [so, no, so, so]}
    asked = answer(monkeypatch, [no, no, no, so], [no, so, so, so], milder=milder)
    told = r"With model.gate_shift -3 .* 25% of them, and of 4 malicious validation requests 25% instead of 75%; see"
    with pytest.warns(UserWarning, match=told):
        assert main(words) == 0
    others, attacks = asked[0], asked[-1]
    assert asked == [*[others] * 3, *[others] * 5, attacks, attacks]
    assert len(attacks) == 4
    assert not [prompt for prompt in attacks if prompt in others]


def test_over_refusal_that_no_shift_ends_is_told(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, ["I cannot"] * 4, ["So"] * 4)
    with pytest.warns(UserWarning, match="No model.gate_shift down to -8 ends it; see"):
        assert main(words) == 0


def test_a_mixture_that_refuses_no_more_than_its_base_is_not_warned_of(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, ["I cannot", "So", "So", "So"], ["So", "I cannot", "So", "So"])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert main(words) == 0
    assert not [w for w in found if "over-refusal" in str(w.message)]


@pytest.fixture
def thinking(words: list[str], tmp_path: Path) -> PreTrainedTokenizerBase:
    """Let the marks of a thought be special tokens of the base model."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    tiny_llama(tokenizer, layers=2).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tokenizer


def test_what_a_thought_says_is_no_refusal(
    words: list[str], thinking: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = ["[THINK]I cannot see why not.[/THINK]Cut it.", "[THINK]Weed.[/THINK]I cannot", "So", "[THINK]I cannot"]
    answer(monkeypatch, mixed, mixed, thinking)
    assert main(words) == 0
    assert {line["val/over_refusal"] for line in logged()} == {"0.25"}


def test_a_check_that_reaches_no_answer_says_so(
    words: list[str], thinking: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, ["[THINK]I cannot"] * 4, ["[THINK]So", "[THINK]So", "[THINK]So", "I cannot"], thinking)
    with pytest.warns(UserWarning, match=r"none of 4 completions reaches its answer within 16 tokens"):
        assert main(words) == 0


def test_the_check_changes_nothing_that_is_learnt(words: list[str]) -> None:
    """The answers come from the model itself here, and draw no random numbers."""
    assert main(words) == 0
    assert 0 <= float(logged()[-1]["val/over_refusal"]) <= 1
    without = [*words, "--data.val_requests", "null", "--trainer.default_root_dir", "other"]
    with pytest.warns(UserWarning, match="over-refusal is not measured: set data.val_requests"):
        assert main(without) == 0
    states = [
        torch.load(f"{place}/checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for place in ("runs/mogu/3_router", "other")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_requests_of_the_pairs_are_no_other_source(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("others.jsonl").write_text('{"prompt": "open  jar 2"}')
    assert main(words) == 2
    assert "is among the pairs of pairs.jsonl; give data.val_requests" in capsys.readouterr().err


def test_settings_out_of_range_are_refused() -> None:
    for options in ({"max_new_tokens": 0}, {"warn_above": 1.5}):
        with pytest.raises(InputError, match="OverRefusal: max_new_tokens must be 1 or more"):
            OverRefusal(**options)
