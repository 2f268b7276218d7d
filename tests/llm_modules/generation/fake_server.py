"""A server in this process that speaks OpenAI's API as vLLM does, without a model: rows count up from their prompt."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "secret"


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
        dies_after: Completions after which it breaks connections off.
        completions: Bodies of the requests that it has answered.
        calls: Calls of the extension.
    """

    root: str
    owner: str = "vllm"
    about: dict[str, Any] | None = field(default_factory=lambda: {"dtype": "float32", "eager": True, "draws": True})
    key: bool = False
    fails: dict[int, int] = field(default_factory=dict)
    busy: int = 0
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
        if path == "/collective_rpc":
            return self.call(body)
        if path != "/v1/completions":
            return 404, {"detail": "Not Found"}
        with self.lock:
            if self.busy:
                self.busy -= 1
                return 429, {"error": {"message": "busy"}}
            if status := self.fails.get(body["prompt"][-1]):
                return status, {"error": {"message": "The prompt is odd."}}
            if self.dies_after is not None and len(self.completions) >= self.dies_after:
                return 0, None
            self.completions.append(body)
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
            return 200, {"results": [None]}
        return 200, {"results": [[[6, 2, 0.5] for _ in body["kwargs"]["rows"]]]}


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    """Serve at ``server.url``."""

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
            if status == 0:
                self.close_connection = True
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
