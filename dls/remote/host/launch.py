"""Start and stop the server on the host, and read its log."""

from __future__ import annotations

from dataclasses import asdict

from dls.contract import (
    ALREADY_RUNNING,
    ERROR_PREFIX,
    HINT_PREFIX,
    NOT_INSTALLED,
    RECORD_MINUTES,
    SOCKET_FILE,
    STOP_SECONDS,
    LaunchFile,
    ServerState,
    dump_ended,
)
from dls.credentials import redact
from dls.errors import LaunchError
from dls.gpus import Gpu
from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport, ServerRecord
from dls.remote.host.refusals import CODE_CHANGED, ENVIRONMENT_CHANGED, raise_refusal
from dls.remote.host.scripts import read_verifier, render
from dls.remote.ssh.connection import Completed, Connection

SIGNS_OF_DAMAGE = (
    "ModuleNotFoundError",
    "ImportError",
    "No module named",
    "SyntaxError",
    "No such file or directory",
    NOT_INSTALLED,
    "cannot execute",
    "Exec format error",
)
"""Texts in the log of a server whose Python, packages or code are missing or broken."""
READY_SECONDS = 60
"""Seconds that a server may take until it listens; it loads its engine after that."""
READY_TRIES = READY_SECONDS * 20
"""Number of waits of 0.05 s in the launch script."""
LOG_LINES = 20
"""Number of lines of the log that an error shows."""
STARTING = "--- starting dls serve"
"""Line in the log before each server's part."""
ENDED = dump_ended("stopped").strip()
"""Text of the file that says that the server was ended on purpose."""
TOO_SLOW = 76
"""Exit status of the launch script when the server did not get ready in time."""


class Changed(LaunchError):
    """The code or the environment on the host is not as it was made."""

    def __init__(self, where: str, completed: Completed) -> None:
        super().__init__(
            f"The installation on {where} is damaged.",
            "Remove the directory that was named with --remote-dir (by default ~/.dls), and connect again.",
            detail=completed.stdout.strip(),
        )
        self.is_code_only = completed.status == CODE_CHANGED
        """Whether the environment is as it was made."""


def launch_file(
    options: ServerOptions,
    plan: InstallPlan,
    code_key: str,
    log: str,
    replaced: ServerState | None = None,
    record: str = "",
    job: str = "",
) -> LaunchFile:
    """Return the launch file of a server with these options; in seconds and bytes; `record` is a file's path."""
    run = options.run_dir(plan.run_dir)
    fields = asdict(options)
    del fields["gpu"]
    fields["session_ttl"] = 86400 * fields.pop("session_ttl_days")
    fields["idle"] = 60 * fields.pop("idle_minutes")
    fields["session_disk"] = int(fields.pop("session_disk_gib") * (1 << 30))
    # The server sees the chosen GPU only, as number 0.
    fields["device"] = "cuda:0" if options.device.startswith("cuda:") else options.device
    return LaunchFile(
        run_dir=run,
        uds=f"{run}/{SOCKET_FILE}",
        name=plan.remote_key,
        code=code_key,
        request=options.key,
        log=log,
        record=record,
        replaces=replaced.pid if replaced else 0,
        job=job,
        **fields,
    )


def launch_script(plan: InstallPlan, file: LaunchFile, gpu: Gpu | None) -> str:
    """Return the script that starts the server, detached or in its job, and prints its state file.

    A server that it replaces ends meanwhile: the new one has much to import before it needs the other one's place.
    """
    return render(
        "launch",
        "lock",
        "private",
        "trusted",
        "sharing",
        "process",
        "end_server",
        ROOT=plan.root,
        RECORD_MINUTES=RECORD_MINUTES,
        RUN=file.run_dir,
        JOB=file.job,
        LOG=file.log,
        REPLACES=file.replaces,
        OPTIONS_KEY=file.request,
        CODE_KEY=file.code,
        LAUNCH_FILE=file.dump(),
        GPU="" if gpu is None else gpu.index,
        ENVIRONMENT=plan.environment,
        CODE=plan.code,
        PYTHON=plan.interpreter,
        VERIFIER=read_verifier(),
        STARTING=STARTING,
        LOG_LINES=LOG_LINES,
        READY_TRIES=READY_TRIES,
        ENDED=ENDED,
        STOP_SECONDS=STOP_SECONDS,
    )


