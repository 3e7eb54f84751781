"""The memory that the images of all sessions may take together, those that are arriving included."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping

from dls.errors import TooLarge
from dls.server.engines.base import Engine
from dls.server.executors import Executors
from dls.server.sessions.arrivals import Arrival, Change, HoldsMemory, make_refusal
from dls.server.sessions.session import Session
from dls.server.volume import Geometry

WAIT_SECONDS = 60.0
"""How long a request waits for memory that others hold."""
TYPICAL_RATIO = 4
"""How much memory an image is expected to take for each compressed byte, before anything of it was inflated."""
GROWTH_BYTES = 16 << 20
"""Memory is reserved for what arrives in steps of this size; each step asks the event loop once."""
DRAWINGS_SHARE = 0.25
"""Memory for drawings that arrive or are applied, beside that for images, as a share of it."""
MIN_DRAWINGS_BYTES = 64 << 20
"""The least memory for drawings: enough for half a million drawn voxels."""

log = logging.getLogger("dls.server")


class MemoryBudget:
    """Reserves memory for sessions, and puts sessions to sleep that nobody uses when there is not enough.

    ITK-SNAP ends no session when it quits, so when an image needs memory, the sessions that were not used for longest
    are put to sleep. What arrives reserves memory bit by bit, so several uploads can wait for one another; then the
    youngest of them is refused.
    """

    def __init__(self, engine: Engine, executors: Executors, limit: int, sessions: Mapping[str, Session]) -> None:
        self._engine = engine
        self._executors = executors
        self._limit = limit
        self._drawings_limit = max(int(limit * DRAWINGS_SHARE), MIN_DRAWINGS_BYTES)
        self._sessions = sessions
        self._images: list[Arrival] = []
        """The images that are being received, the oldest first."""
        self._drawings: list[Arrival] = []
        """The drawings that are being received and applied, the oldest first."""
        self._opening = 0
        """Number of sessions that wait for memory; no new upload takes any before them."""
        self._changed = Change()

    @property
    def largest_image(self) -> int:
        """Bytes of float32 in the largest image that fits the budget."""
        return int(4 * self._limit / (self._engine.session_bytes(1 << 20) / (1 << 20)))

    def check_size(self, geometry: Geometry) -> int:
        """Return the bytes of memory that the image takes; raises TooLarge if it never fits."""
        return self.check_bytes(self._engine.session_bytes(geometry.voxels))

    def check_bytes(self, needed: int) -> int:
        """Return the bytes of memory that a session needs; raises TooLarge if they never fit."""
        if needed > self._limit:
            raise TooLarge(
                f"The image needs {needed >> 20} MiB of memory; this server has {self._limit >> 20} MiB for images. "
                "Crop or resample it."
            )
        return needed

    @contextlib.contextmanager
    def arriving_image(self, session: Session, length: int) -> Iterator[Arrival]:
        """Count an image that arrives for the session until the context ends, when the session has it or it is lost.

        `length` is the number of compressed bytes that the client has announced.
        """
        arrival = Arrival(session, self._grow_image, self._changed)
        arrival.expected = min(TYPICAL_RATIO * length, self._limit // 2)
        with self._arriving(arrival, self._images):
            yield arrival

    @contextlib.contextmanager
    def arriving_drawing(self, session: Session) -> Iterator[Arrival]:
        """Count a drawing that arrives for the session until the context ends, when it has been applied."""
        with self._arriving(Arrival(session, self._grow_drawing, self._changed), self._drawings) as arrival:
            yield arrival

    @contextlib.contextmanager
    def _arriving(self, arrival: Arrival, arrivals: list[Arrival]) -> Iterator[Arrival]:
        arrivals.append(arrival)
        try:
            yield arrival
        finally:
            arrivals.remove(arrival)
            self._changed.notify()

    async def _grow_image(self, arrival: Arrival, size: int) -> None:
        def fits() -> bool:
            if self._taken() - arrival.reserved + reserved > self._limit:
                return False
            return arrival.reserved > 0 or self._may_begin(arrival)

        reserved = _round_up(size, self._limit)
        await self._make_room(fits, arrival.session, arrival)
        arrival.reserved, arrival.grown_at = reserved, time.monotonic()

    def _may_begin(self, arrival: Arrival) -> bool:
        """Return whether the image will probably fit beside those that are arriving, and no session waits for memory.

        Otherwise images that were sent at once would begin together, and fill the memory before one is complete.
        """
        others = [each for each in self._images if each.reserved]
        expected = sum(max(each.expected, each.reserved) - each.reserved for each in (*others, arrival))
        return not self._opening and (not others or self._taken() + expected <= self._limit)

    async def _grow_drawing(self, arrival: Arrival, size: int) -> None:
        def fits() -> bool:
            others = sum(other.reserved for other in self._drawings if other is not arrival)
            return others + reserved <= self._drawings_limit

        reserved = _round_up(size, self._drawings_limit)
        deadline = time.monotonic() + WAIT_SECONDS
        while not fits():
            if arrival.is_refused or time.monotonic() > deadline:
                raise make_refusal()
            await self._wait(arrival, self._drawings, deadline)
        arrival.reserved = reserved

    async def reserve(self, session: Session, geometry: Geometry) -> None:
        """Reserve memory for the session's image, and put unused sessions to sleep until it fits.

        If all other sessions are at work or being received, wait until one is not. Raises TooLarge for an image that
        never fits, and Exhausted for one that does not fit in time.
        """
        await self.reserve_bytes(session, self.check_size(geometry))

    async def reserve_bytes(self, session: Session, needed: int) -> None:
        """Reserve so many bytes for all that the session holds, as `reserve` does for an image."""
        self.check_bytes(needed)
        # What the session's own upload has reserved is reserved for this image. Another upload for this session that
        # is complete waits for this image to be opened.
        own = next((each for each in self._images if each.session is session and each.is_handed_over), None)

        def fits() -> bool:
            replaced = session.reserved or (own.reserved if own else 0)
            return self._taken() - replaced + needed <= self._limit

        self._opening += 1
        try:
            await self._make_room(fits, session, own)
            session.reserved = needed
        finally:
            self._opening -= 1
            self._changed.notify()  # new uploads may begin

    def _taken(self) -> int:
        """Return the bytes that sessions and arriving images have reserved; what was handed over counts once."""
        arriving = (each.reserved for each in self._images if not (each.is_handed_over and each.session.reserved))
        return sum(session.reserved for session in self._sessions.values()) + sum(arriving)

    async def _make_room(self, fits: Callable[[], bool], session: HoldsMemory, arrival: Arrival | None) -> None:
        """Wait until it fits, putting unused sessions to sleep; raises Exhausted when `arrival` is to end instead."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not fits():
            if arrival is not None and arrival.is_refused:
                raise make_refusal()
            if await self._put_one_to_sleep(session):
                continue
            if time.monotonic() > deadline:
                if not self._refuse_slowest(math.inf if arrival is None else time.monotonic() - WAIT_SECONDS):
                    raise make_refusal()
                deadline = time.monotonic() + WAIT_SECONDS
            await self._wait(arrival, self._images, deadline)

    def _refuse_slowest(self, before: float) -> bool:
        """Refuse the image that has not grown for longest, if it last did so before that time; False for none."""
        receiving = [each for each in self._images if each.reserved and not (each.is_refused or each.is_complete)]
        receiving = [each for each in receiving if each.grown_at < before]
        if receiving:
            min(receiving, key=lambda each: each.grown_at).refuse()
        return bool(receiving)

    async def _wait(self, arrival: Arrival | None, arrivals: list[Arrival], deadline: float) -> None:
        """Wait for a change; raises Exhausted if the change can only be that this upload ends."""
        if arrival is not None:
            arrival.is_waiting = True
        try:
            if self._is_stuck(arrivals):
                youngest = [each for each in arrivals if each.reserved and not each.is_complete][-1:]
                if arrival is not None and youngest in ([], [arrival]):
                    raise make_refusal()
                for each in youngest:
                    each.refuse()
            await self._changed.wait(deadline - time.monotonic())
        finally:
            if arrival is not None:
                arrival.is_waiting = False

    def _is_stuck(self, arrivals: list[Arrival]) -> bool:
        """Return whether the uploads wait for one another, and nothing else will free memory."""
        if any(session.reserved and session.lock.locked() for session in self._sessions.values()):
            return False
        holding = [each for each in arrivals if each.reserved]
        return bool(holding) and all(each.is_waiting and not each.is_refused for each in holding)

    async def _put_one_to_sleep(self, session: HoldsMemory) -> bool:
        """Put the session to sleep that was unused for longest, but not this one; return whether there was any."""
        others = [other for other in self._sessions.values() if other is not session]
        unused = [other for other in others if other.is_awake and not other.lock.locked()]
        if not unused:
            return False
        oldest = min(unused, key=lambda other: other.last_used)
        async with oldest.lock:
            log.info("session %s is put to sleep, %d MiB", oldest.id[:8], oldest.reserved >> 20)
            await self.release(oldest)
        return True

    async def release(self, session: Session) -> None:
        """Put the session to sleep: close its segmentation and free its memory. The session's lock must be held."""
        held = session.detach()
        try:
            if held is not None:
                await self._executors.prepare(held.close)
        finally:
            session.reserved = 0
            self._changed.notify()

    async def release_all(self) -> None:
        """Put every session to sleep after the engine's process was lost; their files hold what is needed again."""
        for session in self._sessions.values():
            if (held := session.detach()) is not None:
                held.close()
                session.reserved = 0
        self._changed.notify()

    async def notify(self) -> None:
        """Let waiting reservations look again: memory was freed, or a session is not at work any more."""
        self._changed.notify()


def _round_up(size: int, limit: int) -> int:
    """Return a few bytes more than the size, so that not every block asks. Raises TooLarge beyond the limit."""
    if size > limit:
        raise TooLarge(f"This takes more memory than the {limit >> 20} MiB that this server has for it.")
    return min(size + min(GROWTH_BYTES, limit // 64), limit)
