"""Answers the connections to the local port: who may use it, and what takes which request.

Polls are answered at once. What ITK-SNAP and official clients ask is held while the link is lost, for as long as each
of them waits.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import h11

from dls.contract import REFUSALS
from dls.errors import LinkError
from dls.remote.progress import UploadProgress
from dls.remote.tunnel.body_memory import BodyMemory
from dls.remote.tunnel.downstream import Body, ClientConnection, ClientDisconnected, ClientTooSlow, HeadTooLarge
from dls.remote.tunnel.exchange import WAIT_SECONDS, Exchanges
from dls.remote.tunnel.headers import encode_error
from dls.remote.tunnel.link import Link, LinkState
from dls.remote.tunnel.local_secret import is_authorized
from dls.remote.tunnel.official import ROUTES, path_of
from dls.remote.tunnel.official_exchange import ANSWER_SECONDS, OfficialExchanges
from dls.remote.tunnel.page import Page
from dls.remote.tunnel.polls import Polls, is_poll
from dls.remote.tunnel.request_names import RequestNames
from dls.remote.tunnel.uploads import Uploads
from dls.remote.tunnel.upstream import UpstreamLost

PRIVATE = b"/dls/"
"""In the paths at which the server answers this proxy and nobody else."""
MAX_CLIENTS = 128
"""Beyond this number the oldest connection without a request is closed; if there is none, a new one gets 429."""
SECRET_NEEDED = (
    "The local port needs its secret. Copy the Server field as dls connect printed it: snap:SECRET@localhost; "  # noqa: S105
    "napari, 3D Slicer and MITK take the SECRET as API key."
)


class Proxy:
    """Answers the connections to the local port; with a secret, only those who know it.

    A request of ITK-SNAP waits up to `timeout` seconds for a lost link, and one of an official client is answered
    within `official_timeout` seconds. `show` is called with what ITK-SNAP does not show of a refused prompt, and
    `show_upload` with how far the upload of an image is, in the thread of its connection.
    """

    def __init__(
        self,
        link: Link,
        timeout: float = WAIT_SECONDS,
        secret: str | None = None,
        show: Callable[[str], None] = lambda text: None,
        official_timeout: float = ANSWER_SECONDS,
        show_upload: Callable[[UploadProgress], None] = lambda progress: None,
        page: Page | None = None,
    ) -> None:
        self.secret = secret
        """The secret of the local port; None where every user of this computer may use it."""
        self.page = page
        """The page for people; None where there is none."""
        self._link = link
        self._memory = BodyMemory()
        self._polls = Polls(link)
        names = RequestNames()
        uploads = Uploads(link, show_upload)
        self._exchanges = Exchanges(link, names, uploads, timeout, show)
        self._official = OfficialExchanges(link, names, uploads, self._memory, official_timeout)
        self._clients: dict[ClientConnection, None] = {}
        """The connections, the oldest first."""
        self._lock = threading.Lock()

    def serve(self, sock: socket.socket) -> None:
        """Answer the requests of one connection, until the client sends no more."""
        client = ClientConnection(sock, self._memory)
        if not self._admit(client):
            client.refuse(*encode_error(429, "The local port has too many connections. Try again."))
            return
        try:
            self._serve_all(client)
        finally:
            with self._lock:
                self._clients.pop(client, None)

    def _admit(self, client: ClientConnection) -> bool:
        """Take the connection, in the place of an idle one where there are too many; False where there is no place."""
        with self._lock:
            if len(self._clients) >= MAX_CLIENTS:
                idle = next((each for each in self._clients if each.is_idle), None)
                if idle is None:
                    return False
                idle.disconnect()
                del self._clients[idle]
            self._clients[client] = None
            return True

    def _serve_all(self, client: ClientConnection) -> None:
        try:
            while self._serve_next(client):
                pass
        except ClientDisconnected:
            pass
        except ClientTooSlow:
            client.refuse(*encode_error(408, REFUSALS[408]))
        except HeadTooLarge:
            client.refuse(*encode_error(431, REFUSALS[431]))
        except h11.RemoteProtocolError as error:
            status = 431 if error.error_status_hint == 431 else 400
            client.refuse(*encode_error(status, REFUSALS[status]))

    def _serve_next(self, client: ClientConnection) -> bool:
        received = client.next_request()
        if received is None:
            return False
        request, body = received
        try:
            if self.secret is not None and not is_authorized(request.headers.raw_items(), self.secret):
                client.refuse(*encode_error(401, SECRET_NEEDED))
                return False
            self._answer(client, request, body)
            if not body.is_complete:
                client.linger()
        finally:
            if not body.is_complete:
                client.stop_reading()
            body.release()
        return client.keep_alive(body)

    def _answer(self, client: ClientConnection, request: h11.Request, body: Body) -> None:
        if is_poll(request):
            client.send_response(*self._polls.answer(request, body))
        elif self.page is not None and self.page.answer(client, request):
            return
        elif PRIVATE in unquote_to_bytes(path_of(request.target)):
            client.refuse(*encode_error(404, "The local port has nothing at that address."))
        elif path_of(request.target) in ROUTES:
            with self._link.traffic.counting(request.target):
                self._official.answer(client, request, body)
        else:
            with self._link.traffic.counting(request.target):
                self._forward(client, request, body)
        if self.page is not None:
            self.page.touch()

    def _forward(self, client: ClientConnection, request: h11.Request, body: Body) -> None:
        try:
            self._exchanges.forward(client, request, body)
        except LinkError as error:
            closed = self._link.state is LinkState.CLOSED
            advice = "Start dls connect again." if closed else "Try again when it is back."
            client.send_response(*encode_error(503, f"{error.message} {advice}"))
        except UpstreamLost:
            message = "The connection was lost in the middle of this request. Try again."
            client.send_response(*encode_error(502, message))
