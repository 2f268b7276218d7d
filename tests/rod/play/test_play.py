"""What stands behind the page of ``rod play``, without a browser."""

import base64
import csv
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model

from datamodules.answers import AnswerChecker
from datamodules.errors import InputError
from datamodules.world.files import questions
from llm_modules.backbone.loading import load_model
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu import MoGUModel, output_projections, random_adapter
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.s3cot import Direction
from rod.__main__ import main
from rod.play import access, shown
from rod.play.asking import Answer, Options, Player, agreement
from rod.play.direction import Steer, chosen, from_calibration, from_file, of_the_miniature
from rod.play.models import examples, load
from tests.tiny import save_tiny

QUESTION = questions("test", 1)[0].question
OPTIONS = Options("system2", max_new_tokens=120)


@pytest.fixture(scope="module")
def miniature() -> CausalLM:
    return load("miniature")


@pytest.fixture(scope="module")
def steer(miniature: CausalLM) -> Steer:
    return of_the_miniature(miniature)


@pytest.fixture(scope="module")
def mogu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mogu(tmp_path_factory.mktemp("play") / "mogu")


def save_mogu(folder: Path) -> Path:
    model = load_model("miniature")
    glad, unwilling = (random_adapter(output_projections(model), r=2, alpha=4, seed=seed) for seed in (0, 1))
    return MoGUModel(model, glad, unwilling).save_pretrained(folder, base="miniature")


def asked(player: Player, options: Options = OPTIONS, question: str = QUESTION) -> list[Answer]:
    answers = player.answers(options.alpha)
    for _ in player.ask(question, options, answers):
        pass
    return answers


def test_a_strong_direction_shortens_beside_the_original(miniature: CausalLM, steer: Steer) -> None:
    player = Player([miniature], ["miniature"], steer)
    original, steered = asked(player, replace(OPTIONS, alpha=-2.0))
    assert [original.voice.name, steered.voice.name] == ["original", "steered by -2"]
    assert len(steered.token_ids) < 0.7 * len(original.token_ids)
    assert original.finish == steered.finish == "stop"
    assert original.first_after is not None
    assert original.first_after > 0
    with AnswerChecker(workers=1) as checker:
        assert agreement([original, steered], checker) == ["", "same answer"]
    (plain,) = asked(Player([miniature], ["miniature"]))
    assert plain.token_ids == original.token_ids, "the steering is taken off again"


def test_tokens_come_one_by_one_and_a_stopped_question_leaves_nothing_behind(miniature: CausalLM, steer: Steer) -> None:
    player = Player([miniature], ["miniature"], steer)
    answers = player.answers(-2.0)
    growing = player.ask(QUESTION, OPTIONS, answers)
    next(growing)
    assert sum(len(answer.token_ids) for answer in answers) == 1
    growing.close()
    assert miniature.generator.listeners == []
    assert not any(module._forward_hooks for module in miniature.language_model.modules())
    assert asked(player)[0].finish == "stop", "the next question is not locked out"


def test_a_short_limit_cuts_off(miniature: CausalLM) -> None:
    (answer,) = asked(Player([miniature], ["miniature"]), replace(OPTIONS, max_new_tokens=5))
    assert (len(answer.token_ids), answer.finish) == (5, "length")
    assert "cut off" in shown.counts(answer, 5, "")


def test_a_mogu_has_three_voices_and_gates_over_prompt_and_answer(mogu: Path) -> None:
    module = load(str(mogu))
    mixture, glad, unwilling = answers = asked(
        Player([module], ["mogu"]), Options(max_new_tokens=8), "How do I open it?"
    )
    assert [answer.voice.name for answer in answers] == ["mixture", "glad", "unwilling"]
    assert len(mixture.gates) == mixture.n_prompt + len(mixture.token_ids)
    assert all(0 <= gate <= 1 for _, *gates in mixture.gates for gate in gates)
    assert not glad.gates
    assert not unwilling.gates
    assert isinstance(module.generator, MoGUGenerator)
    assert module.generator.mode == "first_m"
    assert 'title="glad 0.' in shown.text_of(mixture)


def test_gates_are_shifted_for_a_question_and_back(mogu: Path) -> None:
    player = Player([load(str(mogu))], ["mogu"])
    options = Options(max_new_tokens=8)
    before = asked(player, options)[0].gates
    prompt = slice(0, asked(player, options)[0].n_prompt)
    shifted = asked(player, replace(options, gate_shift=1.0))[0].gates
    assert all(s[1] < b[1] and s[2] > b[2] for s, b in zip(shifted[prompt], before[prompt], strict=True))
    assert asked(player, options)[0].gates == before


def test_two_models_side_by_side(miniature: CausalLM, steer: Steer, tmp_path: Path) -> None:
    other = load(str(save_tiny(tmp_path)))
    player = Player([miniature, other], ["one", "two"], steer)
    answers = asked(player, replace(OPTIONS, alpha=-1.0, max_new_tokens=4))
    assert [answer.voice.name for answer in answers] == ["one: original", "one: steered by -1", "two"]
    assert [len(answer.token_ids) for answer in answers] == [4, 4, 4]


def test_answers_are_compared_with_the_first(miniature: CausalLM) -> None:
    def answer(text: str) -> Answer:
        voice = Player([miniature], ["miniature"]).voices(0)[0]
        return Answer(voice, miniature.tokenizer, miniature.tokenizer.encode(text), finish="stop")

    right, same, other, none = map(answer, (r"So \boxed{4}.", r"\boxed{4}", r"\boxed{5}", "Take a hook."))
    with AnswerChecker(workers=1) as checker:
        assert agreement([right, same, other, none], checker) == [
            "",
            "same answer",
            "another answer",
            "no answer found",
        ]
        assert agreement([none, none], checker) == ["", ""]


