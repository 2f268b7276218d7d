"""The engine ``server`` against vLLM's own server with our extension; ``make test-engine`` runs these."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from datamodules.errors import InputError
from llm_modules.backbone.loading import MINIATURE
from llm_modules.generation import GenerationSettings
from llm_modules.generation.interface import ServerSettings
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.server_engine import ServerGenerator
from llm_modules.generation.vllm_process import FOLDER, TESTED
from llm_modules.s3cot.steering import Positions
from tests.llm_modules.generation.engine_model import NEW, OPTIONS, Model, check_samples

PYTHON = GenerationSettings().vllm.interpreter
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not PYTHON.exists(), reason="there is no vLLM: 'make engine' installs it"),
]


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the miniature; passes of 64 tokens cut prompts, and blocks of 32 are reused."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    options = [word for name, value in OPTIONS.items() for word in ("--" + name.replace("_", "-"), str(value))]
    words: list[Any] = [PYTHON, FOLDER / "serve.py", MINIATURE, "--port", str(port), "--dtype", "float32", *options]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*words, "--max-num-seqs", "6", "--api-key", "secret"],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={"VLLM_CPU_KVCACHE_SPACE": "1", **os.environ},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, process, log)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            if httpx.get(f"{address}/health").is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"the server ended:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("miniature")


@pytest.fixture
def engine(url: str, model: Model, monkeypatch: pytest.MonkeyPatch) -> ServerGenerator:
    monkeypatch.setenv("ROD_TEST_KEY", "secret")
    settings = GenerationSettings(
        engine="server", slots=6, max_new_tokens=NEW, server=ServerSettings(url, api_key_env="ROD_TEST_KEY")
    )
    path = RemoteModel(str(MINIATURE))
    return ServerGenerator(path, model.model, settings, pad_id=0, eos_ids=model.ends, encode=lambda text: [])


@pytest.mark.parametrize("positions", get_args(Positions))
def test_steered_greedy_tokens_places_and_sizes_are_those_of_the_other_engines(
    engine: ServerGenerator, model: Model, positions: Positions
) -> None:
    found = model.steered(engine, positions)
    for other in model.others:
        expected = model.steered(other, positions)
        assert found == expected
        assert [one.steered and one.steered.places for one in found] == [
            one.steered and one.steered.places for one in expected
        ]
        for one, two in zip(found, expected, strict=True):
            assert one.steered is not None
            assert two.steered is not None
            assert one.steered.relative_size == pytest.approx(two.steered.relative_size, rel=0.3)


def test_greedy_tokens_without_steering_are_those_of_the_other_engines(engine: ServerGenerator, model: Model) -> None:
    model.steered(engine, "all")  # leaves nothing
    limits = [1 + 5 * (row % 6) for row in range(len(model.prompts))]
    found = engine.generate(model.prompts, max_new_tokens=limits)
    for other in model.others:
        assert found == other.generate(model.prompts, max_new_tokens=limits)
    assert engine.description == f"server vllm {TESTED[-1]}"


def test_sampled_tokens_are_those_of_the_other_engines(engine: ServerGenerator, model: Model) -> None:
    check_samples(model, engine, top_p=0.9, top_k=0)
    check_samples(model, engine, top_p=1.0, top_k=20)


def test_one_server_steers_by_several_directions(engine: ServerGenerator, model: Model) -> None:
    expected = model.steered(engine, "all")
    model.vectors *= -1
    turned = model.steered(engine, "all")
    model.vectors *= -1
    assert turned != expected
    assert model.steered(engine, "all") == expected


def test_a_prompt_that_is_too_long_is_refused(engine: ServerGenerator) -> None:
    assert engine.max_positions == OPTIONS["max_model_len"]
    assert engine.generate([[5] * 510])[0].n_tokens <= 2, "what is left of the positions"
    with pytest.raises(InputError, match="has 513 tokens, but the model has 512"):
        engine.generate([[5] * 513])
