"""ML-LR's probe, map and search on checkpoints that nobody here trained and on data that nobody here wrote."""

import json
from pathlib import Path

import pytest
import torch

from datamodules.mllr.records import Twins
from datamodules.mllr.twin_data import families
from datamodules.prompts.contrast_data import ContrastPair
from datamodules.records.reader import read_records
from llm_modules.backbone.loading import load_model
from llm_modules.mllr.investigation import ProxySettings, investigate
from llm_modules.mllr.search import SearchSettings
from llm_modules.mllr.weights import checksum
from llm_modules.optim.robust_modules import RobustModules
from rod.__main__ import main
from tests.architectures import ARCHITECTURES, VOCAB
from tests.conftest import ROOT

STAGE = ROOT / "configs/mllr/1_probe_and_search.yaml"
NOISE = ROOT / "configs/mllr/controls/noise.yaml"


@pytest.fixture(scope="module")
def twins(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AdvBench with the twins that `rod make-twins` makes."""
    output = tmp_path_factory.mktemp("twins") / "advbench.jsonl"
    goals = shared_data / "advbench/advbench.jsonl"
    words = ["--requests", goals, "--field", "goal", "--output", output, "--limit", 60]
    assert main(["make-twins", *map(str, words)]) == 0
    return output


@pytest.fixture(scope="module")
def splits(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The harmful and the harmless training split of refusal_direction, side by side: no twins, but pairs."""
    folder, output = shared_data / "refusal_direction", tmp_path_factory.mktemp("splits") / "pairs.jsonl"
    sides = [
        [json.loads(line)["instruction"] for line in (folder / name).read_text().splitlines()[:48]]
        for name in ("splits__harmful_train.jsonl", "splits__harmless_train.jsonl")
    ]
    lines = [{"malicious": bad, "benign": good} for bad, good in zip(*sides, strict=True)]
    output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stories260K", "aidreams260K"])
@pytest.mark.parametrize(
    ("data", "tested_on"),
    [("twins", "malicious_instruct/malicious_instruct.jsonl"), ("splits", "jailbreakbench/jailbreakbench.jsonl")],
)
def test_real_checkpoints_with_real_data(
    name: str, data: str, tested_on: str, shared_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = [
        "predict", "--config", STAGE, "--config", NOISE,
        "--model.init_args.backbone", shared_data / "models" / name,
        "--data.init_args.pairs", request.getfixturevalue(data),
        "--data.init_args.evaluation", f"[{shared_data / tested_on}]",
        "--data.init_args.chat_template", "plain",
        "--data.init_args.limit", 32,
        "--trainer.callbacks.search.seeds", "[0]",
        "--trainer.callbacks.search.check_seeds", "[100]",
        "--trainer.callbacks.proxy.floor", 0.0,  # children's stories hold no idea of malice, only of words
        "--trainer.callbacks.proxy.stability", "false",
        "--trainer.default_root_dir", tmp_path,
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    result = RobustModules.load(tmp_path / "robust_modules.yaml")
    assert result.layers == {"stories260K": 5, "aidreams260K": 4}[name]
    assert 0 <= result.probe["accuracy"] <= 1
    assert {entry["step"] for entry in result.search} >= {"order", "suffix", "check"}
    assert (tmp_path / "robustness.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("alpaca", "alpaca_subsets/random_9k.jsonl"),
        ("alpaca", "benign_finetune_asft/alpaca_1k_p_0.jsonl"),
        ("alpaca", "benign_finetune_asft/agnews_1k_p_0.jsonl"),
        ("alpaca", "benign_finetune_asft/gsm8k_1k_p_0.jsonl"),
        ("alpaca", "mt_bench/dummy_conversation.jsonl"),
        ("gsm8k", "gsm8k/train.jsonl"),
    ],
)
def test_benign_fine_tunes_on_real_data(
    stage: str, file: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few steps of a real checkpoint: the robust part moves, the rest hardly."""
    monkeypatch.chdir(tmp_path)
    checkpoint = shared_data / "models/stories260K"
    (tmp_path / "set.jsonl").symlink_to(shared_data / file)  # bad lines are written beside it
    rates = {"result": None, "modules": ["layers.3-4.*"]}
    (tmp_path / "modules.yaml").write_text(json.dumps({"model": {"init_args": {"learning_rates": rates}}}))
    words = [
        "fit", "--config", ROOT / "configs/mllr/2_tune.yaml", "--config", ROOT / f"configs/mllr/real/{stage}.yaml",
        "--model.init_args.backbone", checkpoint,
        "--config", tmp_path / "modules.yaml",
        "--data.init_args.path", tmp_path / "set.jsonl",
        "--data.init_args.chat_template", "plain",
        "--data.init_args.max_length", 256,
        "--data.init_args.batch_size", 4,
        "--trainer.max_epochs", 1,
        "--trainer.max_steps", 3,
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    trained = torch.load(tmp_path / "runs/mllr/2_tune/mllr/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    before = load_model(str(checkpoint)).state_dict()
    moved = {
        name: float((weight - before[name.removeprefix("model.")]).norm() / weight.norm())
        for name, weight in trained.items()
        if "proj" in name
    }
    deep = [change for name, change in moved.items() if "layers.3." in name or "layers.4." in name]
    early = [change for name, change in moved.items() if "layers.0." in name]
    assert min(deep) > 100 * max(early)


def test_advbench_and_jailbreakbench_have_texts_in_common_and_are_refused(
    shared_data: Path, twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known to those who made it: JailbreakBench takes some of its behaviours from AdvBench."""
    tested_on = shared_data / "jailbreakbench/jailbreakbench.jsonl"
    words = [
        "predict", "--config", STAGE, "--config", NOISE,
        "--data.init_args.pairs", twins, "--data.init_args.evaluation", f"[{tested_on}]",
        "--trainer.default_root_dir", tmp_path,
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 2
    assert "also stand in the evaluation file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_with_real_data(name: str, twins: Path) -> None:
    records = read_records(twins, Twins)[:24]
    pairs = [ContrastPair(twin.id, twin.malicious, twin.benign) for twin in records]

    def encode(text: str) -> list[int]:
        return [min(byte, VOCAB - 1) for byte in text.encode()][-60:]

    model = ARCHITECTURES[name]()
    before = checksum(model)
    # The features of random weights say little about a prompt's words.
    proxy, search = ProxySettings(floor=0.0, stability=False), SearchSettings(seeds=(0,), check_seeds=(100,))
    malicious, benign = (
        [encode(text) for text in side] for side in zip(*((p.positive, p.negative) for p in pairs), strict=True)
    )

    found, whole = (
        investigate(model, malicious, benign, families(pairs), proxy, search, restart=restart)
        for restart in (True, False)
    )
    assert found.found == whole.found
    assert found.work.done < found.work.full
    assert checksum(model) == before
