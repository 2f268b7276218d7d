"""MoGU through the command: pairs, two responders, routers, one folder; alone and by two processes."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from datamodules.mogu.records import Attack, ResponsePair
from datamodules.prompts.chat_template import encode_prompt, render_prompt
from datamodules.records.kinds import Instruction, Trace
from datamodules.records.reader import read_records, to_json
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.generation import GenerationSettings
from llm_modules.mogu import module as modules
from llm_modules.mogu.adapters import random_adapter
from llm_modules.mogu.config import RouterConfig
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.module import MoGU
from llm_modules.mogu.target import output_projections
from rod.__main__ import main
from tests.architectures import ARCHITECTURES
from tests.conftest import PUBLISHED, ROOT
from tests.llm_modules.mogu.parts import adapters
from tests.processes import Processes
from tests.tiny import save_tiny, tiny_tokenizer

STAGES = ROOT / "configs/mogu"
KINDS = ("llama", "gemma3", "phi3", "falcon_alibi", "opt", "gpt_neox", "gpt2", "qwen3_moe")
"""Each kind of attention and of projections once; Mistral, Qwen and the others have the layers of one of these."""
PROMPTS = [[70, 71, 72], [80, 81, 82, 83]]


def rod(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def write_pairs(folder: Path, n: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "val"):
        pairs = [ResponsePair(f"b{i}", f"Open jar {i}.", False, f"Twist lid {i}.", "No.") for i in range(n)]
        pairs += [ResponsePair(f"m{i}", f"Open vault {i}!", True, f"Sure, here {i}", "No.", True) for i in range(n)]
        (folder / f"pairs.{name}.jsonl").write_text("\n".join(map(to_json, pairs)), encoding="utf-8")
    return folder


def real_pairs(data: Path, folder: Path, n: int = 8) -> Path:
    """Requests of AdvBench with their targets, and of Alpaca with its answers: short ones, a token is a byte here."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = yaml.safe_load((STAGES / "real/alpaca.yaml").read_text())["data"]["fields"]["question"]
    attacked = yaml.safe_load((STAGES / "real/advbench.yaml").read_text())["malicious_fields"]
    answered = {"prompt": asked, "response": "output"}
    requests = read_records(data / "alpaca_subsets/random_9k.jsonl", Instruction, fields=answered)
    attacks = read_records(data / "advbench/advbench.jsonl", Attack, fields=attacked)
    short = [r for r in requests if len(r.prompt) + len(r.response) < 160][: 2 * n]
    bad = [a for a in attacks if len(a.prompt) + len(a.target) < 160][: 2 * n]
    assert len(short) == len(bad) == 2 * n
    assert any("\n\n" in request.prompt for request in short), "some have an input"
    for start, name in ((0, "train"), (n, "val")):
        part = slice(start, start + n)
        pairs = [ResponsePair(f"b{i}", r.prompt, False, r.response, "No.") for i, r in enumerate(short[part])]
        pairs += [ResponsePair(f"m{i}", a.prompt, True, a.target, "No.", True) for i, a in enumerate(bad[part])]
        (folder / f"pairs.{name}.jsonl").write_text("\n".join(map(to_json, pairs)), encoding="utf-8")
    return folder


def three_fits(base: Path, pairs: Path, *words: object) -> None:
    """The stages as they are shipped, in the working folder, with two steps each."""
    common = ["--model.backbone", base, "--trainer.enable_progress_bar", "false", "--trainer.max_epochs", 1]
    common += ["--data.pairs", pairs / "pairs.train.jsonl", "--data.limit", 4]
    common += ["--data.val_pairs", pairs / "pairs.val.jsonl", "--data.batch_size", 2, *words]
    for stage, name in (("1_glad", "glad"), ("2_unwilling", "unwilling")):
        rod("fit", "--config", STAGES / f"{stage}.yaml", *common)
        checkpoint = f"runs/mogu/{stage}/checkpoints/best.ckpt"
        rod("export", "--format", "peft", "--checkpoint", checkpoint, "--output", f"runs/mogu/{name}")
    rod("fit", "--config", STAGES / "3_router.yaml", *common, "--data.val_requests", "null")
    export = ["export", "--checkpoint", "runs/mogu/3_router/checkpoints/best.ckpt", "--output", "runs/mogu/mogu"]
    assert main([*export, "--format", "merged"]) == 2, "a MoGU cannot be merged"
    rod(*export, "--format", "mogu")


