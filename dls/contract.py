"""The contract between the laptop's side and the host's side: file formats, names, headers, sentences and defaults.

Both sides run the same release, but a client also finds servers of earlier releases: what is written here stays
readable. Standard library only, and nothing else of the package, because every room imports this module.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict, dataclass, field
from typing import Any

STATE_FORMAT = 1
"""Version of the file in which a running server says how it is reached."""
LAUNCH_FORMAT = 1
"""Version of the file that tells a server what to do."""
SESSION_FORMAT = 2
"""Version of a session's manifest and journal, as they are written."""
OFFICIAL_SESSION_FORMAT = 3
"""Version of the manifest and journal of an official client's session: the releases before know only ITK-SNAP's."""
SESSION_FORMATS = (1, SESSION_FORMAT, OFFICIAL_SESSION_FORMAT)
"""Versions that are read: in version 1 the manifest does not say where the journal ends."""

BOOT_FILE = "/proc/sys/kernel/random/boot_id"
"""File with the random number of a start of Linux."""
STATE_FILE, ENDED_FILE, LAUNCH_FILE, SOCKET_FILE = "state.json", "ended.json", "launch.json", "server.sock"
"""Names in a server's run directory."""
MANIFEST_FILE = "session"
"""Name of a session's manifest in the session's folder."""

REQUEST_HEADER = "X-Dls-Request"
"""Header with a request's name, RUN-NUMBER: the server applies none twice, and none after a later one of the run."""
RETRY_HEADER = "X-Dls-Again"
"""Header of a request that is sent again because no answer came."""
IMAGE_HEADER = "X-Dls-Image"
"""Header of an upload without its image: the name of the copy that the host is to take in its place."""
OFFSET_HEADER = "X-Dls-Offset"
"""Header of an upload that goes on: the bytes of the image that the host holds, and that are not sent again."""
IMAGES_PATH, PARTS_PATH = "/dls/images", "/dls/parts"
"""Addresses at which the client asks which images, and how much of an upload that was cut, the host holds."""
FACTS_PATH = "/dls/facts"
"""Address at which the server tells its user about itself; a look there is no use of the server."""
OVERVIEW_PATH, PICTURES_PATH = "/dls/overview", "/dls/pictures"
"""Addresses at which the client asks for what its page shows: the server's state, and the picture of a session."""
NOT_HELD = 412
"""Status of an upload for which the host does not hold what it was to hold: it has to be sent as a whole."""
MISSED_HEADER = "X-Dls-Missed"
"""Header of a request of an official client whose lease has had an answer that the local port could not deliver."""

ERROR_PREFIX, HINT_PREFIX = "Error: ", "Hint:  "
"""Begin the lines with which a failed command ends; the client finds them in a server's log."""
ALREADY_RUNNING = "Another server of this user runs here already."
"""Error of a server that did not start because another one runs, although the client found no state file."""
NOT_INSTALLED = "packages are not installed here"
"""Part of the error of a server whose environment is incomplete; the client then installs it again."""

DEFAULT_PORT = 8911
DEFAULT_REMOTE_DIR = "~/.dls"
DEFAULT_ENGINE = "auto"
"""What `--engine` says where nobody says it: whichever engine suits the machine (`engine_choice`)."""
DEFAULT_TTL = 7 * 86400.0
"""Seconds without use after which a session's files are removed."""
DISK_SHARE = 0.2
"""Share of the file system that the files of all sessions may take, where `--session-disk` does not say."""
MIN_DISK = 10 << 30
"""Bytes that they may take by default all the same: on a small file system a share would be little."""
DEFAULT_IDLE = 1800.0
"""Seconds without a request and without a client after which a server ends."""

RECORD_SECONDS = 60.0
"""Seconds after which a server says again, in the file that other hosts read, that it runs."""
RECORD_MINUTES = 5
"""Minutes after which such a file says nothing any more."""
GRACE_SECONDS = 30
"""Seconds that a server which is told to end waits for its requests; by itself uvicorn waits without a limit."""
STOP_SECONDS = 40
"""Seconds that a client waits for a server to end before it kills it; more than GRACE_SECONDS."""
REPLACED_SECONDS = 50.0
"""Seconds that a server waits for the one that it replaces to end; more than STOP_SECONDS."""


MAX_HEAD_BYTES = 64 * 1024
"""Largest request line and header fields together; a larger head gets 431 (RFC 6585, section 5)."""
HEAD_SECONDS = 20.0
"""Seconds that the head of a request may take from its first byte."""
BODY_SECONDS = 120.0
"""Seconds that the next bytes of a body may take; a slow link that still moves never meets this limit."""
REFUSALS = {
    400: "This is not an HTTP request.",
    408: "The request did not arrive in time.",
    431: "The head of this request is too large.",
}
"""Sentences by status for requests that can't be read, at the local port and at the server alike."""

BEGIN_ANEW = "ITK-SNAP sends the image again when you choose another image, time point or model in it, or restart it."
"""What a user can do about a session that can't be continued: nothing else makes ITK-SNAP send an image twice."""
NO_IMAGE = f"This session has no image: ITK-SNAP has sent it to another server or port, and sends it once. {BEGIN_ANEW}"
"""Refusal of a prompt before an image: ITK-SNAP remembers what it has uploaded by image, not by server."""
UNKNOWN_SESSION = f"The server does not know this session any more. {BEGIN_ANEW}"
"""Refusal of a request for a session that was ended or never begun."""