def launch(
    connection: Connection,
    report: HostReport,
    plan: InstallPlan,
    options: ServerOptions,
    code_key: str,
    gpu: Gpu | None,
    replaced: ServerState | None = None,
) -> ServerState:
    """Start the server on the host and return its state, or raise LaunchError with the log's last lines.

    In a job, the scheduler has chosen the GPU, and the server is found by the job: it leaves no record. Raises Changed
    when the code or the environment there is not as it was made, and HostError for a directory that another user made
    or can change.
    """
    record = ServerRecord.of(report.hostname, options.key, connection.target.host)
    path = "" if report.job else f"{report.root}/hosts/{record.file_name}"
    file = launch_file(options, plan, code_key, log_path(report), replaced, path, report.job)
    completed = connection.run(launch_script(plan, file, gpu), timeout=READY_SECONDS + 30)
    where = connection.target.label
    raise_refusal(where, completed, plan.run_dir)
    if completed.status in (CODE_CHANGED, ENVIRONMENT_CHANGED):
        raise Changed(where, completed)
    if completed.status:
        raise _launch_error(where, completed, file.log)
    state = ServerState.parse(completed.stdout.strip().rpartition("\n")[2], file.run_dir)
    if state is None:
        raise LaunchError(
            f"The server on {where} wrote a state file that can't be read.",
            f"Its log: {file.log}",
            redact(completed.stdout),
        )
    return state


def _launch_error(where: str, completed: Completed, log: str) -> LaunchError:
    tail = (completed.stdout or completed.stderr).strip()
    reason, hint = find_error(tail)
    if completed.status == TOO_SLOW:
        message = f"The server on {where} did not get ready within {READY_SECONDS} s."
    else:
        message = f"The server on {where} ended before it was ready. {reason}".rstrip()
    return LaunchError(message, hint or f"The whole log: {log}", detail=without_end(tail))


def is_there_already(tail: str) -> bool:
    """Return whether the log says that a server did not start because another one runs, whose state file is missing."""
    return ALREADY_RUNNING in _since_start(tail)


def is_damaged(tail: str) -> bool:
    """Return whether the log says that a server did not start because its installation is damaged."""
    return any(sign in _since_start(tail) for sign in SIGNS_OF_DAMAGE)


def _since_start(tail: str) -> str:
    """Return the last server's part of the log, which earlier servers wrote to as well."""
    return tail.rpartition(STARTING)[2]


def find_error(tail: str) -> tuple[str, str]:
    """Return the message and the hint with which the last server ended, as its log has them; empty without any."""
    found = ["", ""]
    for line in _since_start(tail).splitlines():
        for index, prefix in enumerate((ERROR_PREFIX, HINT_PREFIX)):
            if line.startswith(prefix):
                found[index] = line.removeprefix(prefix)
    return found[0], found[1]


def without_end(tail: str) -> str:
    """Return the end of the log without the message and the hint that `find_error` returns: they are told once."""
    start, starting, last = tail.rpartition(STARTING)
    kept = [line for line in last.splitlines() if not line.startswith((ERROR_PREFIX, HINT_PREFIX))]
    return start + starting + "\n".join(kept)


def stop_script(state: ServerState) -> str:
    """Return the script that lets the server finish its requests and end, and kills it when it takes too long.

    It writes that the server was ended on purpose: a connected client then starts another one only at the next request.
    """
    return render(
        "stop", "process", "end_server", PID=state.pid, RUN=state.run_dir, ENDED=ENDED, STOP_SECONDS=STOP_SECONDS
    )


def wake_script(state: ServerState) -> str:
    """Return the script that lets a suspended server continue."""
    return render("wake", "process", PID=state.pid)


def kill_script(state: ServerState) -> str:
    """Return the script that kills a server that does not respond."""
    return render("kill", "process", PID=state.pid)


def stop(connection: Connection, state: ServerState) -> None:
    """End the server, or raise LaunchError when it does not end."""
    completed = connection.run(stop_script(state), timeout=90)
    if completed.status:
        raise LaunchError(
            f"The server on {connection.target.label} (process {state.pid}) did not end.",
            "Log in and end it by hand.",
        )


def log_path(report: HostReport) -> str:
    """Return the path of the server's log; it names the host, since several hosts may share a home."""
    return f"{report.root}/log/server-{report.hostname}.log"


def newest_log_script(report: HostReport) -> str:
    """Return the script that prints the path of the server's log that was written last, on whatever host it runs."""
    return render("newest_log", FOLDER=f"{report.root}/log")


def log_script(path: str, lines: int, follow: bool) -> str:
    """Return the script that prints the last lines of the server's log and, with `follow`, what is added to it."""
    return render("log", LOG=path, COUNT=lines, FOLLOW="1" if follow else "")
