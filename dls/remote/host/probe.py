"""Find out what the host has, with one script in one exec."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dls import gpus
from dls.contract import DEFAULT_REMOTE_DIR, RECORD_MINUTES, SOCKET_FILE, ServerState
from dls.errors import HostError
from dls.remote.host.scripts import render
from dls.remote.ssh.shell import ScriptRunner

SOCKET_PATH_LIMIT = 100
"""Maximum length of a socket's path in bytes; macOS allows 104, Linux 108, both with the final NUL."""
NUMBER = re.compile(r"[0-9]{1,18}")
"""A number as programs print it; int() also takes other alphabets' digits, and str.isdigit() even `²`."""
NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
"""The name of a host, as `uname -n` prints it."""
GPU_SECONDS = 8
"""Seconds that `nvidia-smi` may take: a driver that is not kept loaded needs about one for each GPU."""
DETAIL_LENGTH = 1000
"""Maximum length of an odd answer in an error."""
NETWORK_FILESYSTEMS = (
    "nfs",
    "lustre",
    "smb",
    "cifs",
    "afs",
    "gpfs",
    "fuse",
    "ceph",
    "beegfs",
    "panfs",
    "9p",
    "v9fs",
)
"""File systems on which Unix sockets and locks are not reliable, as `stat -f -c %T` names them."""


@dataclass(frozen=True)
class Python:
    """A Python interpreter on the host."""

    path: str
    version: tuple[int, int, int]
    has_venv: bool
    has_pip: bool


@dataclass(frozen=True)
class Place:
    """A directory that could hold the installation, and the free space there in MiB."""

    path: str
    free_mib: int

    def __str__(self) -> str:
        return f"{self.path} ({self.free_mib / 1024:.0f} GiB free)"


@dataclass(frozen=True)
class ServerRecord:
    """What a server tells the hosts that share its remote directory, in the name of a file there."""

    node: str
    """Name of the host on which it runs."""
    key: str
    """Digest of its options."""
    route: str
    """Digest of the name by which its client went to that host."""

    @classmethod
    def of(cls, node: str, key: str, host: str) -> ServerRecord:
        """Return the record of a server with those options, to whose node a client went by the name `host`."""
        return cls(node, key, hash_route(host))

    @classmethod
    def parse(cls, name: str) -> ServerRecord | None:
        """Read the name of the file; None for another name."""
        node, _, rest = name.rpartition(".")[0].rpartition(".")
        record = cls(node, rest, name.rpartition(".")[2])
        return record if NODE.fullmatch(node) and record.key and record.route else None

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return f"{self.node}.{self.key}.{self.route}"


def hash_route(host: str) -> str:
    """Return the digest of a host's name as records have it."""
    return hashlib.sha256(host.lower().encode()).hexdigest()[:8]


@dataclass(frozen=True)
class HostReport:
    """Facts about a host; `knows_gpus` and `full` say whether GPUs, and Pythons too, were looked for."""

    system: str
    machine: str
    libc: str
    hostname: str
    home: str
    uid: int
    root: str
    run_dir: str
    """Directory in which each server has its own run directory."""
    remote_key: str
    """Digest of the remote directory as the user wrote it."""
    filesystem: str
    free_mib: int
    environments: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    servers: tuple[ServerState, ...] = ()
    elsewhere: frozenset[ServerRecord] = frozenset()
    """Servers that run on other hosts which share the remote directory."""
    ended: frozenset[str] = frozenset()
    """Run directories of servers that were ended on purpose."""
    knows_gpus: bool = True
    full: bool = True
    pythons: tuple[Python, ...] = ()
    uv: str = ""
    gpus: tuple[gpus.Gpu, ...] = ()
    storage: str = ""
    """Why nothing can be installed in the remote directory, as storage.sh names it; empty where it can."""
    places: tuple[Place, ...] = ()
    """Other directories that would do; looked for only where the remote directory does not."""
    gpus_hang: bool = False
    """Whether `nvidia-smi` was asked and did not answer."""
    scheduler: str = ""
    """What jobs are submitted to on this host, `slurm`; empty for nothing, and where it was not looked for."""
    has_gpu_device: bool = False
    """Whether a host with a scheduler has a GPU of its own."""
    job: str = ""
    """The folder of the job in which the probe ran; empty outside of jobs."""

    @property
    def platform(self) -> str:
        """System and machine; part of an environment's name, since several kinds of host may share a home."""
        return f"{self.system}-{self.machine}".lower()


