"""The engine ``server``: a server that runs already completes rows."""

import json
import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import anyio
import httpx
from anyio.from_thread import start_blocking_portal
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.generation.engine import GenerationEngine
from llm_modules.generation.interface import Completion, GenerationSettings, Steered
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.remote_steering import RemoteSteering, remote_steering
from llm_modules.generation.server import (
    URL,
    check_steering,
    check_type,
    find_server,
    headers_of,
    reason_of,
    refusal,
    token_ids,
)
from llm_modules.generation.vllm_worker.rod_steering import cache_salt, summed
from llm_modules.http_retries import RETRIED, retry_after

_TRIES = 8
_IN_A_ROW = 16
"""Failures without a success between them after which the server is given up."""
_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]


@dataclass(frozen=True)
class Request:
    """A row for the server: the body of its request, and whether it is steered."""

    row: int
    number: int
    body: dict[str, Any]
    steered: bool


@dataclass(frozen=True)
class Answer:
    """What came of a row: token ids, or why it failed, or an error that ends the run."""

    row: int
    ids: tuple[int, ...] = ()
    steered: Steered | None = None
    failed: str = ""
    error: InputError | None = None


class ServerGenerator(GenerationEngine):
    """Lets a server complete rows, ``slots`` of them at a time; each is handed on as soon as it is complete.

    Prompts are sent as token ids. A vLLM with our extension gives the tokens of the other engines but for rounding,
    steered and sampled ones, too. Another vLLM samples by its own random numbers. A server that gives text only has its
    text tokenised again.
    """

    name = "server"

    def __init__(
        self,
        model: RemoteModel,
        outline: PreTrainedModel,
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
        encode: Callable[[str], Sequence[int]],
    ) -> None:
        """Find the server and its model.

        Args:
            model: What the server should serve.
            outline: The same model without weights.
            settings: May be replaced between calls; ``server`` may not.
            pad_id: Any token of the vocabulary.
            eos_ids: Tokens that end a completion; empty if only its length ends it.
            encode: Token ids of a text, without special tokens around it.

        Raises:
            InputError: The server does not answer, or serves another model or type of weights.
        """
        super().__init__(settings, pad_id=pad_id, eos_ids=eos_ids)
        self.server = find_server(settings.server)
        self.served = self.server.model(settings.server.model, model.adapter or model.path)
        check_type(self.server, model.dtype)
        self._encode = encode
        self._headers = headers_of(settings.server.api_key_env)
        self.read_positions(outline)
        # vLLM says it of the base, and not of adapters.
        longest = next((one.longest for one in (self.served, *self.server.served) if one.longest), None)
        if longest is not None:
            self.max_positions = min(longest, self.max_positions or longest)
        self._draws = bool(self.server.extension and self.server.extension.get("draws"))
        self._next = secrets.randbits(40) << 20  # other clients of the server have other numbers
        self._told: set[str] = set()

    def _complete(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limits: Sequence[int]
    ) -> list[Completion]:
        steering = remote_steering(self.listeners)
        if steering is not None:
            check_steering(self.server)
        if self.settings.temperature and not self._draws:
            self._tell(f"{self.server.url} samples by its own random numbers: other engines give other texts")
        if not prompts:
            return []
        requests = self._requests(prompts, seeds, limits, steering)
        answers: SimpleQueue[Answer | None] = SimpleQueue()
        done: dict[int, Completion] = {}
        failed: dict[int, str] = {}
        in_a_row = 0
        with start_blocking_portal() as portal:  # leaving it by an exception ends what is in flight
            asking = portal.start_task_soon(self._ask_all, requests, steering, answers)
            asking.add_done_callback(lambda _: answers.put(None))
            while (answer := answers.get()) is not None:
                if answer.error is not None:
                    raise answer.error
                in_a_row = in_a_row + 1 if answer.failed else 0
                if answer.failed:
                    failed |= self.fail(answer.row, answer.failed)
                    if in_a_row == _IN_A_ROW:
                        raise InputError(
                            f"{URL}: {in_a_row} rows in a row have failed ({answer.failed}); {_KEPT.format('them')}"
                        )
                    continue
                self.tokens_generated(len(answer.ids))
                done[answer.row] = self.finish(answer.row, answer.ids, answer.steered)
            asking.result()
        self.check_failed(failed, len(prompts))
        return [done[row] for row in sorted(done)]

    def _requests(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        limits: Sequence[int],
        steering: RemoteSteering | None,
    ) -> Iterator[Request]:
        """The requests for rows; made when they are sent."""
        name = steering.message()["name"] if steering is not None else ""
        first, self._next = self._next, self._next + len(prompts)
        for row, prompt in enumerate(prompts):
            most = limits[row]
            if self.max_positions is not None:
                most = max(1, min(most, self.max_positions - len(prompt)))
            settings = self.settings
            body: dict[str, Any] = {"model": self.served.id, "prompt": list(prompt), "max_tokens": most}
            more: dict[str, Any] = {}
            draws = settings.draws(seeds[row]) if self._draws else None
            if draws is not None:
                more["draws"] = json.dumps(draws)
                body |= {"temperature": 0.0}
            else:
                seed = seeds[row] if self.server.is_vllm else seeds[row] % 2**31
                body |= {"temperature": settings.temperature, "top_p": settings.top_p, "seed": seed}
                body |= {"top_k": settings.top_k} if settings.top_k else {}
            strengths = steering.of(row) if steering is not None else {}
            if self.server.is_vllm:
                body |= _VLLM | {"stop_token_ids": sorted(self.eos_ids)}
            if steering is not None and strengths:
                more |= {"row": first + row, "steering": name, "strengths": json.dumps(strengths)}
                body["cache_salt"] = cache_salt(name, steering.positions, strengths, len(prompt))
            if more:
                body["vllm_xargs"] = more
            yield Request(row, first + row, body, bool(strengths))

    async def _ask_all(
        self, requests: Iterator[Request], steering: RemoteSteering | None, answers: "SimpleQueue[Answer | None]"
    ) -> None:
        slots = self.settings.slots
        limits = httpx.Limits(max_connections=slots, max_keepalive_connections=slots)
        transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=_ALIVE)
        timeout = httpx.Timeout(None, connect=10.0)  # a long answer takes its time
        free = anyio.Semaphore(slots)
        async with httpx.AsyncClient(
            base_url=self.server.url, headers=self._headers, transport=transport, timeout=timeout
        ) as client:
            asked = _Client(client, self.server.url, self.settings.server.api_key_env)
            try:
                if steering is not None:
                    await asked.call("rod_steer", steering.message())
            except InputError as error:
                answers.put(Answer(0, error=error))
                return

            async def ask(request: Request) -> None:
                try:
                    answers.put(await self._ask(asked, request, steering))
                except InputError as error:
                    answers.put(Answer(request.row, error=error))
                    group.cancel_scope.cancel()  # nothing more is asked
                finally:
                    free.release()

            async with anyio.create_task_group() as group:
                for request in requests:
                    await free.acquire()
                    group.start_soon(ask, request)

    async def _ask(self, client: "_Client", request: Request, steering: RemoteSteering | None) -> Answer:
        found = await client.complete(request.body)
        if isinstance(found, str):
            return Answer(request.row, failed=found)
        ids = token_ids(found)
        if ids is None:
            self._tell(
                f"{self.server.url} gives texts without token ids: they are tokenised again here, so numbers of tokens "
                "may differ from what it generated"
            )
            ids = [*self._encode(str(found.get("text", "")))]
            if found.get("finish_reason") == "stop" and self.eos_ids:
                ids.append(min(self.eos_ids))
        if not ids or found.get("finish_reason") not in ("stop", "length"):
            return Answer(request.row, failed=f"the server ended it: {found.get('finish_reason')}")
        if steering is None:
            return Answer(request.row, tuple(ids))
        if not request.steered:
            return Answer(request.row, tuple(ids), Steered(0, 0.0))
        workers = await client.call(
            "rod_steered", {"name": request.body["vllm_xargs"]["steering"], "rows": [request.number]}
        )
        return Answer(request.row, tuple(ids), Steered(*summed(workers)[0]))

    def _tell(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            rank_zero_warn(words)


_VLLM = {
    **{"return_token_ids": True, "ignore_eos": True, "repetition_penalty": 1.0, "min_p": 0.0},
    **{"presence_penalty": 0.0, "frequency_penalty": 0.0},
}
"""What vLLM is asked for besides: token ids, and nothing of a checkpoint's own settings."""
_KEPT = "rows that were complete are kept, and the same command goes on from {}"


class _Client:
    """Asks a server, again where that may help. InputError if it is gone or lets nobody in."""

    def __init__(self, client: httpx.AsyncClient, url: str, api_key_env: str) -> None:
        self.client, self.url, self.api_key_env = client, url, api_key_env

    async def complete(self, body: Mapping[str, Any]) -> Mapping[str, Any] | str:
        """The choice of a completion, or why there is none."""
        response = await self._post("/v1/completions", body)
        if not response.is_success:
            return reason_of(response)
        try:
            choice: Mapping[str, Any] = response.json()["choices"][0]
            return choice
        except (ValueError, KeyError, IndexError, TypeError):
            return "the server's reply is no completion"

    async def call(self, method: str, arguments: Mapping[str, Any]) -> list[Any]:
        """What the workers of vLLM return from a method of our extension."""
        response = await self._post("/collective_rpc", {"method": method, "kwargs": dict(arguments)})
        if not response.is_success:
            raise InputError(
                f"{URL}: the extension of {self.url} fails ({reason_of(response)}); if the server was started anew, "
                f"{_KEPT.format('them')}"
            )
        results: list[Any] = response.json()["results"]
        return results

    async def _post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        for tried in range(1, _TRIES + 1):
            try:
                response = await self.client.post(path, json=body)
            except httpx.HTTPError as error:
                raise InputError(
                    f"{URL}: {self.url} is gone ({type(error).__name__}); {_KEPT.format('them')}"
                ) from error
            if response.status_code in (401, 403):
                raise refusal(self.url, self.api_key_env)
            if response.status_code == 404:
                raise InputError(f"{URL}: {self.url}{path}: {reason_of(response)}")
            if response.status_code not in RETRIED - {500} or tried == _TRIES:
                break
            wait = retry_after(response.headers)
            await anyio.sleep(min(60.0, wait if wait is not None else 0.5 * 2**tried))
        return response
