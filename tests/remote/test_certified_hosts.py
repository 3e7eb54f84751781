"""`dls connect` to hosts that are known by their certificates only, to an answer through the local port."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dls.demo import sshd
from tests.support.connecting import connected, cut
from tests.support.host_keys import certify, make_key
from tests.support.itksnap import ItkSnap
from tests.support.processes import until
from tests.support.synthetic import ellipsoid, noisy


@contextlib.contextmanager
def certified(folder: Path, names: tuple[str, ...]) -> Iterator[sshd.Server]:
    """Run a server for each name, the first one reached through the others; known_hosts has the authority only."""
    authority = make_key(folder / "ca")
    known = folder / "known_hosts"
    known.write_text(f"@cert-authority *.lab {authority}\n")
    sections = []
    with contextlib.ExitStack() as stack:
        for name in names:
            (folder / name).mkdir()
            make_key(folder / name / "key", "rsa", "-b", "2048")
            certificate = certify(folder / "ca", folder / name / "key", principals=f"{name}.lab")
            options = f"HostKey {folder}/{name}/key\nHostCertificate {certificate}\n"
            server = stack.enter_context(sshd.running(folder / name, options=options))
            text = re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {known}", server.config.read_text())
            sections.append(f"{text.replace('Host dls-demo', f'Host {name}')}  HostKeyAlias {name}.lab\n")
        jumps = f"  ProxyJump {','.join(reversed(names[1:]))}\n" if names[1:] else ""
        (folder / "config").write_text(f"{sections[0]}{jumps}{''.join(sections[1:])}")
        yield sshd.Server(server.program, server.port, folder / "config")


@pytest.mark.parametrize("names", [("dls-demo",), ("dls-demo", "jump")], ids=["direct", "jump"])
def test_connect_to_a_host_with_a_certificate(clean: str, short_folder: Path, names: tuple[str, ...]) -> None:
    """Nobody is asked, a click gets its answer before and after a cut link, and known_hosts stays as it was."""
    truth = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))
    image = noisy(truth, 5, np.random.default_rng(0))
    with certified(short_folder, names) as server:
        before = (short_folder / "known_hosts").read_text()
        session, reporter = connected(server, clean)
        with session as made:
            snap = ItkSnap(made.port)
            snap.start()
            assert snap.upload(image).status == 200
            assert snap.mask(snap.point(15, 20, 25))[15, 20, 25] == 1
            cut(made)
            until(lambda: reporter.links[-1:] == [True])
            assert snap.mask(snap.point(14, 20, 25))[14, 20, 25] == 1
        assert (short_folder / "known_hosts").read_text() == before