class Depth(enum.IntEnum):
    """Depth of a probe; each one stops early when it finds what makes the rest unnecessary."""

    SERVERS = 0
    """Look for running servers and for nothing else."""
    SERVER = 1
    """Look for a running server; without one, go on to the GPUs."""
    GPUS = 2
    """Look for GPUs too; without an environment, go on to the Pythons."""
    ALL = 3
    """Look for everything."""


def script(
    remote_dir: str, depth: Depth, *, with_gpus: bool = True, disk_mib: int = 0, with_scheduler: bool = False
) -> str:
    """Return the probe's script; each line of its output is a name, a tab and a value.

    The search for Pythons and GPUs takes most of its time (`nvidia-smi` alone up to a second).
    """
    return render(
        "probe",
        "process",
        "paths",
        "trusted",
        "temporary",
        "storage",
        "sharing",
        "gpus",
        "scheduler",
        REMOTE_DIR=remote_dir,
        KEY=_key(remote_dir),
        DEPTH=int(depth),
        DISK_MIB=disk_mib,
        RECORD_MINUTES=RECORD_MINUTES,
        WITH_GPUS="1" if with_gpus else "",
        WITH_SCHEDULER="1" if with_scheduler else "",
        GPU_SECONDS=GPU_SECONDS,
        QUERY=gpus.query(),
        OLD_QUERY=gpus.query(gpus.FIELDS[:-1]),
    )


def _key(remote_dir: str) -> str:
    return hashlib.sha256(remote_dir.encode()).hexdigest()[:8]


def parse(text: str, remote_dir: str) -> HostReport:
    """Read the probe's output; raises HostError when a fact is missing that every host has."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            values.setdefault(name, []).append(value)
    one = {name: _fact(values, name) for name in ("system", "machine", "hostname", "home", "uid", "root")}
    uid = _read_uid(one["uid"])
    filesystem, job = (values.get(name, [""])[0] for name in ("filesystem", "job"))
    states = [ServerState.parse(*_split(value)) for value in values.get("state", [])]
    return HostReport(
        system=one["system"],
        machine=one["machine"],
        libc=values.get("libc", [""])[0],
        hostname=one["hostname"],
        home=one["home"],
        uid=uid,
        root=one["root"],
        run_dir=_find_run_dir(values, remote_dir, one["root"], uid),
        remote_key=_key(remote_dir),
        filesystem=filesystem,
        free_mib=_number(values.get("free", [""])[0]) // 1024,
        environments=frozenset(values.get("environment", [])),
        codes=frozenset(values.get("code", [])),
        servers=tuple(state for state in states if state),
        elsewhere=frozenset(_read_elsewhere(values.get("elsewhere", []))),
        ended=frozenset(values.get("ended", [])),
        knows_gpus="gpus" in values,
        full="full" in values,
        pythons=_pythons(values.get("python", [])),
        uv=values.get("uv", [""])[0],
        gpus=gpus.parse("\n".join(values.get("gpu", []))),
        storage=values.get("storage", [""])[0],
        places=tuple(_places(values.get("place", []))),
        gpus_hang="hangs" in values,
        scheduler=values.get("scheduler", [""])[0],
        has_gpu_device="gpu_device" in values,
        job=job,
    )


def _find_run_dir(values: dict[str, list[str]], remote_dir: str, root: str, uid: int) -> str:
    """Return the directory of the servers' run directories; a job has one of its own."""
    filesystem, temporary, job = (values.get(name, [""])[0] for name in ("filesystem", "temporary", "job"))
    return temporary if job else run_dir(remote_dir, root, uid, filesystem, temporary, is_taken="taken" in values)


