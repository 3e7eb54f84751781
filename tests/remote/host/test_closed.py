"""What a user is told of a closed host: the commands are made out for it."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from dls.cli.pack import pack
from dls.gpus import Gpu
from dls.remote.host.closed import closed_error, connect_command, consent_question, pack_command
from dls.remote.host.install import plan
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport, Python
from dls.remote.host.reach import Reach, Verdict
from dls.remote.ssh.options import LoginOptions, join_words

HOST = HostReport(
    system="Linux", machine="x86_64", libc="glibc 2.36", hostname="gpu1", home="/h", uid=1, root="/h/.dls",
    run_dir="/h/run", remote_key="k", filesystem="xfs", free_mib=50_000,
    pythons=(Python("/p", (3, 11, 0), True, True),),
)  # fmt: skip


def packed(host: HostReport, engine: str) -> str:
    options = ServerOptions(engine=engine)
    return pack_command(host, plan(host, requirements(engine), "c0de"), options)


@pytest.mark.parametrize(
    ("host", "engine", "said"),
    [
        (HOST, "region", "--python 3.11 -o"),
        (HOST, "nninteractive", "--python 3.11 --cpu -o"),
        (replace(HOST, gpus=(Gpu(0, "A100", 80_000, 80_000, "550.54"),)), "nninteractive", "--cuda 12.4"),
        (replace(HOST, gpus=(Gpu(0, "A100", 80_000, 80_000, "580.1"),)), "nninteractive", "--cuda 13.0"),
        (replace(HOST, pythons=()), "region", "--python 3.12 --with-python"),
        (replace(HOST, pythons=(Python("/p", (3, 8, 0), True, True),)), "region", "--python 3.12 --with-python"),
        (replace(HOST, machine="aarch64"), "region", "--platform linux-aarch64"),
    ],
)
def test_the_parcel_for_a_host(host: HostReport, engine: str, said: str) -> None:
    """The host's kind, Python and driver are in the command, and `dls pack` takes it."""
    command = packed(host, engine)
    assert said in command and f"--engine {engine} " in command
    words = shlex.split(command)
    assert words[:2] == ["dls", "pack"]
    pack.make_context("dls pack", words[2:])


def test_both_ways_out() -> None:
    """The error names what is out of reach, the host that does not reach it, and commands with the login's options."""
    login = LoginOptions(jump="gate", remote_dir="/scratch/it's")
    options = ServerOptions(engine="nninteractive")
    planned = plan(HOST, requirements("nninteractive"), "c0de")
    reach = Reach(Verdict.CLOSED, Verdict.CLOSED, "index.test", "hub.test")
    error = closed_error("gpu07", login, "ann@cluster", HOST, planned, options, reach)
    assert "gpu07 does not reach its package index (index.test) and the model hub (hub.test)" in error.message
    command = connect_command(login, "ann@cluster", options, "--lend-network")
    assert command in error.hint and shlex.split(command)[:2] == ["dls", "connect"]
    assert {"gate", "/scratch/it's", "ann@cluster", "nninteractive", "--lend-network"} <= set(shlex.split(command))
    only_weights = closed_error("gpu07", login, "x", HOST, planned, options, replace(reach, packages=Verdict.OPEN))
    assert "package index" not in only_weights.message
    mac = closed_error("mac", login, "x", replace(HOST, system="Darwin"), planned, options, reach)
    assert "--lend-network" in mac.hint and "dls pack" not in mac.hint  # there are no parcels for macOS


def test_the_question() -> None:
    """It says for which names the host is told a password, and nothing of passwords where there are none."""
    asked = consent_question("gpu1", Reach(Verdict.CLOSED), ["a.test", "b.test"], ["a.test"]).prompt
    assert "2 names: a.test, b.test. It is told this computer's password for a.test." in asked
    assert "password" not in consent_question("gpu1", Reach(Verdict.CLOSED), ["a.test"]).prompt


def test_commands_to_copy_on_windows() -> None:
    """Neither cmd nor an older PowerShell takes all that a POSIX shell does: double quotes both take."""
    words = ["dls", "connect", "-i", r"C:\Users\Ann Bo\key", "ann@gpuhost"]
    assert join_words(words, "win32") == r'dls connect -i "C:\Users\Ann Bo\key" ann@gpuhost'
    assert join_words(words, "linux") == r"dls connect -i 'C:\Users\Ann Bo\key' ann@gpuhost"
