"""A small Slurm cluster in network namespaces: a login node and two GPU nodes that share the users' homes.

    this machine (10.214.1.2) ── login (10.214.1.1 | 10.214.2.1) ── gpu01, gpu02 (10.214.2.11, .12)

Each node has two GPUs that are device files only. Needs root, iproute2, Slurm, munge and OpenSSH's server. All that the
lab starts runs in process namespaces of its own, which end with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dls.demo.sshd import _write_key

LOGIN, NODES = "login", ("gpu01", "gpu02")
LAPTOP = "10.214.1.2"
ADDRESSES = {"login": "10.214.2.1", "gpu01": "10.214.2.11", "gpu02": "10.214.2.12"}
USER, OTHER_USER = "dlslab", "dlslab2"
HOST = "dls-cluster"
"""Name of the login node in the lab's SSH configuration; with `-2` after it, for the other user."""
PROGRAMS = ("ip", "unshare", "nsenter", "slurmctld", "slurmd", "sbatch", "munged", "sshd", "useradd")
LOCK = Path(tempfile.gettempdir()) / "dls-cluster-lab.lock"
SLURM = """
ClusterName=dlslab
SlurmctldHost=login(10.214.2.1)
SlurmUser=root
AuthInfo=socket={folder}/munge/sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType={proctrack}
TaskPlugin=task/none
{contain}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=5
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=gpu01 NodeAddr=10.214.2.11 CPUs=16 RealMemory=2000 Gres=gpu:fake:2 Feature=small
NodeName=gpu02 NodeAddr=10.214.2.12 CPUs=16 RealMemory=2000 Gres=gpu:fake:2 Feature=large
PartitionName=gpu Nodes=gpu01,gpu02 Default=YES MaxTime=60 DefaultTime=5 PriorityTier=1
PartitionName=high Nodes=gpu01,gpu02 MaxTime=60 DefaultTime=5 PriorityTier=10 AllowGroups={other}
"""
BOOT = """#!/bin/bash
hostname {node}
mount --make-rprivate /
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/priv/{node}/tmp /tmp
mount --bind {folder}/priv/{node}/vartmp /var/tmp
mount -t tmpfs tmpfs /dev/shm -o mode=1777
mkdir -p /run/sshd
export SLURM_CONF={folder}/slurm.conf
{daemons}
echo ready >{folder}/log/{node}.ready
# The first process of a process namespace has to reap the others.
while :; do sleep 5 & wait $!; done
"""


