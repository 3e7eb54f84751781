"""Start, find and stop the server on the host."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, fields

from dls.contract import (
    ALREADY_RUNNING,
    DEFAULT_ENGINE,
    DEFAULT_IDLE,
    DEFAULT_TTL,
    ERROR_PREFIX,
    HINT_PREFIX,
    NOT_INSTALLED,
    SOCKET_FILE,
    STOP_SECONDS,
    LaunchFile,
    ServerState,
    dump_ended,
)
from dls.errors import HostError, LaunchError
from dls.gpus import Gpu, most_free
from dls.remote.host.install import InstallPlan, not_ours
from dls.remote.host.probe import HostReport
from dls.remote.host.scripts import LOCK, OURS, private_directory
from dls.remote.ssh.connection import Connection

DAMAGE = (
    "ModuleNotFoundError",
    "ImportError",
    "No module named",
    "SyntaxError",
    "No such file or directory",
    NOT_INSTALLED,
    "cannot execute",
    "Exec format error",
)
"""What the log of a server says whose Python, packages or code are missing or broken."""
READY_SECONDS = 60
"""How long a server may take to listen. It loads its engine after that."""
LOG_LINES = 20
STARTING = "--- starting dls serve"
"""A line in the log before each server."""


DIGEST_NAMES = {"native_api": "other_door"}
"""Names under which options enter the digest, where earlier releases called them otherwise."""


@dataclass(frozen=True)
class ServerOptions:
    """What the user wants of the server; those with other wishes run beside it."""

    engine: str = DEFAULT_ENGINE
    device: str = "auto"
    gpu: int | None = None
    stand_in: bool = False
    tcp: bool = False
    """Listen on a loopback port behind a secret too, for hosts that forbid socket forwarding."""
    model: str | None = None
    models_path: str | None = None
    network: bool = True
    insecure: bool = False
    ca_bundle: str | None = None
    compile: bool = False
    native_api: bool = True
    """Serve the engine's own protocol too."""
    session_dir: str | None = None
    session_ttl: float = DEFAULT_TTL
    """Seconds without use after which a session's files are removed."""
    idle: float = DEFAULT_IDLE
    """Seconds without a request after which the server ends; 0 for never."""

    @property
    def key(self) -> str:
        """Digest of the wishes that a running server must share.

        Of those that are not the default alone: a newer version with one more wish must find the servers of an older.
        """
        wishes = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("session_ttl", "idle")
        }
        defaults = {name: value for name, value in wishes.items() if value != getattr(ServerOptions, name)}
        plain = {DIGEST_NAMES.get(name, name): value for name, value in defaults.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

    def run_dir(self, base: str) -> str:
        """Return the run directory of such a server."""
        return f"{base}/{self.key}"


def choose_gpu(gpus: tuple[Gpu, ...], request: ServerOptions) -> Gpu | None:
    """Return the GPU asked for, by default the one with the most free memory; None on a host without any."""
    wanted = request.gpu
    if request.device.startswith("cuda:"):
        number = int(request.device.removeprefix("cuda:"))
        if wanted not in (None, number):
            raise HostError(f"--gpu {wanted} and --device {request.device} name two GPUs.", "Leave one of them out.")
        wanted = number
    if wanted is None:
        return most_free(gpus)
    for gpu in gpus:
        if gpu.index == wanted:
            return gpu
    there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or "none"
    raise HostError(f"The host has no GPU number {wanted}; it has: {there}.", "Choose another one with --gpu.")


def launch_file(
    request: ServerOptions, plan: InstallPlan, code_key: str, log: str, replaced: ServerState | None = None
) -> LaunchFile:
    """Return what the server is told at its start."""
    run = request.run_dir(plan.run_dir)
    options = asdict(request)
    del options["gpu"]
    # The server sees the chosen GPU only, as number 0.
    options["device"] = "cuda:0" if request.device.startswith("cuda:") else request.device
    return LaunchFile(
        run_dir=run,
        uds=f"{run}/{SOCKET_FILE}",
        name=plan.remote_key,
        code=code_key,
        request=request.key,
        log=log,
        replaces=replaced.pid if replaced else 0,
        **options,
    )


def launch_script(plan: InstallPlan, file: LaunchFile, gpu: Gpu | None, replaced: ServerState | None = None) -> str:
    """Return the script that starts the server detached and waits until it has written its state file.

    A server that it replaces is ended meanwhile: the new one has much to import before it needs the other one's place.
    """
    quote = shlex.quote
    run, log = quote(file.run_dir), quote(file.log)
    text = base64.b64encode(file.dump().encode()).decode()
    ending = f"({stop_script(replaced)}) </dev/null >/dev/null 2>&1 &" if replaced else ""
    return f"""
set -u
umask 077
{private_directory(file.run_dir)}
{LOCK}
{OURS}
RUN={run}
LOG={log}
mkdir -p "$(dirname "$LOG")" || exit 73
lock "$RUN/launch.lock"
P=$(pid_in "$RUN/state.json")
if [ -n "$P" ] && [ "$P" != {file.replaces} ] && ours "$P" \\
   && grep -q {quote(file.request)} "$RUN/state.json" \\
   && grep -q {quote(file.code)} "$RUN/state.json"; then
  cat "$RUN/state.json"; exit 0
fi
{ending}
rm -f "$RUN/state.json"
printf %s {text} | base64 -d >"$RUN/launch.json" || exit 73
[ "$(wc -c <"$LOG" 2>/dev/null || echo 0)" -lt 5000000 ] || mv "$LOG" "$LOG.1"
{_start(plan, gpu)}
{_await_state(replaced.pid if replaced else 0)}
"""


def _start(plan: InstallPlan, gpu: Gpu | None) -> str:
    """Return the part of the script that starts the server, with its process number in P."""
    quote = shlex.quote
    visible = f"export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={gpu.index}" if gpu else ":"
    return f"""
cd /
{visible}
export PYTHONPATH={quote(plan.code)} PYTHONUNBUFFERED=1
unset PYTHONHOME
S=
command -v setsid >/dev/null 2>&1 && S=setsid
echo {quote(STARTING)} >>"$LOG"
$S nohup {quote(plan.interpreter)} -m dls serve --launch-file "$RUN/launch.json" >>"$LOG" 2>&1 </dev/null &
P=$!
"""


def _await_state(replaces: int) -> str:
    """Return the part that waits for its state file, or for its end; one of the server that it replaces is not it."""
    return f"""
I=0
while [ $I -lt {READY_SECONDS * 20} ]; do
  if [ -s "$RUN/state.json" ] && [ "$(pid_in "$RUN/state.json")" != {replaces} ]; then
    cat "$RUN/state.json"; exit 0
  fi
  if ! kill -0 $P 2>/dev/null; then tail -n {LOG_LINES} "$LOG"; exit 75; fi
  sleep 0.05 2>/dev/null || sleep 1
  I=$((I + 1))
done
kill $P 2>/dev/null
tail -n {LOG_LINES} "$LOG"
exit 76
"""


def launch(
    connection: Connection,
    report: HostReport,
    plan: InstallPlan,
    request: ServerOptions,
    code_key: str,
    gpu: Gpu | None,
    replaced: ServerState | None = None,
) -> ServerState:
    """Start the server on the host and return how it is reached, or raise LaunchError with the log's last lines."""
    log = log_path(report)
    file = launch_file(request, plan, code_key, log, replaced)
    done = connection.run(launch_script(plan, file, gpu, replaced), timeout=READY_SECONDS + 30)
    where = connection.target.label
    if done.status == 71:
        raise not_ours(connection, plan)
    if done.status:
        tail = (done.stdout or done.stderr).strip()
        why, hint = last_words(tail)
        slow = f"The server on {where} did not get ready within {READY_SECONDS} s."
        message = slow if done.status == 76 else f"The server on {where} ended before it was ready. {why}".rstrip()
        raise LaunchError(message, hint or f"The whole log: {log}", detail=tail)
    state = ServerState.parse(done.stdout.strip().splitlines()[-1], file.run_dir)
    if state is None:
        raise LaunchError(
            f"The server on {where} wrote a state file that can't be read.", f"Its log: {log}", done.stdout
        )
    return state


def is_there_already(tail: str) -> bool:
    """Whether a server did not start because there is one, though its state file was not."""
    return ALREADY_RUNNING in _since_start(tail)


def is_damaged(tail: str) -> bool:
    """Whether a server did not start because something of what was installed is missing or broken."""
    return any(sign in _since_start(tail) for sign in DAMAGE)


def _since_start(tail: str) -> str:
    """Return what the last server wrote: earlier ones wrote to the same log."""
    return tail.rpartition(STARTING)[2]


def last_words(tail: str) -> tuple[str, str]:
    """Return the sentence and the hint with which a server ended, as its log has them; empty where it has none."""
    found = ["", ""]
    for line in _since_start(tail).splitlines():
        for place, mark in enumerate((ERROR_PREFIX, HINT_PREFIX)):
            if line.startswith(mark):
                found[place] = line.removeprefix(mark)
    return found[0], found[1]


def stop_script(state: ServerState) -> str:
    """Return the script that ends the server: asked first, to finish what it works on, and killed after a while.

    It says that the server was to end: a client that is connected then starts another only when there is a request.
    """
    run = shlex.quote(state.run_dir)
    return f"""{OURS}
RUN={run}
P={state.pid}
umask 077
if ours $P; then
  echo {shlex.quote(dump_ended("stopped").strip())} >"$RUN/ended.json" 2>/dev/null
  kill -TERM $P
  kill -CONT $P
  T=$(($(date +%s) + {STOP_SECONDS}))
  while ours $P && [ "$(date +%s)" -lt $T ]; do sleep 0.05 2>/dev/null || sleep 1; done
  ours $P && kill -KILL $P && sleep 0.2
fi
[ "$(pid_in "$RUN/state.json")" != $P ] || rm -f "$RUN/state.json" "$RUN/server.sock"
! ours $P
"""


def wake_script(state: ServerState) -> str:
    """Return the script that lets a stopped server go on."""
    return f"{OURS}\nours {state.pid} && kill -CONT {state.pid}\n"


def kill_script(state: ServerState) -> str:
    """Return the script that ends a server that does nothing any more."""
    return f"{OURS}\nours {state.pid} && kill -KILL {state.pid}\nsleep 0.2\n"


def stop(connection: Connection, state: ServerState) -> None:
    """End the server, or raise LaunchError when it does not end."""
    done = connection.run(stop_script(state), timeout=90)
    if done.status:
        raise LaunchError(
            f"The server on {connection.target.label} (process {state.pid}) did not end.",
            "Log in and end it by hand.",
        )


def log_path(report: HostReport) -> str:
    """Return where the server's log is; a home may be shared by several hosts."""
    return f"{report.root}/log/server-{report.hostname}.log"


def log_script(path: str, lines: int, follow: bool) -> str:
    """Return the script that prints the end of the server's log, and what is added to it."""
    quoted = shlex.quote(path)
    return f"[ -f {quoted} ] || exit 66\nexec tail -n {int(lines)} {'-f ' if follow else ''}{quoted}"