def test_what_a_model_says_is_text(miniature: CausalLM) -> None:
    voice = Player([miniature], ["miniature"]).voices(0)[0]
    answer = Answer(voice, miniature.tokenizer, gates=[("<script>", 0.5, 0.5)], n_prompt=1)
    assert "<script>" not in shown.text_of(answer)
    assert "&lt;script&gt;" in shown.text_of(answer)


def test_loads_adapters_and_refuses_what_is_none(miniature: CausalLM, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base")
    adapted = get_peft_model(load_model(str(base)), LoraConfig(r=2, target_modules="all-linear"))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    assert load(str(tmp_path / "adapter")).model is not None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: {}\n")
    with pytest.raises(InputError, match="has none of checkpoints"):
        load(str(tmp_path / "run"))
    for nothing in ("no_such_model", str(tmp_path / "none.ckpt")):
        with pytest.raises(InputError):
            load(nothing)
    assert len(examples([miniature])) == 3
    assert examples([load(str(base))]) == []


def save_calibration(folder: Path, direction: Path) -> Path:
    folder.mkdir()
    config = {"steer": {"init_args": {"direction": str(direction), "positions": "last", "layers": "anchor:5"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "calibration.yaml").write_text(yaml.safe_dump({"layer_set": "2-3", "alpha": -1.25}))
    with (folder / "strength_sweep.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layer_set", "alpha", "length_ratio", "accuracy"])
        writer.writerows(
            [["", 0, 1, 0.97], ["2-3", -0.5, 0.86, 0.98], ["2-3", -1.5, 0.56, 0.91], ["0-1", -1.0, 0.7, 0.95]]
        )
    return folder


def test_a_calibration_brings_direction_places_and_curve(miniature: CausalLM, steer: Steer, tmp_path: Path) -> None:
    steer.direction.save(tmp_path / "direction.safetensors")
    folder = save_calibration(tmp_path / "2_calibrate", tmp_path / "direction.safetensors")
    found = from_calibration(folder, miniature)
    assert (found.layers, found.positions, found.alpha, found.strongest) == ("2-3", "last", -1.25, -1.5)
    assert [one.alpha for one in found.curve] == [-1.5, -0.5, 0.0], "of these layers alone"
    assert shown.nearest(found, -0.6) == "Measured at -0.5: length 0.86 of the original, accuracy 98.0%."
    chart = shown.curve(found, -0.6)
    assert chart["series"][0]["markLine"]["data"] == [{"xAxis": -0.6}]
    assert chart["series"][0]["data"][0] == [-1.5, 0.56]
    assert [chart[axis]["name"] for axis in ("xAxis", "yAxis")] == ["strength of steering", "share"]
    assert all("share of" in series["name"] for series in chart["series"])
    (tmp_path / "direction.safetensors").unlink()
    with pytest.raises(InputError, match="say where it is with --direction"):
        from_calibration(folder, miniature)
    (folder / "calibration.yaml").unlink()
    with pytest.raises(InputError, match=r"has no calibration\.yaml"):
        from_calibration(folder, miniature)


def test_a_direction_must_fit(miniature: CausalLM, mogu: Path, tmp_path: Path) -> None:
    Direction(vectors=torch.ones(3, 8)).save(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="do not fit"):
        from_file(tmp_path / "other.safetensors", miniature)
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError):
        from_file(tmp_path / "none.safetensors", miniature)
    with pytest.raises(InputError, match="a MoGU is not steered"):
        chosen(load(str(mogu)), tmp_path / "other.safetensors", None, None, None)
    assert chosen(load(str(mogu)), None, None, None, None) is None
    with pytest.raises(InputError, match="names layer 99"):
        chosen(miniature, None, None, "99", None)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_wrong_addresses_are_refused_before_a_model_is_loaded(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["--port", str(taken)], "another program may use it"),
        (["--port", "70000"], "from 1 to 65535"),
        (["--host", "0.0.0.0"], "give a --password too"),
        (["--host", "0.0.0.0", "--password", "short"], "at least 8 characters"),
    ):
        assert main(["play", "no_such_model", *words]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert main(["play", "a", "b", "c", "--port", str(free_port())]) == 2
    assert "give one or two" in capsys.readouterr().err


def test_without_the_extra_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["play", "--port", str(free_port())]) == 2
    assert capsys.readouterr().err == "rod: error: rod play needs NiceGUI: pip install 'lightning-rod[play]'\n"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_other_sites_and_others_are_kept_out() -> None:
    async def nothing(*_: object) -> None:
        return None

    alone, shared = access.Guard(nothing, None), access.Guard(nothing, "correct horse")
    assert alone.refusal({"host": "localhost:8421"}) == 0
    assert alone.refusal({"host": "[::1]:8421"}) == 0
    assert alone.refusal({"host": "evil.example:8421"}) == 403, "a name that was made to point here"
    assert alone.refusal({"host": "localhost:8421", "origin": "http://evil.example"}) == 403
    assert alone.refusal({"host": "localhost:8421", "origin": "http://localhost:8421"}) == 0
    assert shared.refusal({"host": "gpu7:8421"}) == 401
    for password, status in (("correct horse", 0), ("wrong", 401), ("", 401)):
        code = base64.b64encode(f"me:{password}".encode()).decode()
        assert shared.refusal({"host": "gpu7:8421", "authorization": f"Basic {code}"}) == status
    assert shared.refusal({"host": "gpu7:8421", "authorization": "Basic ?"}) == 401
    assert shared.refusal({"host": "gpu7:8421", "authorization": "Bearer x"}) == 401
