"""Whether a text is the address of a server."""

from urllib.parse import urlsplit

import httpx


def is_address(url: str) -> bool:
    """Whether it is one of http or https, without a name or password in it."""
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.username or parts.password)
