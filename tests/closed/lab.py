"""GPU hosts without internet, the laptops before them, and an internet of the lab's own, in network namespaces.

    internet 10.215.1.1 ── plain, office, ward ── gate 10.215.2.1 ── isolated, dropping, rejecting, open

The laptops have a cable to each of the two switches, and pass nothing on. `plain` reaches the internet, `office` its
web proxy only, `ward` a mirror of the package index only. The hosts' way out leads through the gate, which is a
firewall; `isolated` has none, and `open` has a cable to the internet. Needs root, iproute2, iptables, util-linux and
OpenSSH's server.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dls.demo.sshd import _write_key, find_sshd
from tests.closed import names, web_proxy
from tests.closed.nodes import Node, make_switch, plug, run
from tests.support.authority import Authority
from tests.support.source import ROOT

PREFIX = "dls-closed-"
PLACE = Path("/srv")
"""Folder of the lab's folder: the hosts have a /tmp and a /var/tmp of their own."""
LOCK = Path("/tmp/dls-closed-lab.lock")
"""One for the machine, whatever TMPDIR says: whoever holds it removes the folders of labs that were killed."""
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PROGRAMS = ("ip", "iptables", "unshare", "nsenter", "setpriv", "sshd", "sysctl")
USER, OTHER_USER = "ann", "eve"
ACCOUNTS = {USER: 64001, OTHER_USER: 64002}
ACCOUNT_LINES = {"passwd": ":x:{0}:{0}::/home/{1}:/bin/sh", "group": ":x:{0}:", "shadow": ":*:1::::::"}

FORWARDING = {
    "default": "",
    "tcp-no": "AllowTcpForwarding no",
    "tcp-local": "AllowTcpForwarding local",
    "tcp-remote": "AllowTcpForwarding remote",
    "no-listen": "PermitListen none",
    "disabled": "DisableForwarding yes",
}
"""What a host's SSH server allows, by the end of the name under which the laptops know it."""
HOSTS = {"isolated": "10.215.2.11", "dropping": "10.215.2.12", "rejecting": "10.215.2.13", "open": "10.215.2.14"}
CLOSED = ("isolated", "dropping", "rejecting")
LAPTOPS = {"plain": 2, "office": 3, "ward": 4}
"""The laptops, and the last number of their addresses."""
INTERNET, GATE, PROXY_PORT = "10.215.1.1", "10.215.2.1", 3128
INDEX, HUB, ELSEWHERE, MIRROR = "198.51.101.10", "198.51.101.12", "198.51.101.13", "10.215.3.11"
"""Addresses of the web servers: public ones, since private ones are lent to nobody; a mirror may have a private one."""
MIRROR_NAME, OFF_LIST = "packages.hospital.test", "elsewhere.test"
HUB_NAMES = ("huggingface.co",)


def why_impossible() -> str:
    """Return why this machine can't have the lab, in a sentence; empty where it can."""
    if os.getuid() != 0:
        return "The lab of closed hosts needs root."
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := [name for name in PROGRAMS if not shutil.which(name, path=path)]:
        return f"The lab of closed hosts needs namespaces, iptables and OpenSSH; missing here: {', '.join(missing)}."
    if not SYSTEM_CERTIFICATES.is_file():
        return f"The lab of closed hosts needs the certificates of a Debian system, {SYSTEM_CERTIFICATES}."
    script = "iptables -A FORWARD -j DROP && ip link add br0 type bridge"
    tried = subprocess.run(["unshare", "-n", "-m", "-u", "-p", "-f", "--mount-proc", "sh", "-c", script])
    return "" if tried.returncode == 0 else "The lab of closed hosts needs namespaces, which this machine forbids."


def other_certificates() -> list[str]:
    """Return the files with the certificates that this machine's Python packages trust in place of the system's."""
    found = []
    for name in ("certifi", "pip._vendor.certifi"):
        with contextlib.suppress(ImportError):
            found.append(str(importlib.import_module(name).where()))
    return [path for path in found if Path(path) != SYSTEM_CERTIFICATES]


