"""A Kerberos realm of its own on loopback, with a ticket for the current user; nothing in /etc is touched.

Needs krb5-kdc, krb5-admin-server and krb5-user (Debian's names).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.openssh import Server, running, serving
from tests.support.processes import free_port, wait_until_listening

PROGRAMS = ("kdb5_util", "kadmin.local", "krb5kdc", "kinit", "kdestroy")
PASSWORD = "tickets-please"
SYSTEM = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
"""Where Debian puts the programs of servers."""

CLIENT = """[libdefaults]
 default_realm = LAB.TEST
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
 LAB.TEST = {{
  kdc = 127.0.0.1:{port}
 }}
[domain_realm]
 localhost = LAB.TEST
"""
KDC = """[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
 LAB.TEST = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
  max_life = 10h
  supported_enctypes = aes256-cts:normal
 }}
[logging]
 kdc = FILE:{folder}/kdc.log
"""


def missing_programs() -> list[str]:
    """Return which programs of Kerberos are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SYSTEM) is None]


@dataclass(frozen=True)
class Realm:
    """A realm with one user, who is called as the current one, and one host."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of a client of this realm; the tickets are in a file of the lab."""
        return {"KRB5_CONFIG": str(self.folder / "krb5.conf"), "KRB5CCNAME": f"FILE:{self.folder}/tickets"}

    def take_ticket(self, lifetime: str = "1h") -> None:
        """Get a ticket for the user."""
        command = ["kinit", "-l", lifetime, getpass.getuser()]
        self._run(command, f"{PASSWORD}\n")

    def drop_ticket(self) -> None:
        """Remove the ticket."""
        self._run(["kdestroy", "-q"])

    def _run(self, command: list[str], text: str = "") -> None:
        env = {**os.environ, "PATH": SYSTEM, "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"), **self.env}
        subprocess.run(command, input=text, text=True, env=env, check=True, capture_output=True)

    def make(self, port: int) -> None:
        """Write the configuration and the database of the realm."""
        (self.folder / "krb5.conf").write_text(CLIENT.format(port=port))
        (self.folder / "kdc.conf").write_text(KDC.format(port=port, folder=self.folder))
        (self.folder / "acl").touch()
        self._run(["kdb5_util", "create", "-s", "-r", "LAB.TEST", "-P", "master-secret"])
        self._run(["kadmin.local", "-q", f"addprinc -pw {PASSWORD} {getpass.getuser()}"])
        self._run(["kadmin.local", "-q", "addprinc -randkey host/localhost"])
        self._run(["kadmin.local", "-q", f"ktadd -k {self.folder}/keytab host/localhost"])


@contextlib.contextmanager
def realm(folder: Path) -> Iterator[Realm]:
    """Run a key distribution centre, with all its files in a new folder."""
    folder.mkdir(mode=0o755)
    made, port = Realm(folder), free_port()
    made.make(port)
    env = {**made.env, "PATH": SYSTEM, "KRB5_KDC_PROFILE": str(folder / "kdc.conf")}
    with running([shutil.which("krb5kdc", path=SYSTEM) or "krb5kdc", "-n"], env) as process:
        wait_until_listening(port, process)
        yield made


@contextlib.contextmanager
def kerberized(folder: Path, realm: Realm, *options: str) -> Iterator[Server]:
    """Run an sshd that takes tickets of the realm, and nothing else unless the options say so."""
    usual = (
        "AuthenticationMethods gssapi-with-mic",
        "GSSAPIAuthentication yes",
        "GSSAPIStrictAcceptorCheck no",
    )
    env = {**realm.env, "KRB5_KTNAME": f"FILE:{realm.folder}/keytab"}
    with serving(folder, *options, *usual, env=env) as server:
        yield server


def section(server: Server, *lines: str) -> str:
    """Return the Host section of a server of the realm, which is known there as localhost."""
    names = ("HostName localhost", f"HostKeyAlias [127.0.0.1]:{server.port}", "AddressFamily inet")
    return server.section("lab", *lines, *names, "GSSAPIAuthentication yes", key=False)
