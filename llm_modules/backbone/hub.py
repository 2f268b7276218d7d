"""When the hub is asked for a model, and what is said if it cannot be."""

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants


def without_hub(path: str) -> str:
    """Why a model is looked for on this machine alone, in its folders and the hub's cache; empty if the hub is asked.

    A hub that is not there would be asked many times, for a minute.

    >>> without_hub("llm_modules")
    ''
    """
    first, slash, _ = path.partition("/")
    if Path(path).exists():
        return ""
    if slash and Path(first).is_dir():
        return f"the hub is not asked, as '{first}' is a folder here (hf download {path} would fetch its model)"
    return "" if _has_name() else f"{constants.ENDPOINT} cannot be reached"


def options_of(path: str) -> dict[str, Any]:
    """Further options of ``from_pretrained`` for a folder or hub id."""
    return {"local_files_only": True} if without_hub(path) else {}


def _has_name() -> bool:
    """Whether the hub's address can be found; a proxy finds it by itself."""
    if getproxies().keys() & {"http", "https", "all"}:
        return True
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        return False
    return True
