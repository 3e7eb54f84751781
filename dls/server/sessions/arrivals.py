"""The memory of uploads while they are received, which `budget` grants bit by bit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from dls.errors import Exhausted

T = TypeVar("T")


def make_refusal() -> Exhausted:
    """Return the error of a request for whose memory others would have to stop."""
    return Exhausted("The server's memory is taken by other images at this moment. Send this again in a minute.")


class Change:
    """Wakes all that wait for a change, each of them for a limited time."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    async def wait(self, seconds: float) -> None:
        """Wait for the next change."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=max(0.0, seconds))
        finally:
            self._waiters.discard(waiter)

    def notify(self) -> None:
        """Wake all that wait."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class HoldsMemory(Protocol):
    """A session, as far as its memory goes."""

    @property
    def reserved(self) -> int:
        """Bytes of memory that it takes."""


class Arrival:
    """The memory of one upload for a session, which grows with what has arrived.

    `grow` reserves that many bytes in all. Everything but `take` is for the event loop.
    """

    def __init__(
        self, session: HoldsMemory, grow: Callable[[Arrival, int], Coroutine[Any, Any, None]], change: Change
    ) -> None:
        self._grow = grow
        self._change = change
        self._loop = asyncio.get_running_loop()
        self._refusal: asyncio.Future[None] = self._loop.create_future()
        self._taken = 0
        self.session = session
        self.expected = 0
        """Bytes that the upload will probably take."""
        self.reserved = 0
        """Bytes reserved for the upload."""
        self.is_waiting = False
        """Whether the upload can't go on before there is more memory."""
        self.is_complete = False
        """Whether everything has been received."""
        self.is_handed_over = False
        """Whether the session opens the image, so that what it reserves stands for what is reserved here."""
        self.is_replaced = False
        """Whether the client has begun again on another connection, and goes on with what has arrived."""
        self.grown_at = time.monotonic()
        """When memory was reserved last: long ago, if the client has stopped sending."""

    def take(self, size: int) -> None:
        """Count so many more bytes, and wait until there is memory for them; for the thread that parses the upload.

        Raises TooLarge when the upload can never fit, and Exhausted when there is no memory for it now.
        """
        self._taken += size
        if self._taken > self.reserved:
            asyncio.run_coroutine_threadsafe(self._grow(self, self._taken), self._loop).result()

    async def reserve(self, size: int) -> None:
        """Count so many more bytes as `take` does, on the event loop."""
        self._taken += size
        if self._taken > self.reserved:
            await self._grow(self, self._taken)

    @property
    def is_refused(self) -> bool:
        """Whether the upload has to end."""
        return self._refusal.done()

    def refuse(self) -> None:
        """End the upload, whatever its client does: others need the memory."""
        if not self._refusal.done():
            self._refusal.set_result(None)
        self._change.notify()

    def replace(self) -> None:
        """End the upload because its client goes on with it on another connection; what has arrived is kept."""
        self.is_replaced = True
        self.refuse()

    async def unless_refused(self, receiving: Awaitable[T]) -> T:
        """Receive the upload; raises Exhausted when it is refused meanwhile."""
        task = asyncio.ensure_future(receiving)
        try:
            both: set[asyncio.Future[Any]] = {task, self._refusal}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise make_refusal()
            received = task.result()
            self.is_complete = True
            return received
        finally:
            if not self.is_complete:
                self.refuse()  # ends the wait of the thread that parses, also where the client has gone
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
