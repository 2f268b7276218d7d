"""A server in this process that speaks OpenAI's API as vLLM does, without a model: rows count up from their prompt."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "secret"
BREAKS, DIES = -1, -2
"""Instead of a status: the connection is closed; nobody listens any more, either."""


@dataclass
class FakeServer:
    """What it is, what goes wrong, and what it was asked.

    Attributes:
        root: Folder of the model that it says to serve.
        owner: ``vllm``, or something else that gives text only.
        about: What its extension says; None without extension.
        key: Whether it wants a key.
        fails: Status by the prompt's last token.
        busy: Requests that it answers with 429 first.
        broken: Connections of completions that it breaks off first.
        late: Answers of completions and of the extension that a proxy does not wait for (504), by the path.
        lost: Rows whose steering it does not know, first.
        ended: The choice that it gives for a prompt with this last token.
        dies_after: Completions after which it dies.
        completions: Bodies of the requests that it has answered.
        calls: Calls of the extension.
    """

    root: str
    owner: str = "vllm"
    about: dict[str, Any] | None = field(default_factory=lambda: {"dtype": "float32", "eager": True, "draws": True})
    key: bool = False
    fails: dict[int, int] = field(default_factory=dict)
    busy: int = 0
    broken: int = 0
    late: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    ended: dict[int, dict[str, Any]] = field(default_factory=dict)
    dies_after: int | None = None
    longest: int | None = 512
    completions: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    at_once: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/v1/models":
            card = {"id": "served", "owned_by": self.owner, "root": self.root, "max_model_len": self.longest}
            return 200, {"data": [card]}
        return (200, {"version": "0.32.0"}) if path == "/version" and self.owner == "vllm" else (404, {})

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        status, answer = self.call(body) if path == "/collective_rpc" else self.complete(path, body)
        with self.lock:
            if body.get("method") != "rod_about" and self.late.get(path):
                self.late[path] -= 1
                return 504, {}
        return status, answer

    def complete(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path != "/v1/completions":
            return 404, {"detail": "Not Found"}
        with self.lock:
            if self.busy:
                self.busy -= 1
                return 429, {"error": {"message": "busy"}}
            if status := self.fails.get(body["prompt"][-1]):
                return status, {"error": {"message": "The prompt is odd."}}
            if self.dies_after is not None and len(self.completions) >= self.dies_after:
                return DIES, None
            if self.broken:
                self.broken -= 1
                return BREAKS, None
            self.completions.append(body)
        if body["prompt"][-1] in self.ended:
            return 200, {"choices": [self.ended[body["prompt"][-1]]]}
        ids: list[int] = []
        while len(ids) < body["max_tokens"] and (not ids or ids[-1] not in body.get("stop_token_ids", (2,))):
            ids.append(body["prompt"][-1] + len(ids) + 1)
        reason = "stop" if ids[-1] in body.get("stop_token_ids", (2,)) else "length"
        choice: dict[str, Any] = {"text": "x" * len(ids), "finish_reason": reason}
        return 200, {"choices": [choice | ({"token_ids": ids} if body.get("return_token_ids") else {})]}

    def call(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.about is None:
            return 404, {"detail": "Not Found"}
        if body["method"] == "rod_about":
            return 200, {"results": [self.about]}
        with self.lock:
            self.calls.append(body)
        if body["method"] == "rod_steer":
            return 200, {"results": ["{name}-{mark}".format(**body["kwargs"])]}
        with self.lock:
            if self.lost:
                self.lost -= 1
                return 200, {"results": [[None for _ in body["kwargs"]["rows"]]]}
        return 200, {"results": [[[6, 2, 0.5] for _ in body["kwargs"]["rows"]]]}


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    """Serve at ``server.url``, another address each time."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply(*server.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            try:
                self.reply(*server.post(self.path, body))
            finally:
                with server.lock:
                    server.at_once -= 1

        def reply(self, status: int, answer: Any) -> None:
            if server.key and self.path.startswith("/v1") and self.headers.get("Authorization") != f"Bearer {KEY}":
                status, answer = 401, {"error": "Unauthorized"}
            if status in (BREAKS, DIES):
                self.close_connection = True
                if status == DIES:
                    http.shutdown()
                    http.server_close()
                return
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
