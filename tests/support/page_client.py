"""Asks for the page as a browser does, without one."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

HTML = {"Accept": "text/html,application/xhtml+xml"}


@dataclass
class PageAnswer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@dataclass
class PageClient:
    """A page at a port, with or without its key."""

    port: int
    key: str = ""

    @classmethod
    def at(cls, url: str) -> PageClient:
        """Return the page at the address that was printed."""
        place, _, key = url.partition("/#key=")
        return cls(int(place.rstrip("/").rpartition(":")[2]), key)

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"Host": f"localhost:{self.port}", **({"X-Dls-Page-Key": self.key} if self.key else {}), **more}
        return {name: value for name, value in headers.items() if value}

    def get(self, path: str = "/", headers: Mapping[str, str] = HTML, method: str = "GET") -> PageAnswer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, headers=self._headers(headers))
            response = connection.getresponse()
            answered = {name.lower(): value for name, value in response.getheaders()}
            return PageAnswer(response.status, answered, response.read())

    @contextlib.contextmanager
    def events(self, headers: Mapping[str, str] = {}) -> Iterator[Iterator[dict[str, Any]]]:
        """Open the stream, and yield an iterator of what the page is told."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", "/dls/page/events", headers=self._headers(headers))
            with connection.getresponse() as response:  # which holds the connection open by itself
                assert response.status == 200, response.read()
                assert response.headers["Content-Type"] == "text/event-stream"
                yield _read(response)

    def state(self) -> dict[str, Any]:
        """Return the first thing that the page is told."""
        with self.events() as states:
            return next(states)

    def wait_for(self, condition: Any) -> dict[str, Any]:
        """Wait until the page is told something of which the condition is true, and return that."""
        with self.events() as states:
            return next(state for state in states if condition(state))


def _read(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while line := response.readline():
        if line.startswith(b"data: "):
            yield json.loads(line[6:])
