"""Every failure a user can meet.

An error is one sentence, one hint, and an exit code (client side) or an HTTP status (server side):

    DlsError
    ├── TargetError          10  the target, an option or ~/.ssh/config makes no sense
    ├── ReachError           11  the host can't be reached
    ├── HostKeyError         12  the host key is unknown and not accepted, or has changed
    ├── LoginError           13  no credential was accepted
    ├── HostError            14  the host can't run the server
    ├── InstallError         15  setting up the environment on the host failed
    ├── LaunchError          16  the server did not start, or is not running
    ├── ForwardError         17  the local port or the forward could not be opened
    ├── LinkError            18  the connection was lost
    ├── ListenError          20  the server can't listen on the address it was given
    ├── EngineError          21  the engine can't be loaded
    ├── EngineLost               the engine's process died or hangs; the sessions start another one
    └── RequestError             a request the server refuses; carries an HTTP status
        ├── BadRequest      400
        ├── NotFound        404
        ├── Conflict        409
        ├── TooLarge        413
        ├── EngineFailed    500
        └── Exhausted       503

This module imports nothing of the package, so that every room can use it.
"""

from __future__ import annotations


class DlsError(Exception):
    """A failure told in one sentence, with one hint and an exit code."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail
        """Lines of a log or of another program's output that show what happened."""


class TargetError(DlsError):
    """The target, an option or the SSH configuration makes no sense."""

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


class ListenError(DlsError):
    """The server can't listen on the address it was given."""

    exit_code = 20


class EngineError(DlsError):
    """The engine can't be loaded."""

    exit_code = 21


class EngineLost(DlsError):
    """The engine's process died or hangs; nobody outside the server sees this one."""

    during_prompt = False
    """Whether it was at the prompt itself that is asked for now, which may be what ends it."""


class RequestError(DlsError):
    """A request the server refuses; the session stays as it was."""

    status = 400


class BadRequest(RequestError):
    """The request can't be understood or makes no sense."""


class NotFound(RequestError):
    """No such session or model."""

    status = 404


class Conflict(RequestError):
    """The session is not in a state in which this can be done."""

    status = 409


class TooLarge(RequestError):
    """More data than the dimensions or the memory can hold."""

    status = 413


class EngineFailed(RequestError):
    """The engine failed at this prompt."""

    status = 500


class Exhausted(RequestError):
    """The machine has not enough memory for this now."""

    status = 503
