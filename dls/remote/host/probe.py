"""What the host has: one script, one answer."""

from __future__ import annotations

import enum
import hashlib
import shlex
from dataclasses import dataclass

from dls import gpus
from dls.contract import DEFAULT_REMOTE_DIR, SOCKET_FILE, ServerState
from dls.errors import HostError
from dls.remote.host.scripts import OURS
from dls.remote.ssh.connection import Connection

SOCKET_PATH_LIMIT = 100
"""Bytes; macOS takes 104, Linux 108, both with the final NUL."""
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
"""Where Unix sockets and locks can't be relied on, as `stat -f -c %T` names them."""


@dataclass(frozen=True)
class Python:
    """A Python interpreter on the host."""

    path: str
    version: tuple[int, int, int]
    has_venv: bool
    has_pip: bool


@dataclass(frozen=True)
class HostReport:
    """What a host has; `knows_gpus` and `full` say whether GPUs, and Pythons too, were looked for."""

    system: str
    machine: str
    libc: str
    hostname: str
    home: str
    uid: int
    root: str
    run_dir: str
    """Where each server has a directory of its own."""
    remote_key: str
    """Of the remote directory as the user named it; a home may be shared, and another user may have the same."""
    filesystem: str
    free_mib: int
    environments: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    servers: tuple[ServerState, ...] = ()
    ended: frozenset[str] = frozenset()
    """The run directories of servers that ended because they were to."""
    knows_gpus: bool = True
    full: bool = True
    pythons: tuple[Python, ...] = ()
    uv: str = ""
    gpus: tuple[gpus.Gpu, ...] = ()

    @property
    def platform(self) -> str:
        """System and machine, as they stand in an environment's name: a home may serve several kinds of host."""
        return f"{self.system}-{self.machine}".lower()


def remote_dir_words(remote_dir: str) -> str:
    """Return the directory as words for sh: `~/x` and relative paths start at the home."""
    if remote_dir in ("~", ""):
        return '"$HOME"'
    if remote_dir.startswith("/"):
        return shlex.quote(remote_dir)
    return '"$HOME"/' + shlex.quote(remote_dir.removeprefix("~/"))


class Depth(enum.IntEnum):
    """How deep to look; each look ends when it has found what makes the rest needless."""

    SERVER = 1
    """A server that runs; else GPUs."""
    GPUS = 2
    """GPUs too; and Pythons where there is no environment yet."""
    ALL = 3


def script(remote_dir: str, depth: Depth) -> str:
    """Return the probe as a POSIX script; each line of its answer is a name, a tab and a value.

    Looking for Pythons and GPUs takes most of its time (`nvidia-smi` alone up to a second).
    """
    parts = [OURS, _HEAD.format(root=remote_dir_words(remote_dir), key=_key(remote_dir))]
    if depth is Depth.SERVER:
        parts.append('[ -z "$FOUND" ] || exit 0')
    parts.append(_GPUS.format(query=gpus.query(), old_query=gpus.query(gpus.FIELDS[:-1])))
    if depth is not Depth.ALL:
        parts.append('[ -z "$MADE" ] || exit 0')
    return "\n".join([*parts, _PYTHONS])


def _key(remote_dir: str) -> str:
    return hashlib.sha256(remote_dir.encode()).hexdigest()[:8]