def generated(folder: Path) -> list[list[int]]:
    found = MoGUModel.from_pretrained(folder).generate(PROMPTS, GenerationSettings(max_new_tokens=8))
    return [list(done.token_ids) for done in found]


def write_generated(folders: list[Path], out: Path) -> None:
    out.write_text(json.dumps([generated(folder) for folder in folders]))


def in_another_process(tmp_path: Path, *folders: Path) -> list[list[list[int]]]:
    Processes(write_generated, folders, tmp_path / "generated.json", log=tmp_path / "log.txt").succeed()
    return json.loads((tmp_path / "generated.json").read_text())


@pytest.mark.slow
def test_the_three_fits_of_every_kind_of_family_are_loaded_in_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = real_pairs(PUBLISHED, tmp_path / "pairs") if PUBLISHED.is_dir() else write_pairs(tmp_path / "pairs")
    folders = []
    for name in KINDS:
        place = tmp_path / name
        place.mkdir()
        monkeypatch.chdir(place)
        tokenizer, model = tiny_tokenizer(), ARCHITECTURES[name]()
        model.resize_token_embeddings(len(tokenizer))
        model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained("base")
        # Apart from the model: its family would make a tokenizer of its own kind of the same files.
        tokenizer.save_pretrained("tokenizer")
        three_fits(place / "base", pairs, "--model.tokenizer", place / "tokenizer")
        single = AutoModelForCausalLM.from_pretrained(place / "base")
        assert isinstance(PeftModel.from_pretrained(single, "runs/mogu/glad"), PeftModel)
        assert Path("runs/mogu/3_router/gates.png").stat().st_size > 5000
        assert Path("runs/mogu/3_router/gates_tokens.png").stat().st_size > 5000
        tokens = json.loads(Path("runs/mogu/3_router/gates_tokens.json").read_text())
        assert all(0 <= gate <= 1 for text, *gates in tokens["malicious"] for gate in gates)
        folders.append(place / "runs/mogu/mogu")
    assert in_another_process(tmp_path, *folders) == [generated(folder) for folder in folders]


def words_of_a_fit_by_layers(folder: Path) -> list[object]:
    """A fit of the routers by layers over random responders, whose steps change nothing."""
    base, pairs = save_tiny(folder / "base", layers=2), write_pairs(folder / "pairs")
    words: list[object] = ["fit", "--config", STAGES / "3_router.yaml", "--model.backbone", base]
    words += [word for name, place in adapters(base, folder).items() for word in (f"--model.{name}", place)]
    words += ["--model.router", "{d_router: 0, bias: true}", "--model.fit_by_layers", "true"]
    words += ["--data.pairs", pairs / "pairs.train.jsonl", "--data.val_pairs", pairs / "pairs.val.jsonl"]
    words += ["--data.val_requests", "null", "--trainer.enable_progress_bar", "false"]
    return [*words, "--model.optimizer.lr", 0]


