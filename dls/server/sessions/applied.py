"""Which of a session's requests were applied: none is applied twice, and none after one that was made later."""

from __future__ import annotations

import re

from dls.errors import Conflict

MAX_RUNS = 64
"""Number of runs of `dls connect` that a session remembers."""
_NAME = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")


class AppliedRequests:
    """The names of the requests that were applied to a session, as far as later requests depend on them.

    `dls connect` names its requests RUN-NUMBER, and counts on. When it sends one again because the link was lost, the
    old connection may still deliver the first copy, long after later requests were applied. That copy has a number that
    is not above the highest one, and is refused. The numbers are kept in memory only: such a copy was sent to this
    process.
    """

    def __init__(self, last: str = "") -> None:
        self.last = ""
        """Name of the request that was applied last; empty where it had none."""
        self._highest: dict[str, int] = {}
        self.add(last)

    def add(self, name: str) -> None:
        """Record that the request of that name was applied."""
        self.last = name
        run, number = _split(name)
        if run:
            self._highest[run] = max(number, self._highest.pop(run, 0))  # the latest run comes last
            if len(self._highest) > MAX_RUNS:
                del self._highest[next(iter(self._highest))]

    def is_repeated(self, name: str) -> bool:
        """Return whether the request is the one that was applied last, sent again because its answer was lost.

        Raises Conflict where a request that the same client made later was applied already.
        """
        if name and name == self.last:
            return True
        run, number = _split(name)
        if run and number <= self._highest.get(run, -1):
            raise Conflict("A later request was applied before this one, or a copy of it was: it changes nothing.")
        return False


def _split(name: str) -> tuple[str, int]:
    """Return the run and the number in a request's name; ("", 0) for another kind of name."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else ("", 0)