class Lab:
    """The nodes, their names, and the authorities whose certificates the lab's web servers have."""

    def __init__(self, folder: Path, public_names: tuple[str, ...]) -> None:
        self.folder = folder
        self.config = folder / "ssh_config"
        self.table = dict.fromkeys(public_names, INDEX) | dict.fromkeys(HUB_NAMES, HUB)
        """Names and their addresses, as the internet's name server knows them."""
        self.table |= {MIRROR_NAME: MIRROR, OFF_LIST: ELSEWHERE}
        self.public, self.hospital = (self._make_authority(name) for name in ("public", "hospital"))
        """The authority that all computers of the lab trust, and the one that only the laptop `ward` knows."""
        self.hosts: dict[str, Node] = {}
        self.laptops: dict[str, Node] = {}
        self._resources = contextlib.ExitStack()

    @classmethod
    @contextlib.contextmanager
    def create(cls, public_names: tuple[str, ...]) -> Iterator[Lab]:
        """Create the lab, and remove it at the end; a second one on this machine waits for the first one's end.

        `public_names` are those of the package index and of its files.
        """
        with LOCK.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in PLACE.glob(f"{PREFIX}*"):  # of a lab that was killed
                shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PLACE))
            folder.chmod(0o755)
            lab = cls(folder, public_names)
            try:
                lab._build()
                yield lab
            finally:
                lab._resources.close()
                shutil.rmtree(folder, ignore_errors=True)

    def _make_authority(self, name: str) -> Authority:
        (self.folder / name).mkdir()
        return Authority(self.folder / name, f"Authority of the {name}")

    def _node(self, name: str, mounts: Mapping[str, Path | None] | None = None, *, own_processes: bool = False) -> Node:
        node = Node(name, self.folder, mounts, own_processes=own_processes)
        self._resources.callback(node.end)
        return node

    def _build(self) -> None:
        self._write_files()
        self.internet, self.gate = self._node("internet"), self._node("gate")
        make_switch(self.internet, f"{INTERNET}/24")
        make_switch(self.gate, f"{GATE}/24")
        for address in (INDEX, MIRROR, HUB, ELSEWHERE):
            self.internet.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
        self._make_firewall()
        for node, address in ((self.internet, INTERNET), (self.gate, GATE)):
            self._resources.enter_context(names.answering(node, address, self.table))
        self.proxy = self._resources.enter_context(web_proxy.proxying(self.internet, INTERNET, PROXY_PORT, self.table))
        for name in LAPTOPS:
            self.laptops[name] = self._make_laptop(name)
        for name, address in HOSTS.items():
            self.hosts[name] = self._make_host(name, address)
        self._write_client_config()

    def _write_files(self) -> None:
        key, self._host_key = (_write_key(self.folder / name) for name in ("id_ed25519", "host_key"))
        (self.folder / "authorized_keys").write_text(key + "\n")
        self.bundle = self.folder / "bundle.pem"
        self.bundle.write_text(SYSTEM_CERTIFICATES.read_text() + self.public.certificate.read_text())
        etc = self.folder / "etc"
        # A file of another test's account may go meanwhile, which is an error to cp.
        subprocess.run(["cp", "-a", "/etc", etc], capture_output=True, check=False)
        for place in ("pip.conf", "xdg/pip", "xdg/uv", "uv"):  # this machine's own index, say
            run("rm", "-rf", etc / place)
        for file, suffix in ACCOUNT_LINES.items():
            lines = [line for line in (etc / file).read_text().splitlines() if line.split(":")[0] not in ACCOUNTS]
            lines += [f"{name}{suffix.format(number, name)}" for name, number in ACCOUNTS.items()]
            (etc / file).write_text("\n".join([*lines, ""]))

    def _make_firewall(self) -> None:
        self.gate.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.gate.run("ip", "route", "add", "default", "dev", "br0")
        reset = ("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
        for name, verdict in (("dropping", ("-j", "DROP")), ("rejecting", reset)):
            self.gate.run("iptables", "-A", "FORWARD", "-s", HOSTS[name], "!", "-d", "10.215.2.0/24", *verdict)

    def _mounts(self, name: str, name_server: str) -> dict[str, Path | None]:
        """Return what every computer of the lab sees elsewhere than this machine: an /etc of its own.

        A mount on one of its files would go with the file, whenever another program here replaces that by a new one.
        """
        place = self.folder / f"etc-{name}"
        run("cp", "-al", self.folder / "etc", place)
        self.write_etc(name, "resolv.conf", f"nameserver {name_server}\noptions timeout:1 attempts:2\n")
        self.write_etc(name, "hosts", f"127.0.0.1 localhost {name}\n")
        self.write_etc(name, "pip.conf", f"[global]\ncert = {SYSTEM_CERTIFICATES}\n")
        self.write_etc(name, "ssl/certs/ca-certificates.crt", self.bundle.read_text())
        return {"/etc": place, **dict.fromkeys(other_certificates(), self.bundle)}

    def write_etc(self, name: str, file: str, text: str) -> None:
        """Give a computer of the lab a file in /etc."""
        path = self.folder / f"etc-{name}" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it is a link to what the others have
        path.write_text(text)

    def _make_laptop(self, name: str) -> Node:
        number = LAPTOPS[name]
        # An office's name server knows no names of the internet: its web proxy does.
        node = self._node(name, self._mounts(name, "192.0.2.53" if name == "office" else INTERNET))
        plug(node, "near", self.internet, [f"10.215.1.{number}/24"])
        plug(node, "far", self.gate, [f"10.215.2.{number}/24"])
        node.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        for destination in {"plain": ["198.51.101.0/24", f"{MIRROR}/32"], "office": [], "ward": [f"{MIRROR}/32"]}[name]:
            node.run("ip", "route", "add", destination, "via", INTERNET)
        (node.folder / "home").mkdir(mode=0o700)
        if name == "ward":
            text = f"[global]\nindex-url = https://{MIRROR_NAME}/simple\n"
            self.write_etc(name, "pip.conf", text)
        return node

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of programs on a laptop."""
        found = {
            "HOME": str(self.laptops[name].folder / "home"),
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "UV_SYSTEM_CERTS": "1",  # uv's own list has no authority of the lab
        }
        if name == "office":
            found |= {"https_proxy": self.proxy.url, "HTTPS_PROXY": self.proxy.url, "no_proxy": "localhost,127.0.0.1"}
        if name == "ward":
            bundle = str(self.hospital.certificate)
            found |= {"UV_DEFAULT_INDEX": f"https://{MIRROR_NAME}/simple", "SSL_CERT_FILE": bundle, "PIP_CERT": bundle}
        return found

    def _make_host(self, name: str, address: str) -> Node:
        place = self.folder / f"host-{name}"
        for part in ("home", "tmp", "vartmp"):
            (place / part).mkdir(parents=True)
            (place / part).chmod(0o755 if part == "home" else 0o1777)
        for user, number in ACCOUNTS.items():
            (place / "home" / user).mkdir(mode=0o700)
            os.chown(place / "home" / user, number, number)
        mounts = self._mounts(name, "192.0.2.53" if name == "isolated" else INTERNET if name == "open" else GATE)
        mounts |= _environment_of_the_tests(place)
        mounts |= {"/home": place / "home", "/tmp": place / "tmp", "/var/tmp": place / "vartmp", "/dev/shm": None}
        node = self._node(name, mounts, own_processes=True)
        plug(node, "eth0", self.gate, [f"{address}/24"])
        if name == "open":
            plug(node, "eth1", self.internet, ["10.215.1.14/24"])
            node.run("ip", "route", "add", "198.51.101.0/24", "via", INTERNET)
        elif name != "isolated":
            node.run("ip", "route", "add", "default", "via", GATE)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for number, options in enumerate(FORWARDING.values()):
            self._start_sshd(node, 22 + number, options)
        return node

    def _start_sshd(self, node: Node, port: int, options: str) -> None:
        config = node.folder / f"sshd_config-{port}"
        config.write_text(
            f"{options}\nPort {port}\nHostKey {self.folder}/host_key\nPidFile none\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
        )
        node.run(find_sshd(), "-f", config, "-E", node.folder / "sshd.log")

    def _write_client_config(self) -> None:
        known = "".join(
            f"{address if port == 22 else f'[{address}]:{port}'} {self._host_key}\n"
            for address in HOSTS.values()
            for port in range(22, 22 + len(FORWARDING))
        )
        (self.folder / "known_hosts").write_text(known)
        sections = [
            f"Host {host}-{forwarding}\n  HostName {address}\n  Port {22 + number}\n"
            for host, address in HOSTS.items()
            for number, forwarding in enumerate(FORWARDING)
        ]
        self.config.write_text(
            "".join(sections) + f"Host *\n  User {USER}\n  IdentityFile {self.folder}/id_ed25519\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.folder}/known_hosts\n"
        )

    def home(self, host: str, user: str = USER) -> Path:
        """Return where the home of a host's user is on this machine."""
        return self.folder / f"host-{host}" / "home" / user


def _environment_of_the_tests(place: Path) -> dict[str, Path]:
    """Return the mount that leaves the packages of the tests, which a host may borrow, where a host has other files."""
    environment = Path(sys.prefix)
    for hidden, part in (("/home", "home"), ("/var/tmp", "vartmp"), ("/tmp", "tmp")):
        if environment.is_relative_to(hidden):
            below = place / part / environment.relative_to(hidden)
            below.mkdir(parents=True)
            return {str(below): environment}
    return {}