def why_impossible() -> str:
    """Return why this machine can't have the lab, in a sentence; empty where it can."""
    if os.getuid() != 0:
        return "The cluster lab needs root."
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"The cluster lab needs Slurm, munge and more; missing here: {', '.join(missing)}."
    tried = subprocess.run(["unshare", "-n", "-m", "-u", "-p", "-f", "--mount-proc", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "The cluster lab needs namespaces, which this machine does not permit."


def run(*words: object, check: bool = True) -> str:
    """Run a program and return what it printed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


class Cluster:
    """The nodes, their users, and this machine as the laptop before them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "ssh_config"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._read_log = 0
        self._munged: subprocess.Popen[bytes] | None = None
        self._lock = LOCK.open("a")

    @classmethod
    @contextlib.contextmanager
    def create(cls) -> Iterator[Cluster]:
        """Create the lab, and remove it at the end; a second one on this machine waits for the first one's end."""
        cluster = cls(Path(tempfile.mkdtemp(prefix="dls-cluster-", dir="/srv")))
        fcntl.flock(cluster._lock, fcntl.LOCK_EX)
        try:
            cluster._build()
            yield cluster
        finally:
            cluster._clear()

    def home(self, user: str = USER) -> Path:
        """Return the home of a user, which all nodes share."""
        return self.folder / "home" / user

    def _build(self) -> None:
        self._remove_namespaces()
        self.folder.chmod(0o755)
        for name in ("state", "home", "log", "keys", "munge", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self._make_users()
        self._configure()
        self._make_network()
        self._start_munge()
        for node in (LOGIN, *NODES):
            self.start_node(node)
        self.wait_for_nodes()

    def _make_users(self) -> None:
        key = _write_key(self.folder / "keys" / "id_ed25519")
        for user in (USER, OTHER_USER):
            run("userdel", "-f", user, check=False)
            run("useradd", "-M", "-d", self.home(user), "-s", "/bin/bash", "-p", "*", user)
            ssh = self.home(user) / ".ssh"
            ssh.mkdir(parents=True)
            (ssh / "authorized_keys").write_text(key + "\n")
            run("chown", "-R", f"{user}:{user}", self.home(user))
            run("chmod", "700", self.home(user), ssh)

    def _configure(self) -> None:
        has_freezer = Path("/sys/fs/cgroup/freezer").is_dir()
        slurm = SLURM.format(
            folder=self.folder,
            other=OTHER_USER,
            proctrack="proctrack/cgroup" if has_freezer else "proctrack/linuxproc",
            contain="PrologFlags=contain" if has_freezer else "",
        )
        (self.folder / "slurm.conf").write_text(slurm)
        gpus = [self.folder / f"gpu{number}" for number in (0, 1)]
        for number, path in enumerate(gpus):
            os.mknod(path, 0o666 | 0o020000, os.makedev(195, number))
        (self.folder / "gres.conf").write_text(f"NodeName=gpu0[1-2] Name=gpu Type=fake File={self.folder}/gpu[0-1]\n")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")
        hosts = "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        host_key = _write_key(self.folder / "keys" / "host_key")
        (self.folder / "known_hosts").write_text(f"{HOST} {host_key}\n")
        self.write_client_config()

    def write_client_config(self, address: str = "10.214.1.1", port: int = 22) -> None:
        """Write the laptop's SSH configuration, in which the login node has this address."""
        self.config.write_text(
            "".join(
                f"Host {name}\n  HostName {address}\n  Port {port}\n  User {user}\n  HostKeyAlias {HOST}\n"
                f"  IdentityFile {self.folder}/keys/id_ed25519\n  IdentitiesOnly yes\n"
                f"  UserKnownHostsFile {self.folder}/known_hosts\n"
                for name, user in ((HOST, USER), (f"{HOST}-2", OTHER_USER))
            )
        )

    def _make_network(self) -> None:
        for node in (LOGIN, *NODES):
            run("ip", "netns", "add", f"dlsc-{node}")
            run("ip", "-n", f"dlsc-{node}", "link", "set", "lo", "up")
        run("ip", "link", "add", "dlsc0", "type", "veth", "peer", "name", "lap0", "netns", "dlsc-login")
        run("ip", "addr", "add", f"{LAPTOP}/24", "dev", "dlsc0")
        run("ip", "link", "set", "dlsc0", "up")
        inside = ("ip", "-n", "dlsc-login")
        run(*inside, "addr", "add", "10.214.1.1/24", "dev", "lap0")
        run(*inside, "link", "set", "lap0", "up")
        run(*inside, "link", "add", "br0", "type", "bridge")
        run(*inside, "addr", "add", "10.214.2.1/24", "dev", "br0")
        run(*inside, "link", "set", "br0", "up")
        for number, node in enumerate(NODES, 1):
            end = f"p{number}"
            run(
                "ip",
                "link",
                "add",
                "e0",
                "netns",
                f"dlsc-{node}",
                "type",
                "veth",
                "peer",
                "name",
                end,
                "netns",
                "dlsc-login",
            )
            run(*inside, "link", "set", end, "master", "br0")
            run(*inside, "link", "set", end, "up")
            run("ip", "-n", f"dlsc-{node}", "addr", "add", f"{ADDRESSES[node]}/24", "dev", "e0")
            run("ip", "-n", f"dlsc-{node}", "link", "set", "e0", "up")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(1024))
        run("chown", "-R", "munge:munge", folder)
        run("chmod", "400", folder / "key")
        words = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground"]
        words += [f"--key-file={folder}/key", f"--socket={folder}/sock", f"--pid-file={folder}/pid"]
        words += [f"--log-file={folder}/log", f"--seed-file={folder}/seed"]
        self._munged = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: (folder / "sock").exists(), "munge's socket")

    def write_sshd_config(self, node: str, more: str = "") -> Path:
        """Write the configuration of a node's own SSH server; `more` comes first."""
        path = self.folder / f"sshd_{node}.conf"
        path.write_text(
            f"{more}\nPort 22\nHostKey {self.folder}/keys/host_key\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n"
            f"MaxStartups 100\nSetEnv SLURM_CONF={self.folder}/slurm.conf\n"
        )
        return path

    def start_node(self, node: str) -> None:
        """Start a node: its SSH server where it is the login node, and Slurm's daemon."""
        for name in ("tmp", "vartmp"):
            place = self.folder / "priv" / node / name
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(0o1777)
        if node == LOGIN:
            daemons = f"/usr/sbin/sshd -f {self.write_sshd_config(node)} -E {self.folder}/log/sshd.log\nslurmctld -c"
        else:
            daemons = f"slurmd -N {node}"
        boot = self.folder / f"boot_{node}"
        boot.write_text(BOOT.format(node=node, folder=self.folder, daemons=daemons))
        boot.chmod(0o755)
        ready = self.folder / "log" / f"{node}.ready"
        ready.unlink(missing_ok=True)
        words = ["nsenter", f"--net=/run/netns/dlsc-{node}", "unshare", "-m", "-u", "-p", "-f", "--mount-proc"]
        with (self.folder / "log" / f"boot_{node}.log").open("w") as log:
            self._nodes[node] = subprocess.Popen(
                [*words, "--kill-child=KILL", str(boot)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(ready.exists, f"the start of {node}")

    def kill_node(self, node: str) -> None:
        """End everything on a node at once, as a power failure does."""
        os.kill(self._first_process(node), signal.SIGKILL)
        self._nodes.pop(node).wait()

    def _first_process(self, node: str) -> int:
        return int(Path(f"/proc/{self._nodes[node].pid}/task/{self._nodes[node].pid}/children").read_text().split()[0])

    def inside(self, node: str, *words: object, user: str = "root", check: bool = True) -> str:
        """Run a program on a node and return what it printed."""
        enter = ["nsenter", "-t", self._first_process(node), "-m", "-u", "-p", "-n"]
        if user != "root":
            enter += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        environment = [f"SLURM_CONF={self.folder}/slurm.conf", f"HOME={self.home(user) if user != 'root' else '/root'}"]
        return run(*enter, "env", *environment, *words, check=check)

    def wait_for_nodes(self) -> None:
        """Wait until Slurm has both nodes ready for jobs."""
        wait_until(
            lambda: set(self.inside(LOGIN, "sinfo", "-h", "-N", "-o", "%T", check=False).split()) == {"idle"},
            "idle nodes",
        )

    def jobs(self, user: str = USER, states: str = "PD,CF,R,S,CG") -> list[list[str]]:
        """Return id, state, node and name of the user's jobs that are in these states: by default those not ended."""
        text = self.inside(LOGIN, "squeue", "-h", "-u", user, "-t", states, "-o", "%i|%T|%N|%j")
        return [line.split("|") for line in text.splitlines()]

    def logins(self) -> list[str]:
        """Return the lines of the login node's log with the logins since the last call of `cancel_all`."""
        lines = (self.folder / "log" / "sshd.log").read_text()[self._read_log :].splitlines()
        return [line for line in lines if line.startswith("Accepted ")]

    def cancel_all(self) -> None:
        """Cancel all jobs, and wait until Slurm has both nodes ready again."""
        self._read_log = len((self.folder / "log" / "sshd.log").read_text())
        for user in (USER, OTHER_USER):
            self.inside(LOGIN, "scancel", "-u", user, check=False)
        wait_until(lambda: not self.inside(LOGIN, "squeue", "-h"), "the jobs' end")
        self.wait_for_nodes()

    def processes(self, node: str, user: str = USER) -> list[str]:
        """Return the command lines of the user's processes on a node."""
        text = self.inside(node, "ps", "-ww", "-u", user, "-o", "args=", check=False)
        return [line for line in text.splitlines() if line.strip()]

    def _clear(self) -> None:
        with contextlib.suppress(Exception):
            self.inside(LOGIN, "scancel", "-u", USER, check=False)
            self.inside(LOGIN, "scancel", "-u", OTHER_USER, check=False)
        for node in reversed(list(self._nodes)):
            with contextlib.suppress(Exception):
                self.kill_node(node)
        if self._munged is not None:
            self._munged.terminate()
            self._munged.wait()
        self._remove_namespaces()
        for user in (USER, OTHER_USER):
            run("userdel", "-f", user, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    @staticmethod
    def _remove_namespaces() -> None:
        """Remove the namespaces, also those of a lab that was killed: its processes are in them."""
        for node in (LOGIN, *NODES):
            for pid in run("ip", "netns", "pids", f"dlsc-{node}", check=False).split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", f"dlsc-{node}", check=False)


def wait_until(is_true: object, what: str, seconds: float = 60.0) -> None:
    """Wait for an event; raises RuntimeError, which names it, when it does not come."""
    assert callable(is_true)
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.05)
