"""Files that were written before the modules moved to their rooms load, and give the numbers that they gave then."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn

from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.mogu import MoGUModel, RouterConfig
from llm_modules.mogu.module import MoGU
from llm_modules.s3cot import Direction
from llm_modules.s3cot.module import S3CoT
from tests.conftest import ROOT

WRITTEN = ROOT / "tests/data/first_layout"
TEXT = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n3 + 4 = 7"


@torch.no_grad()
def mean_nll(model: nn.Module) -> float:
    ids = torch.tensor([load_tokenizer("miniature")(TEXT)["input_ids"]])
    log_probabilities = model.eval()(input_ids=ids).logits.float().log_softmax(-1)
    return float(-log_probabilities[0, :-1].gather(-1, ids[0, 1:, None]).mean())


def restored(module: S3CoT | MoGU, checkpoint: Path) -> nn.Module:
    module.configure_model()
    content = torch.load(checkpoint, weights_only=True)
    module.on_load_checkpoint(content)
    missing, unexpected = module.load_state_dict(content["state_dict"], strict=False)
    assert not unexpected
    assert not [name for name in missing if module.get_parameter(name).requires_grad]
    return module.language_model


def test_the_untouched_model_has_another_loss() -> None:
    assert mean_nll(load_model("miniature")) == pytest.approx(7.241932, abs=1e-5)


def test_a_checkpoint_of_a_curriculum() -> None:
    module = S3CoT(peft=LoraConfig(r=1, lora_alpha=16, target_modules=["q_proj"]))
    assert mean_nll(restored(module, WRITTEN / "curriculum.ckpt")) == pytest.approx(7.267879, abs=1e-5)


def test_a_peft_folder() -> None:
    model = PeftModel.from_pretrained(load_model("miniature"), WRITTEN / "peft")
    assert mean_nll(model) == pytest.approx(7.267879, abs=1e-5)


def test_a_checkpoint_of_routers() -> None:
    glad, unwilling = (str(WRITTEN / "mogu" / name) for name in ("glad", "unwilling"))
    module = MoGU(glad=glad, unwilling=unwilling, router=RouterConfig(layers=(5,), d_router=2))
    assert mean_nll(restored(module, WRITTEN / "router.ckpt")) == pytest.approx(7.238887, abs=1e-5)


def test_a_mogu_folder() -> None:
    mogu = MoGUModel.from_pretrained(WRITTEN / "mogu")
    with mogu.joined():
        assert mean_nll(mogu.model) == pytest.approx(7.238887, abs=1e-5)


def test_a_direction() -> None:
    direction = Direction.load(WRITTEN / "direction.safetensors")
    assert (direction.anchor, direction.n) == (0, 100)
    assert float(direction.vectors.norm()) == pytest.approx(189.513321, rel=1e-6)


def test_traces() -> None:
    traces = read_records(WRITTEN / "traces.jsonl", Trace, strict=True)
    assert [trace.alpha for trace in traces] == [0.0, -0.25]
