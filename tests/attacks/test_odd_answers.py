"""Odd and endless answers of a host's programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dls import gpus
from dls.contract import ServerState
from dls.errors import HostError
from dls.remote.host import probe as probing
from dls.remote.host import send_files, stored_sessions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import Depth, HostReport, parse
from dls.remote.host.torch_builds import constrain_torch
from dls.remote.ssh.connection import Connection

BASE = "system\tLinux\nmachine\tx86_64\nhostname\tgpu1\nhome\t/h\nuid\t1000\nroot\t/h/.dls\nfree\t2097152\n"
NAMES = (
    "system", "machine", "hostname", "home", "uid", "root", "free", "libc", "filesystem", "temporary", "state", "gpus",
    "gpu", "python", "uv", "environment", "code", "ended", "full", "hangs", "storage", "place", "taken", "elsewhere",
)  # fmt: skip
ODD = st.one_of(
    st.sampled_from(["-", "²", "1" * 5000, "-1", "1e9", "[" * 100_000, '/r\t{"format": 1, "pid": 1e999}', "0x10", "٣"]),
    st.text(max_size=30),
)


def probe_with(connection: Connection, folder: Path, **programs: str) -> HostReport:
    """Run the probe with programs of ours before the host's."""
    (folder / "bin").mkdir()
    for name, text in programs.items():
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    done = connection.run(f"PATH={folder}/bin:$PATH\n{probing.script(str(folder), Depth.ALL)}", timeout=60)
    return parse(done.stdout, str(folder))


@pytest.mark.parametrize("answer", ["-", "", "many", "²", "1e9", "9" * 5000, "free"])
def test_an_odd_df(connection: Connection, short_folder: Path, answer: str) -> None:
    """Row 15: free space that is no number is unknown."""
    df = f"echo Filesystem; echo 'x 1 2 {answer} 4'"
    assert probe_with(connection, short_folder, df=df).free_mib in (0, 4 // 1024)


@pytest.mark.parametrize("index", ["²", "-1", "x", "", "9" * 5000])
def test_an_odd_gpu(connection: Connection, short_folder: Path, index: str) -> None:
    """Row 15: a line whose index is no number is no GPU; the others count, and odd figures of theirs are unknown."""
    smi = f"printf '%s\\n' '{index}, A, 1, 1, 580.1, 9.0' '1, B, ²², N/A, ²80.1, 8.0' 'no, fields'"
    report = probe_with(connection, short_folder, **{"nvidia-smi": smi})
    assert [(gpu.index, gpu.memory_total, gpu.driver_version) for gpu in report.gpus] == [(1, 0, 0)]
    assert constrain_torch(requirements("nninteractive").packages, report)


@pytest.mark.parametrize("answer", ["root", "-1", "²", "9" * 5000])
def test_an_odd_user_number(connection: Connection, short_folder: Path, answer: str) -> None:
    """Row 15: the error says what the host answered."""
    with pytest.raises(HostError) as caught:
        probe_with(connection, short_folder, id=f"echo '{answer}'")
    assert answer[:100] in caught.value.message and caught.value.hint and len(caught.value.message) < 2000


@pytest.mark.parametrize("program", ["uname", "id"])
def test_a_program_that_says_nothing(connection: Connection, short_folder: Path, program: str) -> None:
    """Row 15: the error names the missing fact."""
    with pytest.raises(HostError, match="did not say its") as caught:
        probe_with(connection, short_folder, **{program: "exit 1"})
    assert caught.value.hint


def test_endless_answers_are_cut_off(connection: Connection, short_folder: Path) -> None:
    """Row 15: of nvidia-smi and df, which users' own wrappers replace on many clusters."""
    line = "1, NVIDIA A100, 40960, 39000, 580.1, 8.0"
    endless = f"while :; do echo '{line}'; done"
    report = probe_with(connection, short_folder, **{"nvidia-smi": endless, "df": f"echo x\n{endless}"})
    assert report.gpus[0].driver_version == 580 and len(report.gpus) < 1000 and report.free_mib == 0


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ODD))
def test_whatever_the_host_says(said: dict[str, str]) -> None:
    """Row 15: the probe's output gives a report or an error with a sentence and a hint."""
    text = BASE + "".join(f"{name}\t{value}\n" for name, value in said.items())
    for output in (text, "".join(f"{name}\t{value}\n" for name, value in said.items())):
        try:
            assert parse(output, "~/.dls").uid >= 0
        except HostError as error:
            assert error.message and error.hint


@settings(max_examples=200, deadline=None)
@given(st.lists(ODD, min_size=4, max_size=4))
def test_whatever_the_host_lists(cells: list[str]) -> None:
    """Row 15: lines of sessions, of GPUs and of a state file that are no such lines are passed over."""
    for session in stored_sessions.read_list("\t".join(cells)):
        assert session.kib >= 0
    gpus.parse(", ".join([*cells, "580.1"]))
    ServerState.parse(cells[0], "/r")
    assert send_files.read_size(cells[0]) >= 0


@pytest.mark.parametrize(
    "text", ['{"format": 1, "pid": 1e999}', "[" * 100_000, '{"format": 1, "image": {"geometry": 1}}']
)
def test_a_manifest_that_is_none(text: str) -> None:
    """Row 15: the session is listed as broken."""
    [session] = stored_sessions.read_list(f"id\t1\t2\t{text}")
    assert session.model == "broken"
