"""All errors that dls raises.

An error has one sentence, one hint, and an exit code (on the client) or an HTTP status (on the server):

    DlsError
    ├── TargetError          10  the target, an option or ~/.ssh/config is invalid
    ├── ConnectError         11  the host can't be reached
    ├── HostKeyError         12  the host key is unknown and not accepted, or has changed
    ├── LoginError           13  no credential was accepted
    ├── HostError            14  the host can't run the server
    ├── InstallError         15  setting up the environment on the host failed
    ├── LaunchError          16  the server did not start, or is not running
    ├── ForwardError         17  the local port or the forward could not be opened
    ├── LinkError            18  the connection was lost
    ├── ClosedHostError      19  the host reaches no internet, and nothing was lent or sent to it
    ├── ListenError          20  the server can't listen on the address it was given
    ├── EngineError          21  the engine can't be loaded
    ├── SegmentError         22  an image, prompts or a mask can't be used, or the server refused them
    ├── EngineLost               the engine's process died or hangs; a new one is started
    └── RequestError             the server refuses a request; has an HTTP status
        ├── BadRequest      400
        ├── NotFound        404
        ├── Conflict        409
        ├── Gone            410
        ├── NotHeld         412
        ├── TooLarge        413
        ├── EngineFailed    500
        ├── NotServed       501
        ├── Exhausted       503
        ├── Delayed         504
        └── NoRoom          507

This module imports nothing from the package, so that every module can import it.
"""

from __future__ import annotations


class DlsError(Exception):
    """Base class of all errors: a message of one sentence, a hint for the user, and an exit code."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        """Lines from a log or from another program's output that show the cause."""


class TargetError(DlsError):
    """The target, an option or the SSH configuration is invalid."""

    exit_code = 10


class ConnectError(DlsError):
    """The host can't be reached."""

    exit_code = 11


class HostKeyError(DlsError):
    """The host key is unknown and not accepted, or has changed."""

    exit_code = 12


class LoginError(DlsError):
    """No credential was accepted."""

    exit_code = 13


class HostError(DlsError):
    """The host can't run the server."""

    exit_code = 14


class InstallError(DlsError):
    """Setting up the environment on the host failed."""

    exit_code = 15


class LaunchError(DlsError):
    """The server did not start, or is not running."""

    exit_code = 16


class ForwardError(DlsError):
    """The local port or the forward could not be opened."""

    exit_code = 17


class LinkError(DlsError):
    """The connection was lost."""

    exit_code = 18


class ClosedHostError(DlsError):
    """The host reaches neither the package index nor the model hub, and nothing was lent or sent to it."""

    exit_code = 19


class ListenError(DlsError):
    """The server can't listen on the address it was given."""

    exit_code = 20


class EngineError(DlsError):
    """The engine can't be loaded."""

    exit_code = 21


class SegmentError(DlsError):
    """An image, prompts or a mask can't be used, or the server refused them."""

    exit_code = 22

    def __init__(self, message: str, hint: str = "", detail: str = "", status: int = 0) -> None:
        super().__init__(message, hint, detail)
        self.status = status
        """HTTP status of the server's refusal; 0 where no server refused."""


class EngineLost(DlsError):
    """The engine's process died or hangs; the server handles this error itself and starts a new process."""

    was_sent = True
    """Whether the process was still there when it was to do what failed."""
    during_prompt = False
    """Whether the process ended during the current prompt, which may be the cause."""


class RequestError(DlsError):
    """The server refuses a request; the session is unchanged."""

    status = 400


class BadRequest(RequestError):
    """The request is malformed or invalid."""


class NotFound(RequestError):
    """The session or the model does not exist."""

    status = 404


class Conflict(RequestError):
    """The session is in a state that does not allow this request."""

    status = 409


class Gone(RequestError):
    """The lease of an official client has ended, or its session can't be continued."""

    status = 410


class NotHeld(RequestError):
    """The server does not hold the part of an upload that was left out; the client sends the whole."""

    status = 412


class TooLarge(RequestError):
    """The data are larger than the dimensions or the memory allow."""

    status = 413


class EngineFailed(RequestError):
    """The engine failed while it processed a prompt."""

    status = 500


class NotServed(RequestError):
    """The engine of this server can't serve such requests."""

    status = 501


class Exhausted(RequestError):
    """The machine has too little free memory for this request now."""

    status = 503


class Delayed(RequestError):
    """The request of an official client can't be answered before its client gives up; the session is consistent."""

    status = 504


class NoRoom(RequestError):
    """The files of the sessions in use leave no room for another image."""

    status = 507
