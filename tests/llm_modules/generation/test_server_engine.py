"""The engine ``server`` against a server of this process: what it is asked, what it answers, and what goes wrong."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.errors import InputError
from llm_modules.backbone.loading import MINIATURE, without_weights
from llm_modules.generation import Completion, GenerationListener, GenerationSettings, Steered
from llm_modules.generation.interface import ServerSettings
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.remote_steering import RemoteSteering
from llm_modules.generation.server import _find
from llm_modules.generation.server_engine import ServerGenerator
from llm_modules.generation.vllm_worker.serve import command
from tests.llm_modules.generation.fake_server import KEY, FakeServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setattr("llm_modules.generation.server_client.PAUSE", 0.01)
    _find.cache_clear()
    with serving(FakeServer(str(MINIATURE))) as made:
        yield made


def engine(server: FakeServer, path: str = str(MINIATURE), dtype: str = "float32", **settings: Any) -> ServerGenerator:
    own = {name: settings.pop(name) for name in ("url", "model", "api_key_env") if name in settings}
    made = GenerationSettings(engine="server", server=ServerSettings(**{"url": server.url, **own}), **settings)
    model, outline = RemoteModel(path, dtype=dtype), without_weights("miniature")
    return ServerGenerator(model, outline, made, pad_id=0, eos_ids=(2,), encode=lambda text: [7] * len(text))


class Recorder(GenerationListener):
    def __init__(self) -> None:
        self.rows: list[int] = []
        self.tokens = 0

    def tokens_generated(self, number: int) -> None:
        self.tokens += number

    def row_finished(self, row: int, completion: Completion) -> None:
        self.rows.append(row)


def test_rows_come_back_in_order_and_are_reported_as_they_end(server: FakeServer) -> None:
    made, recorder = engine(server, slots=3, max_new_tokens=3), Recorder()
    made.listeners.append(recorder)
    found = made.generate([[9, 10 * row] for row in range(1, 12)], max_new_tokens=[2] * 10 + [5])
    assert [done.token_ids for done in found[:2]] == [(11, 12), (21, 22)]
    assert (found[-1].n_tokens, found[-1].finish_reason) == (5, "length")
    assert (sorted(recorder.rows), recorder.tokens) == (list(range(11)), 25)
    assert server.most_at_once <= 3
    assert made.generate([[1, 0]])[0] == Completion((1, 2), "stop")
    assert made.description == "server vllm 0.32.0"
    first = server.completions[0]
    assert (first["model"], first["temperature"], first["ignore_eos"]) == ("served", 0.0, True)
    assert not first.keys() & {"vllm_xargs", "cache_salt"}


def test_strengths_and_random_numbers_go_with_each_row(server: FakeServer) -> None:
    made = engine(server, max_new_tokens=2, temperature=0.7, top_p=0.9)
    with RemoteSteering(without_weights("miniature"), torch.ones(6, 128), "all") as steering:
        made.listeners.append(steering)
        strengths = torch.zeros(3, 6)
        strengths[1, 2:4] = -0.5
        strengths[2, 2] = 1.0
        steering.set_strengths(strengths)
        found = made.generate([[30, 40 + row] for row in range(3)], seeds=[5, 6, 7])
        made.generate([[30, 40]] * 3)
    assert [done.steered for done in found] == [Steered(0, 0.0), Steered(6, 0.25), Steered(6, 0.25)]
    bodies = {body["prompt"][-1]: body for body in server.completions[:3]}
    plain, steered = bodies[40]["vllm_xargs"], bodies[41]["vllm_xargs"]
    assert plain.keys() == {"draws"}
    assert json.loads(steered["draws"]) == {"seed": 6, "drawn": 0, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
    assert json.loads(steered["strengths"]) == {"2": -0.5, "3": -0.5}
    assert bodies[41]["cache_salt"] != bodies[42]["cache_salt"]
    rows = [body["vllm_xargs"]["row"] for body in server.completions if "row" in body["vllm_xargs"]]
    assert len(set(rows)) == 4, "no two requests have one number"
    assert [call["method"] for call in server.calls].count("rod_steer") == 2
    assert steered["steering"] == "{name}-{mark}".format(**server.calls[0]["kwargs"])


def test_a_failed_row_is_told_and_the_others_go_on(server: FakeServer) -> None:
    server.fails = {20: 400}
    made, recorder = engine(server, slots=2, max_new_tokens=2), Recorder()
    made.listeners.append(recorder)
    with pytest.raises(
        InputError, match=r"1 of 5 rows \(row 1: the server answered 400: The prompt is odd.\); the others are complete"
    ):
        made.generate([[9, 10 * row] for row in range(1, 6)])
    assert sorted(recorder.rows) == [0, 2, 3, 4]


def test_a_server_that_fails_always_ends_the_call(server: FakeServer) -> None:
    server.fails = {10: 500}
    made = engine(server, slots=2, max_new_tokens=2)
    with pytest.raises(InputError, match=r"16 rows in a row have failed \(the server answered 500: The prompt is odd"):
        made.generate([[9, 10]] * 50)


def test_a_server_that_goes_ends_the_call(server: FakeServer) -> None:
    server.dies_after = 3
    made, recorder = engine(server, slots=1, max_new_tokens=2), Recorder()
    made.listeners.append(recorder)
    with pytest.raises(
        InputError, match=r"is gone \(.*\); rows that were complete are kept, and the same command goes"
    ):
        made.generate([[9, 10]] * 50)
    assert len(recorder.rows) == 3
    made.listeners.clear()


class Aside(Recorder):
    """Sets failed rows aside."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: dict[int, str] = {}

    def row_failed(self, row: int, reason: str) -> bool:
        self.failed[row] = reason
        return True