def _fact(values: dict[str, list[str]], name: str) -> str:
    if value := values.get(name, [""])[0]:
        return value
    raise HostError(
        f"The host did not say its {name}.",
        "Log in by hand and check whether `sh` works there.",
        # Never a state file: it holds the server's secret.
        "\n".join(f"{key}\t{value}" for key, found in values.items() if key != "state" for value in found)[
            :DETAIL_LENGTH
        ],
    )


def _read_uid(text: str) -> int:
    if NUMBER.fullmatch(text):
        return int(text)
    raise HostError(
        f"The host says that its user's number is {text[:DETAIL_LENGTH]!r}.",
        "Log in by hand and check what `id -u` prints there.",
    )


def _number(text: str) -> int:
    """Return a number as it was printed; 0 for anything else, which means unknown."""
    return int(text) if NUMBER.fullmatch(text) else 0


def _split(value: str) -> tuple[str, str]:
    directory, _, text = value.partition("\t")
    return text, directory


def _read_elsewhere(names: list[str]) -> Iterator[ServerRecord]:
    for name in names:
        if record := ServerRecord.parse(name):
            yield record


def run_dir(
    remote_dir: str, root: str, uid: int, filesystem: str, temporary: str = "", *, is_taken: bool = False
) -> str:
    """Return the directory for sockets, locks and state files: on a local disk, in a directory of the user's own.

    Each server has its own directory in it, named after the digest of its options.

    A home may be on NFS, where a Unix socket can't be bound, and several hosts may share it. A directory that the user
    named is used if it is local and its path is short enough for a socket, unless `is_taken` says that another host
    shares and uses it. `temporary` is the directory that the host chose instead of /tmp/dls-UID: one with a random name
    where another user made that first, one elsewhere where /tmp is read-only.
    """
    own = f"{root}/run"
    is_shared = is_taken or filesystem.lower().startswith(NETWORK_FILESYSTEMS)
    is_short = len(f"{own}/{'x' * 12}/{SOCKET_FILE}") <= SOCKET_PATH_LIMIT
    if remote_dir != DEFAULT_REMOTE_DIR and is_short and not is_shared:
        return own
    return temporary or f"/tmp/dls-{uid}/{_key(remote_dir)}"  # noqa: S108 - its owner and mode are checked before it is trusted


def _places(lines: list[str]) -> Iterator[Place]:
    for line in lines:
        free, tab, path = line.partition("\t")
        if tab and path.startswith("/"):
            yield Place(path, _number(free) // 1024)


def _pythons(lines: list[str]) -> tuple[Python, ...]:
    found: dict[str, Python] = {}
    for line in lines:
        try:
            path, real, version, venv, pip = line.split("\t")
            major, minor, micro = (int(part) for part in version.split("."))
        except ValueError:
            continue
        found.setdefault(real, Python(path, (major, minor, micro), venv == "1", pip == "1"))
    return tuple(found.values())


def probe(
    connection: ScriptRunner,
    remote_dir: str,
    depth: Depth = Depth.SERVER,
    *,
    with_gpus: bool = True,
    disk_mib: int = 0,
    with_scheduler: bool = False,
) -> HostReport:
    """Run the probe on the host, in one exec.

    `with_gpus` lets it ask for the GPUs, and `disk_mib` is the space that an installation needs, where the depth
    reaches them. `with_scheduler` lets it look for a scheduler of jobs, and stop where one is and no GPU.
    """
    text = script(remote_dir, depth, with_gpus=with_gpus, disk_mib=disk_mib, with_scheduler=with_scheduler)
    return parse(connection.run(text, timeout=60).stdout, remote_dir)
