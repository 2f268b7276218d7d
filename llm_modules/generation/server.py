"""A server with OpenAI's API: what it is, what it serves, and whether it can steer."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from datamodules.errors import InputError
from llm_modules.generation.interface import ServerSettings
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.vllm_process import tell_untested
from llm_modules.http_address import is_address

URL = "model.generation.server.url"
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


@dataclass(frozen=True)
class Served:
    """A model of a server.

    Attributes:
        id: Its name there.
        root: Hub id or folder that it comes from; empty if the server does not say.
        longest: Most tokens of a prompt and its completion, if known.
    """

    id: str
    root: str
    longest: int | None

    def is_from(self, source: str) -> bool:
        """Whether it comes from this hub id or folder."""
        return source in (self.id, self.root) or (
            bool(self.root) and os.path.isdir(source) and Path(self.root).resolve() == Path(source).resolve()
        )


@dataclass(frozen=True)
class Server:
    """What a server says about itself.

    Attributes:
        url: Its address, without ``/v1``.
        version: Such as ``vllm 0.32.0``; what it calls itself, or ``unknown``.
        served: Its models.
        extension: What our extension says, which steers and chooses random numbers; None without it.
    """

    url: str
    version: str
    served: tuple[Served, ...]
    extension: Mapping[str, Any] | None

    @property
    def is_vllm(self) -> bool:
        """Whether it is vLLM, which takes and gives token ids."""
        return self.version.startswith("vllm")

    @property
    def dtype(self) -> str | None:
        """The type in which it computes; None if it does not say."""
        return str((self.extension or {}).get("dtype") or "") or None

    def model(self, name: str, source: str) -> Served:
        """The model of this name, or the one from this hub id or folder; InputError if there is none."""
        for served in self.served:
            if (served.id == name) if name else served.is_from(source):
                return served
        names = (
            ", ".join(f"'{one.id}'" + (f" (from {one.root})" if one.root else "") for one in self.served) or "nothing"
        )
        if name:
            raise InputError(f"model.generation.server.model: {self.url} serves {names}, and no '{name}'")
        raise InputError(
            f"{URL}: {self.url} serves {names}, and the model of this run is '{source}'; serve that one, or "
            "give model.generation.server.model if it is the same under another name"
        )


def find_server(settings: ServerSettings) -> Server:
    """The server, asked once in the life of this process.

    InputError if it does not answer within seconds, refuses the key, or has no such API.
    """
    return _find(address_of(settings.url), settings.api_key_env)


def address_of(url: str) -> str:
    """An address without ``/v1``; InputError if it is none, or holds a password."""
    if not is_address(url):
        raise InputError(
            f"{URL}: give an address such as http://localhost:8000, without a password; a key belongs into the "
            "environment variable that model.generation.server.api_key_env names"
        )
    return url.rstrip("/").removesuffix("/v1")


def headers_of(api_key_env: str) -> dict[str, str]:
    """Headers with the key; InputError if its variable is not set."""
    if not api_key_env:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        raise InputError(f"model.generation.server.api_key_env: the environment variable {api_key_env} is not set")
    return {"Authorization": f"Bearer {key}"}


def refusal(url: str, api_key_env: str) -> InputError:
    """The error for a status of 401 or 403."""
    if api_key_env:
        return InputError(f"{URL}: {url} refuses the key in {api_key_env}")
    return InputError(
        f"{URL}: {url} wants a key; give the environment variable that holds it as model.generation.server.api_key_env"
    )


@lru_cache
def _find(url: str, api_key_env: str) -> Server:
    with httpx.Client(base_url=url, headers=headers_of(api_key_env), timeout=_TIMEOUT) as client:
        try:
            models = client.get("/v1/models")
            version, about = client.get("/version"), client.post("/collective_rpc", json={"method": "rod_about"})
        except httpx.HTTPError as error:
            raise InputError(
                f"{URL}: no server answers at {url} ({type(error).__name__}); start it (docs/engines.md) or give its "
                "address"
            ) from error
        if models.status_code in (401, 403):
            raise refusal(url, api_key_env)
        try:
            cards = models.raise_for_status().json()["data"]
            served = tuple(Served(card["id"], card.get("root") or "", card.get("max_model_len")) for card in cards)
            owner = str(cards[0].get("owned_by") or "unknown") if cards else "unknown"
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{URL}: {url} has no list of models at /v1/models, as OpenAI's API has") from error
        if owner == "vllm" and version.is_success:
            number = str(_json(version).get("version", "unknown")).partition("+")[0]
            tell_untested(number)
            owner = f"vllm {number}"
        workers = (worker for worker in results_of(about) if isinstance(worker, dict))
        return Server(url, owner, served, next(workers, None))


def results_of(response: httpx.Response) -> list[Any]:
    """What the workers of vLLM return from a method of our extension; nothing from other servers."""
    found = _json(response).get("results")
    return found if isinstance(found, list) else []


def _json(response: httpx.Response) -> Mapping[str, Any]:
    try:
        found = response.json() if response.is_success else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_weights(server: Server, model: RemoteModel) -> None:
    """Raise InputError if a server says that its weights are of another type or revision."""
    said = server.extension or {}
    if server.dtype and server.dtype != model.dtype:
        raise InputError(
            f"{URL}: {server.url} computes in {server.dtype}, and model.dtype is {model.dtype}; they must be the same"
        )
    from_hub = any(served.root == model.path for served in server.served) and not os.path.isdir(model.path)
    if from_hub and "revision" in said and (said["revision"] or "main") != (model.revision or "main"):
        raise InputError(
            f"{URL}: {server.url} serves revision {said['revision']} of '{model.path}', and model.revision is "
            f"{model.revision}; give both the same"
        )


def check_steering(server: Server) -> None:
    """Raise InputError if a server cannot steer."""
    start = "start it by llm_modules/generation/vllm_worker/serve.py (docs/engines.md)"
    if server.extension is None:
        raise InputError(f"{URL}: {server.url} has no extension that steers; {start}")
    if not server.extension.get("eager"):
        raise InputError(f"{URL}: {server.url} runs captured graphs, which ignore steering; {start}")


def reason_of(response: httpx.Response) -> str:
    """Why a request failed, in the server's words."""
    found = _error(response)
    return f"the server answered {response.status_code}" + (f": {found[:300]}" if found else "")


def _error(response: httpx.Response) -> str:
    try:
        error = response.json()
    except ValueError:
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(error, dict) and key in error:
            error = error[key]
    return error if isinstance(error, str) else ""


def token_ids(choice: Mapping[str, Any]) -> Sequence[int] | None:
    """The token ids of a choice; None from a server that gives text only."""
    found = choice.get("token_ids")
    return [int(token) for token in found] if found is not None else None