def test_failures_of_the_server_are_counted_over_the_batches(server: FakeServer) -> None:
    made, aside = engine(server, slots=4, max_new_tokens=2), Aside()
    made.listeners.append(aside)
    server.fails = {10: 500}
    made.generate([[9, 10]] * 8)
    made.generate([[9, 10]] * 7)
    made.generate([[9, 20]])
    made.generate([[9, 10]] * 15)
    with pytest.raises(InputError, match="16 rows in a row have failed"):
        made.generate([[9, 10]])


def test_refused_rows_do_not_end_the_run(server: FakeServer) -> None:
    made, aside = engine(server, slots=4, max_new_tokens=2), Aside()
    made.listeners.append(aside)
    server.fails = {10: 400}
    assert made.generate([[9, 10]] * 40) == []
    assert set(aside.failed.values()) == {"the server answered 400: The prompt is odd."}
    assert len(aside.failed) == 40


def test_a_connection_that_breaks_is_made_again(server: FakeServer) -> None:
    made, aside = engine(server, slots=2, max_new_tokens=2), Aside()
    made.listeners.append(aside)
    server.broken = 2
    assert len(made.generate([[9, 10]] * 20)) == 20
    server.broken = 3
    assert len(made.generate([[9, 10]])) == 0
    assert aside.failed[0].startswith("the connection broke: ")
    assert aside.failed[0].endswith("(tried 3 times)")


@contextmanager
def steering_by(made: ServerGenerator, rows: int) -> Iterator[None]:
    with RemoteSteering(without_weights("miniature"), torch.ones(6, 128), "all") as steering:
        made.listeners.append(steering)
        strengths = torch.zeros(rows, 6)
        strengths[:, 2] = 1.0
        steering.set_strengths(strengths)
        yield
        made.listeners.remove(steering)


def test_a_row_that_is_asked_for_again_has_another_number(server: FakeServer) -> None:
    made = engine(server, slots=1, max_new_tokens=2, temperature=1.0)
    server.late = {"/v1/completions": 1}
    with steering_by(made, 1):
        assert made.generate([[9, 10]])[0].steered == Steered(6, 0.25)
    first, second = (body["vllm_xargs"] for body in server.completions)
    assert first["row"] != second["row"], "the first may still run"
    assert first["draws"] == second["draws"]
    assert server.calls[-1]["kwargs"]["rows"] == [second["row"]]