def parse(text: str, remote_dir: str) -> HostReport:
    """Read the probe's answer; raises HostError when something every host says is missing."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            said.setdefault(name, []).append(value)
    try:
        one = {name: said[name][0] for name in ("system", "machine", "hostname", "home", "uid", "root", "free")}
    except KeyError as missing:
        raise HostError(
            f"The host did not say its {missing.args[0]}.",
            "Log in by hand and look whether `sh` works there.",
            text,
        ) from None
    filesystem = said.get("filesystem", [""])[0]
    states = [ServerState.parse(*_split(value)) for value in said.get("state", [])]
    return HostReport(
        system=one["system"],
        machine=one["machine"],
        libc=said.get("libc", [""])[0],
        hostname=one["hostname"],
        home=one["home"],
        uid=int(one["uid"]),
        root=one["root"],
        run_dir=run_dir(remote_dir, one["root"], int(one["uid"]), filesystem),
        remote_key=_key(remote_dir),
        filesystem=filesystem,
        free_mib=int(one["free"] or 0) // 1024,
        environments=frozenset(said.get("environment", [])),
        codes=frozenset(said.get("code", [])),
        servers=tuple(state for state in states if state),
        ended=frozenset(said.get("ended", [])),
        knows_gpus="gpus" in said,
        full="full" in said,
        pythons=_pythons(said.get("python", [])),
        uv=said.get("uv", [""])[0],
        gpus=gpus.parse("\n".join(said.get("gpu", []))),
    )


def _split(value: str) -> tuple[str, str]:
    directory, _, text = value.partition("\t")
    return text, directory


def run_dir(remote_dir: str, root: str, uid: int, filesystem: str) -> str:
    """Return where sockets, locks and run state go: on a local disk, in a directory of the user's own.

    Each server has a directory of its own in it, named after what was wished of it.

    A home may be on NFS, where a Unix socket can't be bound and which several hosts share. A directory that the user
    named is taken at their word if it is local and its path is short enough for a socket.
    """
    own = f"{root}/run"
    network = filesystem.lower().startswith(NETWORK_FILESYSTEMS)
    if remote_dir != DEFAULT_REMOTE_DIR and not network and len(f"{own}/{'x' * 12}/{SOCKET_FILE}") <= SOCKET_PATH_LIMIT:
        return own
    return f"/tmp/dls-{uid}/{_key(remote_dir)}"  # noqa: S108 - its owner and mode are checked before it is trusted


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


def probe(connection: Connection, remote_dir: str, depth: Depth = Depth.SERVER) -> HostReport:
    """Look at the host, in one exec."""
    done = connection.run(script(remote_dir, depth), timeout=60)
    return parse(done.stdout, remote_dir)


_HEAD = r"""
say() {{ printf '%s\t%s\n' "$1" "$2"; }}
ROOT={root}
FOUND=
MADE=
UID_=$(id -u)
say system "$(uname -s)"
say machine "$(uname -m)"
say hostname "$(uname -n)"
say home "$HOME"
say uid "$UID_"
say root "$ROOT"
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1)"
D=$ROOT
while [ ! -d "$D" ]; do D=$(dirname "$D"); done
say free "$(df -Pk "$D" 2>/dev/null | awk 'NR == 2 {{ print $4 }}')"
say filesystem "$(stat -f -c %T "$D" 2>/dev/null)"
for D in "$ROOT/run" "$ROOT/run"/* "/tmp/dls-$UID_/{key}" "/tmp/dls-$UID_/{key}"/*; do
  # Another user could have made this directory first, to hand us a server of theirs.
  [ -d "$D" ] && [ ! -L "$D" ] && [ -O "$D" ] || continue
  [ ! -f "$D/ended.json" ] || say ended "$D"
  [ -O "$D/state.json" ] && [ ! -L "$D/state.json" ] || continue
  P=$(pid_in "$D/state.json")
  [ -n "$P" ] && ours "$P" || continue
  say state "$D	$(tr -d '\n' <"$D/state.json")"
  FOUND=1
done
for D in "$ROOT"/env/*/complete.json; do
  E=${{D%/complete.json}}
  [ -f "$D" ] && [ -x "$E/bin/python" ] || continue
  say environment "${{E##*/}}"
  MADE=1
done
for D in "$ROOT"/code/*/dls; do
  E=${{D%/dls}}
  [ -d "$D" ] && say code "${{E##*/}}"
done
:
"""

_GPUS = r"""
say gpus 1
if command -v nvidia-smi >/dev/null 2>&1; then
  T=
  command -v timeout >/dev/null 2>&1 && T='timeout 20'
  G=$($T {query} 2>/dev/null) || G=$($T {old_query} 2>/dev/null) || G=
  printf '%s\n' "$G" | while IFS= read -r L; do say gpu "$L"; done
fi
:
"""

_PYTHONS = r"""
say full 1
look() {
  [ -x "$1" ] && "$1" -c '
import os, sys
try:
    from importlib.util import find_spec as spec
    row = [sys.executable, os.path.realpath(sys.executable), "%d.%d.%d" % sys.version_info[:3]]
    row += [str(int(bool(spec("venv") and spec("ensurepip")))), str(int(bool(spec("pip"))))]
    print("python\t" + "\t".join(row))
except Exception:
    pass
' 2>/dev/null </dev/null
}
for N in python3 python3.12 python3.13 python3.11 python3.10 python3.14 python; do
  P=$(command -v "$N" 2>/dev/null) && look "$P"
done
for D in /usr/bin /usr/local/bin /opt/homebrew/bin "$HOME/miniconda3/bin" "$HOME/miniforge3/bin" "$HOME/anaconda3/bin" \
  /opt/conda/bin; do
  look "$D/python3"
done
for U in "$(command -v uv 2>/dev/null)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$ROOT/uv/bin/uv"; do
  if [ -n "$U" ] && [ -x "$U" ]; then say uv "$U"; break; fi
done
:
"""
