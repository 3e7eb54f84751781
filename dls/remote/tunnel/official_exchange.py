"""Forwards the requests of official clients from the local port to the server, and the responses back.

Their client gives up after 60 s and repeats nothing. So a request is answered before that whatever happens, and until
then it is held, and sent again where its connection breaks. What the client did not get the server is told.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent import futures

import h11

from dls.errors import LinkError
from dls.remote.ssh.channel import Channel
from dls.remote.tunnel.body_memory import BodyMemory, Reservation
from dls.remote.tunnel.deadline import Deadline
from dls.remote.tunnel.downstream import Body, ClientConnection, ClientDisconnected, SizedBody
from dls.remote.tunnel.exchange import MAX_BUFFERED_RESPONSE, MAX_RETRIES, log
from dls.remote.tunnel.headers import Answer, build_request_headers, build_response, encode_error
from dls.remote.tunnel.link import Link, LinkState
from dls.remote.tunnel.missed_answers import MissedAnswers
from dls.remote.tunnel.official import CLAIM, SET_IMAGE, find_lease, is_pasted, path_of
from dls.remote.tunnel.request_names import RequestNames
from dls.remote.tunnel.uploads import ImageIsHeld, Outgoing, Uploads, Way
from dls.remote.tunnel.upstream import UpstreamLost, read_ahead, read_answer, send_request

ANSWER_SECONDS = 50.0
"""Seconds after a request has been read to its end within which it is sent: its client waits 60 s for the answer."""
IMAGE_FACTOR = 11.0
"""How many times longer an image may take, as long as its bytes move: its client waits 600 s."""
GRACE = 0.1
"""Part of ANSWER_SECONDS for which the answer is waited for after that."""
LOOK_SECONDS = 1.0
"""Seconds between two looks at whether a request has been read to its end."""
MAX_ANSWER_BYTES = 256 << 20
"""Size beyond which an answer is refused: a part of one would be worth nothing to its client."""
RETRY_AFTER = (b"Retry-After", b"10")
"""Header of a refused claim; nnInteractive's own server asks for ten seconds too."""


class TookTooLong(Exception):
    """The time for the request is over."""


class AnswerTooLarge(Exception):
    """The server's answer is larger than any mask."""


class OfficialExchanges:
    """Answers requests of official clients, each of them within `seconds` after it was read to its end."""

    def __init__(
        self,
        link: Link,
        names: RequestNames,
        uploads: Uploads,
        memory: BodyMemory,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._link = link
        self._names = names
        self._uploads = uploads
        self._memory = memory
        self._seconds = seconds
        self._missed = MissedAnswers()

    def answer(self, client: ClientConnection, request: h11.Request, body: Body) -> None:
        """Send the client the server's response, or the reason why there is none; raises ClientDisconnected."""
        is_image = path_of(request.target) == SET_IMAGE
        longest = self._seconds * (IMAGE_FACTOR if is_image else 1)
        deadline = Deadline(self._seconds, longest, self._seconds * GRACE)
        if not is_image and isinstance(body, SizedBody) and body.is_replayable:
            read_ahead(body)  # an image is read while it is sent on
        lease, name = find_lease(request.headers.raw_items()), self._names.make()
        is_missing, covered = self._missed.begin(lease, name)
        exchange = OfficialExchange(
            self._link, self._uploads, self._memory, request, body, deadline, name, is_missing=is_missing
        )
        try:
            response, data = self._wait(exchange)
            changes_nothing = not exchange.was_sent or 400 <= response.status_code < 500
            # Forgotten before it is sent: with the answer in its hands, the client may send its next request at once.
            if changes_nothing:
                self._missed.forget(lease, name)
            elif response.status_code == 200 and not client.is_gone:
                self._missed.forget(lease, name, *(covered if is_pasted(response) else ()))
            else:
                self._missed.keep(lease, name)
            try:
                client.send_response(response, data)
            except ClientDisconnected:
                if not changes_nothing:
                    self._missed.keep(lease, name)
                raise
        finally:
            exchange.memory.release()

    def _wait(self, exchange: OfficialExchange) -> Answer:
        """Run the exchange in a thread: what it waits for does not end on time everywhere."""
        future: futures.Future[Answer] = futures.Future()

        def run() -> None:
            try:
                future.set_result(exchange.run())
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="dls-official", daemon=True).start()
        while not future.done() and (left := exchange.deadline.left_for_answer) > 0:
            exchange.look()
            futures.wait([future], min(left, LOOK_SECONDS))
        try:
            if not future.done():
                raise TookTooLong
            return future.result()
        except (LinkError, UpstreamLost, TookTooLong, AnswerTooLarge) as error:
            return self._refuse(exchange, error)

    def _refuse(self, exchange: OfficialExchange, error: Exception) -> Answer:
        """Return our own answer in place of the server's."""
        is_claim = path_of(exchange.request.target) == CLAIM
        if self._link.state is LinkState.CLOSED:
            return encode_error(503 if is_claim else 502, f"{self._link.reason} Start dls connect again.")
        if isinstance(error, AnswerTooLarge):
            return encode_error(502, f"The answer of the server has more than {MAX_ANSWER_BYTES >> 20} MiB.")
        if isinstance(error, UpstreamLost):
            message, status = "The connection was lost in the middle of this request. Try again.", 502
        else:
            reason = error.message if isinstance(error, LinkError) else self._link.reason
            late = f"{reason} Try again when it is back." if reason else "The server did not answer in time. Try again."
            message, status = late, 504
        return encode_error(503, message, [RETRY_AFTER]) if is_claim else encode_error(status, message)


