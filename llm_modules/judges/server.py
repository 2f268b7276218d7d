"""A judge model behind an OpenAI-compatible server, with concurrent requests and a cache of replies.

The retries are our own because httpx's transport retries only failed connections: on httpx 0.28 with ``retries=3``, a
server that answers 429 or 503, sends nonsense or takes too long is asked once.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from datamodules.errors import InputError
from llm_modules.http_address import is_address
from llm_modules.http_retries import RETRIED, Attempts, Failure, Outage, retry_after
from llm_modules.judges.judge import Exchange, Judge, Verdict, on_answers
from llm_modules.judges.reply_cache import ReplyCache
from llm_modules.judges.templates import Message, Template, kind_of, load_template


class ServerJudge(Judge):
    """Asks a model about each exchange through ``POST {base_url}/chat/completions``.

    Temporary failures (timeouts, 429, 5xx, invalid replies) are retried with growing pauses, or those that the server
    asks for. A lasting failure is a verdict with an error. With ``cache``, replies are written to a file as they
    arrive, and a killed run resumes without asking again.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        template: str = "harmbench",
        api_key_env: str = "",
        cache: Path | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 60.0,
        pause: float = 1.0,
        max_pause: float = 60.0,
        probe: bool = True,
        name: str = "server",
    ) -> None:
        """Choose a server; the first request is sent by `check` or with the first exchanges.

        Args:
            model: Name of the model on the server.
            base_url: Address up to the version, such as ``http://localhost:8000/v1``.
            template: ``harmbench``, ``safety``, ``llama_guard``, ``strongreject``, ``xstest`` or a text file, as for
                `LocalJudge`.
            api_key_env: Environment variable with the API key; no key is sent if empty.
            cache: JSONL file for replies, by a hash of model, template and exchange; without it nothing is kept.
            concurrency: Number of concurrent requests.
            retries: Number of retries of a request.
            timeout: Seconds to wait for a reply.
            pause: Seconds before the first retry; each further pause is twice as long.
            max_pause: Longest pause in seconds, whatever the server asks for.
            probe: Let `check` send one harmless request, so that a wrong address or key is found early.
            name: Name of the verdicts.
        """
        self.kind = kind_of(template)
        self.name, self.model, self.base_url, self.template = name, model, base_url.rstrip("/"), template
        self.api_key_env, self.cache, self.concurrency, self.retries = api_key_env, cache, concurrency, retries
        self.timeout, self.pause, self.max_pause, self.probe = timeout, pause, max_pause, probe
        self._replies: ReplyCache | None = None
        self._client: httpx.Client | None = None

    def check(self) -> None:
        """Check settings, template, key and cache, and (``probe``) send one request.

        InputError if one of them is wrong, or the server does not reply as expected.
        """
        if not is_address(self.base_url):
            raise InputError(
                f"judge {self.name}: base_url must be an address such as http://localhost:8000/v1, without a password; "
                "put a key into the environment variable that api_key_env names"
            )
        least = {"concurrency": 1, "retries": 0, "timeout": 1e-3, "pause": 0, "max_pause": 0}
        for key, bound in least.items():
            if not getattr(self, key) >= bound:
                raise InputError(f"judge {self.name}: {key} must be {bound} or more, is {getattr(self, key)}")
        template = load_template(self.template)
        self._headers()
        self._open_cache()
        if self.probe:
            exchange = Exchange("How do I boil an egg?", "Eight minutes in boiling water.")
            try:
                self._post(self._open_client(), template.messages(exchange), template.max_new_tokens)
            except Failure as error:
                raise InputError(
                    f"judge {self.name}: the server at {self.base_url} does not reply as expected: {error}"
                ) from error

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """Judge exchanges; known replies come from the cache."""
        return on_answers(exchanges, self._judge)

    def identity(self) -> dict[str, str | int | float | bool]:
        """The judge, its model and server, and the checksum of its template."""
        template = load_template(self.template)
        return {
            "name": self.name,
            "judge": "ServerJudge",
            "model": self.model,
            "base_url": self.base_url,
            "template": template.name,
            "template_sha256": template.checksum,
        }

    def close(self) -> None:
        """Close connections and the cache."""
        if self._client is not None:
            self._client.close()
        if self._replies is not None:
            self._replies.close()
        self._client = self._replies = None

    def _judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        template, outage = load_template(self.template), Outage(self.concurrency)
        self._headers()
        self._open_cache()
        self._open_client()
        with ThreadPoolExecutor(self.concurrency) as pool:
            futures = [pool.submit(self._judge_one, template, exchange, outage) for exchange in exchanges]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _judge_one(self, template: Template, exchange: Exchange, outage: Outage) -> Verdict:
        replies = self._open_cache()
        key = self._key(template, exchange)
        reply = replies.get(key)
        if reply is None:
            if outage.is_over:
                return Verdict(None, error=f"given up: the server failed {outage.limit} times in a row")
            try:
                reply = self._ask(template.messages(exchange), template.max_new_tokens)
            except Failure as failure:
                outage.failed(failure.passes)
                return Verdict(None, error=str(failure))
            outage.answered()
            replies.put(key, reply)
        return template.parse(reply)

    def _ask(self, messages: Sequence[Message], max_tokens: int) -> str:
        """Request a reply, with retries; `Failure` if all attempts failed."""
        attempts = Attempts(self.retries + 1, self.pause, self.max_pause)
        while True:
            try:
                return self._post(self._open_client(), messages, max_tokens)
            except Failure as failure:
                time.sleep(attempts.pause_after(failure))

    def _post(self, client: httpx.Client, messages: Sequence[Message], max_tokens: int) -> str:
        """Send one request; `Failure` if the server answers with an error or not at all."""
        body = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        try:
            response = client.post(f"{self.base_url}/chat/completions", json=body, headers=self._headers())
        except httpx.TimeoutException as error:
            raise Failure("the server took too long", passes=True) from error
        except httpx.HTTPError as error:  # its words may hold the address
            raise Failure(f"no connection to the server ({type(error).__name__})", passes=True) from error
        if response.status_code != 200:
            passes = response.status_code in RETRIED
            raise Failure(f"the server answered {response.status_code}", passes, retry_after(response.headers))
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise Failure("the server's reply is not a chat completion", passes=True) from error
        if not isinstance(content, str):
            raise Failure("the server's reply has no text", passes=True)
        return content

    def _headers(self) -> dict[str, str]:
        if not self.api_key_env:
            return {}
        key = os.environ.get(self.api_key_env)
        if not key:
            raise InputError(f"judge {self.name}: the environment variable {self.api_key_env} is not set")
        return {"Authorization": f"Bearer {key}"}

    def _open_cache(self) -> "ReplyCache":
        if self._replies is None:
            self._replies = ReplyCache(self.cache)
        return self._replies

    def _open_client(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(timeout=self.timeout)
        return self._client

    def _key(self, template: Template, exchange: Exchange) -> str:
        parts = json.dumps([self.model, template.checksum, exchange.prompt, exchange.completion])
        return hashlib.sha256(parts.encode()).hexdigest()
