"""A cache of a judge server's replies that is kept across runs."""

import json
import threading
from pathlib import Path

from datamodules.errors import InputError


class ReplyCache:
    """Replies by key, in memory and appended to a JSONL file as they arrive. Thread-safe.

    An incomplete last line of the file, left by a killed run, is removed. Without a path nothing is kept. InputError if
    the file cannot be read or written, or has a line that is no reply.
    """

    def __init__(self, path: Path | None) -> None:
        self._replies: dict[str, str] = {}
        self._lock = threading.Lock()
        self._file = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            self._file = path.open("ab")
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
                self._file.truncate(sum(map(len, lines)))
        except OSError as error:
            raise InputError(f"cache: {path} cannot be read and written ({error.strerror})") from error
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                self._replies[entry["key"]] = str(entry["reply"])
            except (ValueError, KeyError, TypeError) as error:
                self.close()
                raise InputError(
                    f"{path}:{number}: not a cached reply; remove the line or name another file"
                ) from error

    def get(self, key: str) -> str | None:
        """The reply, or None."""
        return self._replies.get(key)

    def put(self, key: str, reply: str) -> None:
        """Store a reply; it is in the file when this returns."""
        with self._lock:
            self._replies[key] = reply
            if self._file is not None:
                self._file.write(json.dumps({"key": key, "reply": reply}).encode() + b"\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
