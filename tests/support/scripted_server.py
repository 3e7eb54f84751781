"""An HTTP server that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, Mapping[str, str], bytes]
PASTED = {"X-Meta": '{"ran_prediction":true,"bbox":[[0,1],[0,1],[0,1]]}'}
"""Headers of an answer that an official client pastes."""
NOT_RUN = {"X-Meta": '{"ran_prediction":false,"bbox":null}'}


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_missing(self) -> bool:
        """Whether the client misses an answer."""
        return self.headers.get("X-Dls-Missed") == "1"

    @property
    def number(self) -> int:
        """The number in the request's name, which grows from request to request."""
        return int(self.headers["X-Dls-Request"].rpartition("-")[2])


def say(status: int, payload: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer with a JSON body."""
    return status, headers or {}, json.dumps(payload).encode()


@dataclass
class ScriptedServer:
    """Where it listens, and what it does."""

    port: int = 0
    answer: Callable[[Asked], Answer | None] = lambda asked: (200, PASTED, b"box")
    """Returns the answer to a request; None for none, and the connection stays open."""
    asked: list[Asked] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    """Answers wait for it; it is set at first."""


@contextlib.contextmanager
def scripted(answer: Callable[[Asked], Answer | None] | None = None) -> Iterator[ScriptedServer]:
    """Run the server in a thread."""
    script = ScriptedServer()
    if answer is not None:
        script.answer = answer
    script.may_answer.set()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError):
                super().handle_one_request()
                return
            self.close_connection = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers.items()), body)
            script.asked.append(asked)
            script.may_answer.wait(60)
            found = script.answer(asked)
            if found is None:
                ended.wait(60)
                return
            status, headers, data = found
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        script.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield script
        finally:
            script.may_answer.set()
            ended.set()
            server.shutdown()
