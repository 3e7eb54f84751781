"""The names of the requests that are sent to the server, which applies none of them twice."""

from __future__ import annotations

import itertools
import secrets


class RequestNames:
    """Makes names RUN-NUMBER: the run is random, and the numbers grow in the order of the requests.

    So the server recognises a request that is sent again, and a copy of it that an old connection delivers late.
    """

    def __init__(self) -> None:
        self._run = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def make(self) -> str:
        """Return the name of the next request; from any thread."""
        return f"{self._run}-{next(self._numbers)}"