def test_how_a_row_was_steered_is_asked_again(server: FakeServer) -> None:
    made = engine(server, slots=1, max_new_tokens=2)
    with steering_by(made, 1):
        assert made.generate([[9, 10]])[0].steered == Steered(6, 0.25)
        server.late = {"/collective_rpc": 2}
        assert made.generate([[9, 10]])[0].steered == Steered(6, 0.25)
    assert len(server.completions) == 2


def test_a_server_that_has_lost_the_steering_gets_it_again(server: FakeServer) -> None:
    made, aside = engine(server, slots=2, max_new_tokens=2), Aside()
    made.listeners.append(aside)
    server.lost = 1
    with steering_by(made, 4):
        assert [done.steered for done in made.generate([[9, 10]] * 4)] == [Steered(6, 0.25)] * 4
        sent = [call["kwargs"] for call in server.calls if call["method"] == "rod_steer"]
        assert len({message["mark"] for message in sent}) == len(sent) == 2
        assert len(server.completions) == 5
        server.lost = 100
        assert made.generate([[9, 10]]) == []
    assert aside.failed == {0: "the server does not know how it has steered the row (tried 8 times)"}


def test_a_choice_without_text_or_tokens(server: FakeServer, recwarn: pytest.WarningsRecorder) -> None:
    made, aside = engine(server, slots=1, max_new_tokens=2), Aside()
    made.listeners.append(aside)
    server.ended = {20: {"text": "", "token_ids": [], "finish_reason": "abort"}}
    assert len(made.generate([[9, 10], [9, 20]])) == 1
    assert aside.failed == {1: "the server ended it: abort"}
    assert not [warning for warning in recwarn if "without token ids" in str(warning.message)]
    server.ended = {20: {"text": None, "finish_reason": "stop"}}
    assert made.generate([[9, 20]]) == [Completion((2,), "stop")]


def test_a_busy_server_is_asked_again(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    waits: list[float] = []
    monkeypatch.setattr("llm_modules.generation.server_client.PAUSE", 1.0)
    monkeypatch.setattr("llm_modules.generation.server_client.anyio.sleep", sleep)
    server.busy = 3
    assert len(engine(server, slots=1, max_new_tokens=2).generate([[9, 10]] * 2)) == 2
    assert waits == [1.0, 2.0, 4.0]


def test_a_listener_that_ends_the_call_ends_the_requests(server: FakeServer) -> None:
    class Breaks(GenerationListener):
        def row_finished(self, row: int, completion: Completion) -> None:
            raise ValueError("broken")

    made = engine(server, slots=1, max_new_tokens=2)
    made.listeners.append(Breaks())
    with pytest.raises(ValueError, match="broken"):
        made.generate([[9, 10]] * 50)
    assert len(server.completions) < 50


def test_a_server_of_texts_is_tokenised_again(server: FakeServer) -> None:
    server.owner, server.about, server.longest = "somebody", None, None
    made = engine(server, max_new_tokens=3, temperature=1.0, model="served")
    with pytest.warns(UserWarning, match="samples by its own random numbers|gives texts without token ids") as told:
        found = made.generate([[9, 10], [9, 0]], seeds=[2**40 + 3, 4])
    assert len({str(warning.message) for warning in told}) == 2
    assert found == [Completion((7, 7, 7), "length"), Completion((7, 7, 2), "stop")]
    assert {body["seed"] for body in server.completions} == {3, 4}
    assert not any(body.keys() & {"vllm_xargs", "stop_token_ids", "return_token_ids"} for body in server.completions)
    assert made.description == "server somebody"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (None, r"has no extension that steers; start it by llm_modules/generation/vllm_worker/serve.py"),
        ({"dtype": "float32", "eager": False}, "runs captured graphs, which ignore steering"),
    ],
)
def test_a_server_that_cannot_steer_is_refused(server: FakeServer, about: Any, message: str) -> None:
    server.about = about
    made = engine(server)
    with RemoteSteering(without_weights("miniature"), torch.ones(6, 128), "all") as steering:
        made.listeners.append(steering)
        with pytest.raises(InputError, match=message):
            made.generate([[9]])
    assert not server.completions


