"""Who may open the page: this machine alone, or others with a password."""

import base64
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from datamodules.errors import InputError

LOCAL = ("127.0.0.1", "localhost", "::1")
LEAST = 8
"""Characters of a password."""

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


def check_address(host: str, port: int, password: str | None) -> None:
    """Raise InputError if others could open the page without a password, or the port is not free."""
    if host not in LOCAL and not password:
        raise InputError(
            f"--host: '{host}' lets others ask your model; give a --password too, or reach the page from elsewhere by "
            f"`ssh -L {port}:localhost:{port} THIS_MACHINE`"
        )
    if password is not None and len(password) < LEAST:
        raise InputError(f"--password: give at least {LEAST} characters")
    if not 1 <= port <= 65535:
        raise InputError(f"--port: must be from 1 to 65535, not {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except PermissionError as error:
            raise InputError(f"--port: {port} needs an administrator; give one above 1023") from error
        except socket.gaierror as error:
            raise InputError(f"--host: there is no address '{host}' ({error.strerror})") from error
        except OSError as error:
            raise InputError(
                f"--port: {host}:{port} cannot be opened ({error.strerror}); another program may use it: give another "
                f"port, such as {port % 65535 + 1}"
            ) from error


class Guard:
    """Lets requests through that come from the page itself and, if there is a password, know it.

    Without a password only names of this machine are served, so that no other site can pass for it (DNS rebinding).
    A request that another site's page sends is refused in any case. The password is asked for by the browser (HTTP
    Basic, any user name); over a network it is readable without TLS.
    """

    def __init__(self, app: _App, password: str | None) -> None:
        """Wrap an ASGI application."""
        self._app, self._password = app, password

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        """Serve or refuse a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refused := self.refusal(headers):
            await _refuse(scope["type"], refused, send)
        else:
            await self._app(scope, receive, send)

    def refusal(self, headers: dict[str, str]) -> int:
        """The HTTP status to refuse a request with; 0 to serve it."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._password is None and host.rpartition(":")[0].strip("[]") not in LOCAL and host not in LOCAL:
            return 403
        if origin is not None and origin.partition("://")[2] != host:
            return 403
        return 401 if self._password is not None and not self._knows(headers.get("authorization", "")) else 0

    def _knows(self, authorization: str) -> bool:
        kind, _, code = authorization.partition(" ")
        try:
            given = base64.b64decode(code, validate=True).partition(b":")[2] if kind.lower() == "basic" else b""
        except ValueError:
            return False
        return secrets.compare_digest(given, (self._password or "").encode())


async def _refuse(kind: str, status: int, send: Any) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="rod play", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"A password is needed." if status == 401 else b"Refused."})
