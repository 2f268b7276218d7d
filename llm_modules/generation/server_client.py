"""What the engine ``server`` asks a server for: completions, and the methods of our extension."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
import httpx

from datamodules.errors import InputError
from llm_modules.generation.remote_steering import RemoteSteering
from llm_modules.generation.server import URL, reason_of, refusal, results_of
from llm_modules.generation.vllm_worker.rod_steering import summed
from llm_modules.http_retries import RETRIED, Attempts, Failure, retry_after

T = TypeVar("T")
PAUSE = 1.0
"""Seconds before a request is repeated first."""
KEPT = "rows that were complete are kept, and the same command goes on from them"
_BROKEN = 3
"""Attempts at a request whose connection breaks."""


async def repeated(ask: Callable[[], Awaitable[T]]) -> T:
    """What comes of asking, again after failures that may pass; the last `Failure` if nothing comes."""
    attempts = Attempts(8, PAUSE, 60.0)
    while True:
        try:
            return await ask()
        except Failure as failure:
            await anyio.sleep(attempts.pause_after(failure))


class ServerClient:
    """Asks a server. InputError if it is gone, lets nobody in, or has not what it is asked for."""

    def __init__(self, client: httpx.AsyncClient, url: str, api_key_env: str, steering: RemoteSteering | None) -> None:
        self.client, self.url, self.api_key_env, self.steering = client, url, api_key_env, steering
        self._name: str | None = None
        self._lock = anyio.Lock()

    async def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The choice of a completion; `Failure` if there is none. Asked once, as each attempt has its own body."""
        response = await self._post("/v1/completions", body)
        try:
            choice = response.json()["choices"][0]
        except (ValueError, LookupError, TypeError):
            choice = None
        if not isinstance(choice, dict):
            raise Failure("the server's reply is no completion", passes=True)
        return choice

    async def steering_name(self) -> str:
        """The name by which rows ask for the steering, which is sent first if need be."""
        assert self.steering is not None
        async with self._lock:
            if self._name is None:
                workers = await self._call("rod_steer", {**self.steering.message(), "mark": secrets.token_hex(8)})
                self._name = next((worker for worker in workers if isinstance(worker, str)), None)
            if self._name is None:
                raise InputError(f"{URL}: the extension of {self.url} is of another version; start it anew")
            return self._name

    async def steered(self, name: str, number: int) -> tuple[int, float]:
        """Steered places of a row, and the mean relative size there.

        `Failure` if the server does not know them, because it was started anew, say; the steering is then sent again.
        """
        workers = await self._call("rod_steered", {"name": name, "rows": [number]})
        found = next(iter(summed(workers)), None)
        if found is None:
            if name == self._name:
                self._name = None
            raise Failure("the server does not know how it has steered the row", passes=True)
        return found

    async def _call(self, method: str, arguments: Mapping[str, Any]) -> list[Any]:
        """What the workers of vLLM return from a method of our extension; each gives the same if it is called again."""

        async def ask() -> list[Any]:
            response = await self._post("/collective_rpc", {"method": method, "kwargs": dict(arguments)})
            found = results_of(response)
            if not found:
                raise Failure("its reply has no results")
            return found

        try:
            return await repeated(ask)
        except Failure as failure:
            raise InputError(f"{URL}: the extension of {self.url} fails ({failure}); {KEPT}") from failure

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """The response of a request that succeeds; `Failure` of any other that concerns this request alone."""
        try:
            response = await self.client.post(path, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise InputError(f"{URL}: {self.url} is gone ({type(error).__name__}); {KEPT}") from error
        except httpx.HTTPError as error:
            raise Failure(f"the connection broke: {type(error).__name__}", passes=True, most=_BROKEN) from error
        status = response.status_code
        if status in (401, 403):
            raise refusal(self.url, self.api_key_env)
        if status == 404:
            raise InputError(f"{URL}: {self.url}{path}: {reason_of(response)}")
        if not response.is_success:
            # The code 500 of vLLM is of this request, or of an engine that is dead.
            most = None if status in RETRIED - {500} else 1
            passes = status in RETRIED or status >= 500
            raise Failure(reason_of(response), passes, retry_after(response.headers), most)
        return response