def test_another_model_is_refused(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"serves 'served' \(from .*miniature\), and the model of this run is 'else'"):
        engine(server, path="else")
    with pytest.raises(InputError, match=r"server.model: http://\S+ serves 'served' .* and no 'gpt'"):
        engine(server, model="gpt")
    (tmp_path / "link").symlink_to(MINIATURE)
    assert engine(server, path=str(tmp_path / "link")).served.id == "served"
    assert engine(server, path="else", model="served").served.id == "served"
    with pytest.raises(InputError, match=r"computes in float32, and model.dtype is bfloat16; they must be the same"):
        engine(server, dtype="bfloat16")
    server.about, server.root = {"dtype": "float32", "revision": "old"}, "hub/else"
    _find.cache_clear()
    with pytest.raises(InputError, match=r"serves revision old of 'hub/else', and model.revision is None; give"):
        engine(server, path="hub/else")
    server.about, server.root = {"dtype": "float32", "revision": None}, "hub/else"
    _find.cache_clear()
    assert engine(server, path="hub/else").served.id == "served"
    server.longest = 4
    _find.cache_clear()
    with pytest.raises(InputError, match="Prompt 0 of the batch has 5 tokens, but the model has 4"):
        engine(server, path="hub/else").generate([[9] * 5])


def test_keys_come_from_the_environment(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = True
    with pytest.raises(InputError, match=r"wants a key; give the environment variable that holds it"):
        engine(server)
    with pytest.raises(InputError, match="the environment variable ROD_TEST_KEY is not set"):
        engine(server, api_key_env="ROD_TEST_KEY")
    monkeypatch.setenv("ROD_TEST_KEY", "wrong")
    with pytest.raises(InputError, match="refuses the key in ROD_TEST_KEY"):
        engine(server, api_key_env="ROD_TEST_KEY")
    monkeypatch.setenv("ROD_TEST_KEY", KEY)
    assert len(engine(server, api_key_env="ROD_TEST_KEY", max_new_tokens=1).generate([[9]])) == 1


def test_the_server_is_started_with_what_steers_and_for_this_machine_only() -> None:
    words = " ".join(command(["models/qwen", "--port", "8000"], "rod.Extension", "rod:Sampling"))
    assert words.startswith("serve models/qwen --port 8000 --host 127.0.0.1 --worker-extension-cls rod.Extension ")
    assert "--enforce-eager --no-async-scheduling" in words
    assert "127.0.0.1" not in " ".join(command(["models/qwen", "--host=0.0.0.0"], "a", "b"))


def test_an_address_without_a_server_is_told(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("", "localhost:8000", "http://user:word@localhost", "http://localhost:port", "http://[::1"):
        with pytest.raises(InputError, match=r"server.url: give an address such as http://localhost:8000, without a"):
            engine(server, url=url)
    with pytest.raises(InputError, match=r"no server answers at http://127.0.0.1:9 \(ConnectError\); start it"):
        engine(server, url="http://127.0.0.1:9/v1/")
    for models in ({"hello": 1}, [1], {"data": [["a"]]}, {"data": {"a": 1}}):
        monkeypatch.setattr(server, "get", lambda path, models=models: (200, models))
        with pytest.raises(InputError, match=r"has no list of models at /v1/models"):
            engine(server)


def test_a_server_may_say_anything_of_its_version_and_extension(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = server.get
    monkeypatch.setattr(server, "get", lambda path: (200, ["0.32.0"]) if path == "/version" else get(path))
    monkeypatch.setattr(server, "call", lambda body: (200, {"results": 1}))
    with pytest.warns(UserWarning, match="vLLM unknown is untested here"):
        made = engine(server, max_new_tokens=1)
    assert (made.description, made.server.extension) == ("server vllm unknown", None)
