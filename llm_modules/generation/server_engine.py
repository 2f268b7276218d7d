"""The engine ``server``: a server that runs already completes rows."""

import json
import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import anyio
import httpx
from anyio.from_thread import start_blocking_portal
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.generation.engine import GenerationEngine, RemoteRows
from llm_modules.generation.interface import Completion, GenerationSettings, Steered
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.remote_steering import RemoteSteering, remote_steering
from llm_modules.generation.server import URL, check_steering, check_weights, find_server, headers_of, token_ids
from llm_modules.generation.server_client import KEPT, ServerClient, repeated
from llm_modules.generation.vllm_worker.rod_steering import cache_salt
from llm_modules.http_retries import Failure, Outage

_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
_WAIT_SECONDS = 0.5
_VLLM = {
    "return_token_ids": True,
    "ignore_eos": True,
    "repetition_penalty": 1.0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM is asked for besides: token ids, and nothing of a checkpoint's own settings."""


@dataclass(frozen=True)
class Request:
    """A row for the server: the body of its request, without what steers it, and its strengths by layer."""

    row: int
    body: dict[str, Any]
    strengths: dict[str, float]


@dataclass(frozen=True)
class Answer:
    """What came of a row: token ids, or why it failed, or an error that ends the run."""

    row: int
    ids: tuple[int, ...] = ()
    steered: Steered | None = None
    failure: Failure | None = None
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
            InputError: The server does not answer, or serves another model, type of weights or revision.
        """
        super().__init__(settings, pad_id=pad_id, eos_ids=eos_ids)
        self.server = find_server(settings.server)
        self.served = self.server.model(settings.server.model, model.adapter or model.path)
        check_weights(self.server, model)
        self._encode = encode
        self._headers = headers_of(settings.server.api_key_env)
        self.read_positions(outline)
        # vLLM says it of the base, and not of adapters.
        longest = next((one.longest for one in (self.served, *self.server.served) if one.longest), None)
        if longest is not None:
            self.max_positions = min(longest, self.max_positions or longest)
        self._draws = bool(self.server.extension and self.server.extension.get("draws"))
        self._numbers = count(secrets.randbits(40) << 20)  # other clients of the server have other numbers
        self._outage = Outage(settings.slots)
        self._told: set[str] = set()
        if self.server.dtype is None:
            self._tell(
                f"{self.server.url} does not say in which type it computes, nor which revision it serves: model.dtype "
                f"({model.dtype}) and model.revision are not compared, and records have no type; start it by "
                "llm_modules/generation/vllm_worker/serve.py (docs/engines.md) for that"
            )

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
        rows = RemoteRows(self, len(prompts))
        with start_blocking_portal() as portal:  # leaving it by an exception ends what is in flight
            asking = portal.start_task_soon(self._ask_all, requests, steering, answers)
            asking.add_done_callback(lambda _: answers.put(None))
            while (answer := self._next_of(answers)) is not None:
                if answer.error is not None:
                    raise answer.error
                if answer.failure is not None:
                    rows.fail(answer.row, str(answer.failure))
                    self._count(answer.failure)
                    continue
                self._outage.answered()
                self.tokens_generated(len(answer.ids))
                rows.complete(answer.row, answer.ids, answer.steered)
            asking.result()
        return rows.in_order()

    def _next_of(self, answers: "SimpleQueue[Answer | None]") -> Answer | None:
        """The next answer; the listeners hear from time to time that the engine waits for it."""
        while True:
            try:
                return answers.get(timeout=_WAIT_SECONDS)
            except Empty:
                self.tokens_generated(0)

    def _count(self, failure: Failure) -> None:
        """Count a failed row, of this call and earlier ones; InputError if the server is given up."""
        self._outage.failed(failure.passes)
        if self._outage.is_over:
            raise InputError(f"{URL}: {self._outage.limit} rows in a row have failed ({failure}); {KEPT}")

    def _requests(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        limits: Sequence[int],
        steering: RemoteSteering | None,
    ) -> Iterator[Request]:
        """The requests for rows; made when they are sent."""
        for row, prompt in enumerate(prompts):
            most = limits[row]
            if self.max_positions is not None:
                most = max(1, min(most, self.max_positions - len(prompt)))
            settings = self.settings
            body: dict[str, Any] = {"model": self.served.id, "prompt": list(prompt), "max_tokens": most}
            draws = settings.draws(seeds[row], self.drawn) if self._draws else None
            if draws is not None:
                body |= {"temperature": 0.0, "vllm_xargs": {"draws": json.dumps(draws)}}
            else:
                seed = seeds[row] if self.server.is_vllm else seeds[row] % 2**31
                body |= {"temperature": settings.temperature, "top_p": settings.top_p, "seed": seed}
                body |= {"top_k": settings.top_k} if settings.top_k else {}
            if self.server.is_vllm:
                body |= _VLLM | {"stop_token_ids": sorted(self.eos_ids)}
            yield Request(row, body, steering.of(row) if steering is not None else {})

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
            asked = ServerClient(client, self.server.url, self.settings.server.api_key_env, steering)

            async def ask(request: Request) -> None:
                try:
                    answers.put(await self._ask(asked, request))
                except InputError as error:
                    answers.put(Answer(request.row, error=error))
                    group.cancel_scope.cancel()  # nothing more is asked
                finally:
                    free.release()

            async with anyio.create_task_group() as group:
                for request in requests:
                    await free.acquire()
                    group.start_soon(ask, request)

    async def _ask(self, client: ServerClient, request: Request) -> Answer:
        try:
            return await repeated(partial(self._try, client, request))
        except Failure as failure:
            return Answer(request.row, failure=failure)

    async def _try(self, client: ServerClient, request: Request) -> Answer:
        """Ask for a row once; one that is steered has a new number each time, as an earlier one may still run."""
        body, name, number = request.body, "", 0
        if client.steering is not None and request.strengths:
            name, number, strengths = await client.steering_name(), next(self._numbers), request.strengths
            own = {"row": number, "steering": name, "strengths": json.dumps(strengths)}
            salt = cache_salt(name, client.steering.positions, strengths, len(body["prompt"]))
            body = body | {"cache_salt": salt, "vllm_xargs": body.get("vllm_xargs", {}) | own}
        found = await client.complete(body)
        ids = self._ids_of(found)
        if not ids or found.get("finish_reason") not in ("stop", "length"):
            raise Failure(f"the server ended it: {found.get('finish_reason')}")
        if client.steering is None:
            return Answer(request.row, ids)
        steered = Steered(*await client.steered(name, number)) if name else Steered(0, 0.0)
        return Answer(request.row, ids, steered)

    def _ids_of(self, choice: Mapping[str, Any]) -> tuple[int, ...]:
        """The token ids of a choice, tokenised again if the server gives its text only."""
        ids = token_ids(choice)
        if ids is not None:
            return tuple(ids)
        self._tell(
            f"{self.server.url} gives texts without token ids: they are tokenised again here, so numbers of tokens "
            "may differ from what it generated"
        )
        ids = [*self._encode(str(choice.get("text") or ""))]
        return (*ids, min(self.eos_ids)) if choice.get("finish_reason") == "stop" and self.eos_ids else tuple(ids)

    def _tell(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            rank_zero_warn(words)