class OfficialExchange:
    """One request and its answer."""

    def __init__(
        self,
        link: Link,
        uploads: Uploads,
        memory: BodyMemory,
        request: h11.Request,
        body: Body,
        deadline: Deadline,
        name: str,
        *,
        is_missing: bool,
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.was_sent = False
        """Whether the server may have the request."""
        self.memory = Reservation(memory)
        """What the answer takes; it is for the caller to release."""
        self._link = link
        self._uploads = uploads
        self._body = body
        self._name = name
        self._is_missing = is_missing
        self.look()

    def run(self) -> Answer:
        """Send the request until it is answered; raises LinkError, UpstreamLost, TookTooLong and AnswerTooLarge."""
        way = Way(self._open_channel, self._build_headers, self._on_piece, self._on_sent)
        with self._uploads.outgoing(self.request, self._body, self._name, way) as outgoing:
            for attempt in range(MAX_RETRIES + 1):
                try:
                    return self._attempt(outgoing, is_retry=attempt > 0)
                except ImageIsHeld:
                    log.debug("the host has this image")
                except UpstreamLost:
                    log.warning("a request was cut")
                    self._link.suspect()
                    if not self._body.is_replayable:
                        raise
                    self.deadline.extend()
        raise UpstreamLost

    def _attempt(self, outgoing: Outgoing, *, is_retry: bool) -> Answer:
        """Send the request once, without what the host holds of it."""
        if (answered := outgoing.send_less(is_retry=is_retry)) is not None:
            response, answer = answered
            return build_response(response, len(answer), closes=not self._body.is_complete), answer
        with contextlib.closing(self._open_channel()) as channel:
            upstream = self._send(channel, outgoing, is_retry=is_retry)
            answered = self._receive(upstream, channel)
        outgoing.is_done = answered[0].status_code == 200
        return answered

    def look(self) -> None:
        """Note when the request has been read to its end."""
        if self._body.is_complete:
            self.deadline.set_limit()

    def _open_channel(self) -> Channel:
        """Open a channel; once the time is over nothing is sent: the client may have sent something else since."""
        if (left := self.deadline.left) <= 0:
            raise TookTooLong
        channel = self._link.open_channel(left)
        if self.deadline.left <= 0:
            channel.close()
            raise TookTooLong
        self.was_sent = True
        return channel

    def _on_piece(self, channel: Channel) -> None:
        self.look()
        self.deadline.extend()
        _limit_wait(channel, self.deadline.left)

    def _on_sent(self, channel: Channel) -> None:
        self.deadline.wait_for_answer()
        _limit_wait(channel, self.deadline.left_for_answer)

    def _build_headers(self, is_retry: bool) -> list[tuple[bytes, bytes]]:
        return build_request_headers(
            self.request.headers.raw_items(), self._name, is_retry=is_retry, is_missing=self._is_missing
        )

    def _send(self, channel: Channel, outgoing: Outgoing, *, is_retry: bool) -> h11.Connection:
        _limit_wait(channel, self.deadline.left)
        headers = self._build_headers(is_retry)
        upstream = send_request(channel, self.request, headers, outgoing, lambda: self._on_piece(channel))
        self.deadline.wait_for_answer()
        return upstream

    def _receive(self, upstream: h11.Connection, channel: Channel) -> Answer:
        def before_read() -> None:
            _limit_wait(channel, self.deadline.left_for_answer)

        response, data = read_answer(upstream, channel, self._check_size, before_read)
        return build_response(response, len(data), closes=not self._body.is_complete), data

    def _check_size(self, size: int) -> None:
        """Take memory for so many bytes of the answer: a host could answer without end."""
        if size > MAX_ANSWER_BYTES or not self.memory.grow_to(max(0, size - MAX_BUFFERED_RESPONSE)):
            raise AnswerTooLarge


def _limit_wait(channel: Channel, seconds: float) -> None:
    """Let the channel wait no longer; raises UpstreamLost where no time is left."""
    if seconds <= 0:
        raise UpstreamLost
    channel.settimeout(seconds)
