"""A judge model behind an OpenAI-compatible server, with concurrent requests and a cache of replies.

The retries are our own because httpx's transport retries only failed connections: on httpx 0.28 with ``retries=3``, a
server that answers 429 or 503, sends nonsense or takes too long is asked once.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from datamodules.errors import InputError
from llm_modules.http_retries import RETRIED, retry_after
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
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
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
            except (_Failure, httpx.HTTPError) as error:
                raise InputError(
                    f"judge {self.name}: the server at {self.base_url} does not reply as expected: {_say(error)}"
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
        template, outage = load_template(self.template), _Outage(limit=2 * self.concurrency)
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

    def _judge_one(self, template: Template, exchange: Exchange, outage: "_Outage") -> Verdict:
        replies = self._open_cache()
        key = self._key(template, exchange)
        reply = replies.get(key)
        if reply is None:
            if outage.is_over_limit():
                return Verdict(None, error=f"given up: the server failed {outage.limit} times in a row")
            try:
                reply = self._ask(template.messages(exchange), template.max_new_tokens)
            except _Failure as failure:
                outage.count(failed=failure.again)
                return Verdict(None, error=str(failure))
            outage.count(failed=False)
            replies.put(key, reply)
        return template.parse(reply)

    def _ask(self, messages: Sequence[Message], max_tokens: int) -> str:
        """Request a reply, with retries; `_Failure` if all attempts failed."""
        for attempt in range(self.retries + 1):
            try:
                return self._post(self._open_client(), messages, max_tokens)
            except _Failure as error:
                failure = error
            except httpx.HTTPError as error:
                failure = _Failure(_say(error), again=True)
            if not failure.again or attempt == self.retries:
                break
            time.sleep(min(self.max_pause, failure.wait if failure.wait is not None else self.pause * 2**attempt))
        raise _Failure(f"{failure} (tried {attempt + 1} times)", failure.again)

    def _post(self, client: httpx.Client, messages: Sequence[Message], max_tokens: int) -> str:
        """Send one request; `_Failure` if the server answers with an error, ``httpx.HTTPError`` if it does not."""
        body = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        response = client.post(f"{self.base_url}/chat/completions", json=body, headers=self._headers())
        if response.status_code != 200:
            again = response.status_code in RETRIED
            raise _Failure(f"the server answered {response.status_code}", again, retry_after(response.headers))
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _Failure("the server's reply is not a chat completion", again=True) from error
        if not isinstance(content, str):
            raise _Failure("the server's reply has no text", again=True)
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


class _Failure(Exception):
    """A failed request: the reason, whether a retry may help, and the pause in seconds that the server asks for."""

    def __init__(self, reason: str, again: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.again, self.wait = again, wait


class _Outage:
    """Counts failures in a row, so that a server that is gone is not waited for with every exchange."""

    def __init__(self, limit: int) -> None:
        self.limit, self._row, self._lock = limit, 0, threading.Lock()

    def count(self, failed: bool) -> None:
        with self._lock:
            self._row = self._row + 1 if failed else 0

    def is_over_limit(self) -> bool:
        with self._lock:
            return self._row >= self.limit


def _say(error: Exception) -> str:
    """The reason, without addresses or headers."""
    if isinstance(error, httpx.TimeoutException):
        return "the server took too long"
    return str(error) if isinstance(error, _Failure) else f"no connection to the server ({type(error).__name__})"