def test_routers_are_fitted_by_layers_before_the_first_step_and_not_when_a_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of_a_fit_by_layers(tmp_path)
    rod(*words, "--trainer.max_epochs", 1)
    rod("export", "--checkpoint", "runs/mogu/3_router/checkpoints/best.ckpt", "--output", "mogu", "--format", "mogu")
    mogu, tokenizer = MoGUModel.from_pretrained("mogu"), load_tokenizer("base")
    prompts = [encode_prompt(tokenizer, render_prompt(tokenizer, text)) for text in ("Open jar 0.", "Open vault 0!")]
    (benign, malicious) = (float(mogu.gates(torch.tensor([ids]))[:, 0, -1, 1].mean()) for ids in prompts)
    assert benign < 0.2 < 0.8 < malicious

    def again(*_: object, **__: object) -> None:
        raise AssertionError("the routers have been fitted")

    monkeypatch.setattr("llm_modules.mogu.module.fit_by_layers", again)
    more = ["--trainer.max_epochs", 2, "--trainer.default_root_dir", "more"]
    rod(*words, *more, "--ckpt_path", "runs/mogu/3_router/checkpoints/best.ckpt")


@pytest.mark.slow
def test_routers_fitted_by_layers_in_two_processes_are_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*words_of_a_fit_by_layers(tmp_path), "--trainer.max_epochs", 1]
    rod(*words, "--trainer.default_root_dir", "one")
    two = ["--trainer.default_root_dir", tmp_path / "two", "--trainer.devices", 2, "--trainer.strategy", "ddp"]
    Processes(main, [str(word) for word in [*words, *two]], ranks=2, log=tmp_path / "log.txt").succeed()
    one, other = (torch.load(f"{run}/checkpoints/best.ckpt", weights_only=True)["state_dict"] for run in ("one", "two"))
    assert one.keys() == other.keys()
    for name in one:  # up to where the solver stops, which rounding decides
        torch.testing.assert_close(one[name], other[name], atol=0.02, rtol=0.01)
    assert any(tensor.any() for tensor in one.values())


def _disagreeing(words: list[str], place: Path) -> int:
    """A fit by layers that finds other routers in each process, and writes what each begins to train with."""
    rank = int(os.environ["LOCAL_RANK"])

    def found(mogu: MoGUModel, *_: object, **__: object) -> None:
        for parameter in mogu.router_parameters():
            torch.nn.init.constant_(parameter, rank + 1)

    def write(module: MoGU) -> None:
        torch.save(list(module.mogu.router_parameters()), place / f"{rank}.pt")

    with mock.patch.object(modules, "fit_by_layers", found), mock.patch.object(MoGU, "on_train_start", write):
        return main(words)


@pytest.mark.slow
def test_processes_that_find_other_routers_train_those_of_the_first(tmp_path: Path) -> None:
    words = [*words_of_a_fit_by_layers(tmp_path), "--trainer.max_steps", 1, "--trainer.default_root_dir", tmp_path]
    words += ["--trainer.devices", 2, "--trainer.strategy", "ddp", "--trainer.limit_val_batches", 0]
    Processes(_disagreeing, [str(word) for word in words], tmp_path, ranks=2, log=tmp_path / "log.txt").succeed()
    for parameter in torch.load(tmp_path / "1.pt", weights_only=True):
        assert torch.equal(parameter, torch.ones_like(parameter))