PROOF_MAGIC = b"dls-proof-1\n"
"""First bytes of a connection to a server's loopback port."""
NONCE_BYTES = PROOF_BYTES = 32


def prove(secret: str, role: str, port: int, client_nonce: bytes, server_nonce: bytes) -> bytes:
    """Return the proof that an end of a connection knows the secret: an HMAC-SHA256 over role, port and both nonces.

    `role` is "client" or "server", so that neither end's proof can be sent back to it.
    """
    message = b"\0".join((role.encode(), str(port).encode(), client_nonce, server_nonce))
    return hmac.digest(secret.encode(), message, "sha256")


def session_folders(uid: int, name: str, base: str | None = None) -> tuple[str, ...]:
    """Return the folders in which a server keeps sessions: the one with the manifests first.

    By default on a local disk; with `base` in that folder. The second default folder is memory-backed: releases before
    stored images there, which are still read and removed. `name` is the server's, so that whichever server is started
    next finds the sessions.
    """
    own = f"dls-{uid}/{name}"
    return (f"{base}/{own}",) if base is not None else (f"/var/tmp/{own}", f"/dev/shm/{own}")  # noqa: S108


def second_session_folder(home: str, name: str) -> str:
    """Return the folder for sessions that a server uses where another user has taken the first one's name.

    `home` is the user's home directory. Once this folder exists, servers go on using it.
    """
    return f"{home}/.dls/sessions/{name}"


@dataclass(frozen=True)
class ServerState:
    """The file in which a running server describes itself, in its run directory.

    `run_dir` is where the file was found; it is not part of the file.
    """

    pid: int
    secret: str | None = field(repr=False)
    code: str
    """Digest of the code that the server runs."""
    request: str
    """Digest of the options that it was started with."""
    socket: str
    port: int | None
    """Loopback port on the host; None where the server listens on its socket alone."""
    engine: str
    device: str
    log: str
    version: str = ""
    run_dir: str = ""
    host: str = ""
    """Name of the host on which it runs, as `uname -n` prints it: several hosts may share the directory."""
    boot: str = ""
    """The host's random number of that start of its system, where it has one: the pid means nothing after the next."""

    def dump(self) -> str:
        """Return the text of the state file."""
        fields = {name: value for name, value in asdict(self).items() if name not in ("host", "boot") or value}
        del fields["run_dir"]
        return json.dumps({"format": STATE_FORMAT, **fields}) + "\n"

    @classmethod
    def parse(cls, text: str, run_dir: str) -> ServerState | None:
        """Read the state file's text; None for one that is broken or of another format."""
        try:
            fields = json.loads(text)
            if fields["format"] != STATE_FORMAT:
                return None
            names = ("code", "request", "socket", "engine", "device", "log")
            texts = {name: str(fields[name]) for name in names}
            port = None if fields["port"] is None else int(fields["port"])
            return cls(
                pid=int(fields["pid"]),
                secret=str(fields["secret"]),
                port=port,
                version=str(fields.get("version", "")),
                host=str(fields.get("host", "")),
                boot=str(fields.get("boot", "")),
                run_dir=run_dir,
                **texts,
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None


@dataclass(frozen=True)
class LaunchFile:
    """The file with the options of a server that a client starts; it travels on standard input, never in argv."""

    run_dir: str
    """Directory of the server's state, lock and socket."""
    uds: str
    name: str
    """Name of the folder of its sessions: whatever is asked of the next server, it finds the sessions of this one."""
    code: str
    request: str
    log: str
    engine: str
    device: str
    stand_in: bool
    tcp: bool
    """Listen on a loopback port behind a secret too."""
    model: str | None
    models_path: str | None
    network: bool
    insecure: bool
    ca_bundle: str | None
    compile: bool
    native_api: bool
    session_dir: str | None
    session_ttl: float
    idle: float
    """Seconds; 0 for never."""
    record: str = ""
    """File that tells other hosts, which share its directory, of this server; empty for none."""
    replaces: int = 0
    """Process number of a server that is being ended; the new one waits for it."""
    session_disk: int = 0
    """Bytes that the files of all sessions may take; 0 for the default."""
    job: str = ""
    """Folder of the job in which the server runs; empty outside of jobs."""

    def dump(self) -> str:
        """Return the text of the launch file."""
        return json.dumps({"format": LAUNCH_FORMAT, **asdict(self)})

    @classmethod
    def parse(cls, text: str) -> LaunchFile:
        """Read the launch file's text; raises ValueError for one that is broken or of another format."""
        try:
            fields: dict[str, Any] = json.loads(text)
            if fields.pop("format") != LAUNCH_FORMAT:
                raise ValueError("another format")
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from None


def dump_ended(reason: str) -> str:
    """Return the text of the file that says that a server ended because it was to; a crash leaves none."""
    return json.dumps({"format": STATE_FORMAT, "why": reason}) + "\n"