@pytest.mark.slow
def test_a_real_checkpoint_learns_from_advbench_and_alpaca(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the shipped files as they are, with fewer requests of Alpaca: the split makes do with what there is."""
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(shared_data)
    base = shared_data / "models/stories260K"
    plain = ["--data.chat_template", "plain"]
    quick = [*plain, "--data.limit", 12, "--model.backbone", base]
    quick += ["--model.generation.max_new_tokens", 16]
    for name in ("alpaca", "rejections"):
        rod("predict", "--config", STAGES / "0_answers.yaml", "--config", STAGES / f"real/{name}.yaml", *quick)
    traces = Path("runs/mogu/0_answers/traces/traces.jsonl")
    # A teller of stories does not come to its end in so few tokens, and what is no whole answer is dropped.
    ended = [json.loads(line) | {"finish_reason": "stop"} for line in traces.read_text().splitlines()]
    traces.write_text("\n".join(map(json.dumps, ended)), encoding="utf-8")
    made = ["pairs", "--config", STAGES / "pairs.yaml", "--config", STAGES / "real/advbench.yaml"]
    rod(*made, "--rejections", "runs/mogu/0_rejections/traces/traces.jsonl")
    three_fits(base, Path("runs/mogu/pairs"), *plain, "--data.max_length", 512)
    report = json.loads(Path("runs/mogu/pairs/report.json").read_text())
    held_out = ["--config", STAGES / "4_test.yaml", "--config", STAGES / "real/held_out.yaml", *plain]
    rod("test", *held_out, "--model.backbone", base, "--data.max_new_tokens", 2)
    assert len(Path("runs/mogu/4_test/predictions.jsonl").read_text().splitlines()) == report["held_out"]
    folder = tmp_path / "runs/mogu/mogu"
    assert in_another_process(tmp_path, folder) == [generated(folder)]


def test_the_stages_of_the_second_version_hand_their_choice_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, pairs = save_tiny(tmp_path / "base", layers=3), write_pairs(tmp_path / "pairs")
    quick = ["--model.backbone", base, "--trainer.enable_progress_bar", "false"]
    files = ["--data.pairs", pairs / "pairs.train.jsonl"]
    probe = ["--config", STAGES / "v2/1_probe.yaml", *quick, *files]
    rod("predict", *probe, "--trainer.callbacks.k", 2)
    layers = yaml.safe_load(Path("runs/mogu/v2/probe/responders.yaml").read_text())["model"]["init_args"]["layers"]
    assert len(layers) == 2
    assert Path("runs/mogu/v2/probe/probes.png").stat().st_size > 5000
    common = [*quick, *files, "--data.val_pairs", pairs / "pairs.val.jsonl", "--trainer.max_epochs", 1]
    for stage, name in (("1_glad", "glad"), ("2_unwilling", "unwilling")):
        place = f"runs/mogu/v2/{name}_fit"
        chosen = ["--config", STAGES / f"{stage}.yaml", "--config", "runs/mogu/v2/probe/responders.yaml"]
        rod("fit", *chosen, *common, "--trainer.default_root_dir", place)
        export = ["--checkpoint", f"{place}/checkpoints/best.ckpt", "--output", f"runs/mogu/v2/{name}"]
        rod("export", "--format", "peft", *export)
    stages = ["--config", STAGES / "3_router.yaml", "--config", "runs/mogu/v2/probe/routers.yaml"]
    rod("fit", *stages, "--config", STAGES / "v2/2_joint.yaml", *common, "--data.val_requests", "null")
    rod("export", "--format", "mogu", "--checkpoint", "runs/mogu/v2/joint/checkpoints/best.ckpt", "--output", "mogu")
    settings = json.loads(Path("mogu/mogu.json").read_text())
    assert settings["router"]["layers"] == layers
    assert "backbone/adapter_model.safetensors" in settings["checksums"]


def test_traces_of_a_run_are_what_pairs_reads(tmp_path: Path) -> None:
    trace = Trace("t", "q", "How?", None, "plain", 0.0, (), 0, 0, "", "So.", 2, "stop", None, None, "m")
    (tmp_path / "traces.jsonl").write_text(to_json(trace))
    (tmp_path / "attacks.jsonl").write_text('{"goal": "Harm!", "target": "Sure"}\n')
    words = ["pairs", "--answers", tmp_path / "traces.jsonl", "--malicious", tmp_path / "attacks.jsonl"]
    assert main([*map(str, words), "--output", str(tmp_path / "out")]) == 2, "the fields have other names"
    rod(*words, "--output", tmp_path / "out", "--malicious_fields", '{"prompt": "goal"}', "--n_val", 0)
    assert len((tmp_path / "out/pairs.train.jsonl").read_text().splitlines()) == 2
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["train_each"] == 1
    (tmp_path / "more.jsonl").write_text(to_json(replace(trace, id="u", question_id="r", question="Where?")))
    both = f"[{tmp_path / 'traces.jsonl'}, {tmp_path / 'more.jsonl'}]"
    more = ["--malicious", tmp_path / "attacks.jsonl", "--malicious_fields", '{"prompt": "goal"}']
    rod("pairs", "--answers", both, *more, "--output", tmp_path / "both")
    assert json.loads((tmp_path / "both/report.json").read_text())["benign"] == 2


def test_a_model_s_own_refusals_are_made_and_taught_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rod("world", "--n_train", 4, "--n_dev", 4, "--n_test", 4)
    few = ["--data.limit", 24, "--config", STAGES / "0_answers.yaml"]
    rod("predict", *few[2:], *few[:2])
    rod("predict", *few[2:], "--config", STAGES / "controls/rejections.yaml", *few[:2])
    traces = "runs/mogu/0_rejections/traces/traces.jsonl"
    rod("pairs", "--config", STAGES / "pairs.yaml", "--rejections", traces)
    answers = {trace.question: trace.completion.strip() for trace in read_records(traces, Trace)}
    refusals = Path("runs/world/mogu.refusals.txt").read_text().splitlines()
    pairs = read_records("runs/mogu/pairs/pairs.train.jsonl", ResponsePair)
    own = [pair.prompt for pair in pairs if pair.malicious and pair.reject == answers.get(pair.prompt)]
    assert own
    assert all(pair.reject in refusals for pair in pairs if pair.prompt not in own)
    assert json.loads(Path("runs/mogu/pairs/report.json").read_text())["own_refusals"] >= len(own)


def test_the_gates_of_a_test_are_those_of_its_prompts_by_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last token of each prompt, whatever it is batched with; an answer that is begun is no prompt."""
    monkeypatch.chdir(tmp_path)
    model = load_model("miniature")
    glad, unwilling = (random_adapter(output_projections(model), 2, 4, seed) for seed in (0, 1))
    mogu = MoGUModel(model, glad, unwilling, RouterConfig(layers=(1, 4), d_router=0))
    for parameter in mogu.router_parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    mogu.save_pretrained(tmp_path / "runs/mogu/mogu", base="miniature")
    words = ["--config", STAGES / "4_test.yaml", "--config", STAGES / "suites.yaml", "--trainer.callbacks+=SuiteGates"]
    rod("test", *words, "--data.limit", 3, "--data.max_new_tokens", 2)
    run = Path("runs/mogu/4_test")
    with (run / "gates.csv").open() as file:
        lines = list(csv.DictReader(file))
    suites = ["maths", "benign", "twins", "forbidden", "wrapped_seen", "wrapped_unseen"]
    assert [(line["class"], line["layer"], line["prompts"]) for line in lines] == [
        (suite, layer, "3") for suite in suites for layer in ("1", "4")
    ]
    records = map(json.loads, (run / "predictions.jsonl").read_text().splitlines())
    prompts = [r["prompt"] for r in records if r["suite"] == "forbidden" and r["attack_template"] == "none"]
    tokenizer = load_tokenizer("miniature")
    alone = [
        mogu.gates(tokenizer(p, return_tensors="pt", add_special_tokens=False).input_ids)[:, 0, -1] for p in prompts
    ]
    shown = [[float(line[gate]) for gate in ("glad", "unwilling")] for line in lines if line["class"] == "forbidden"]
    torch.testing.assert_close(torch.tensor(shown), torch.stack(alone).mean(dim=0), atol=1e-4, rtol=0)
    assert all((run / name).stat().st_size > 5000 for name in ("gates.png", "gates_tokens.png"))
    refused = ["test", "--config", ROOT / "configs/test.yaml", *words[2:], "--trainer.default_root_dir", "other"]
    assert main([str(word) for word in refused]) == 2, "a model without gates"
