"""The lines of known_hosts: which are about a host, and how one is added."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dls.remote.ssh.known_hosts import Marker, append, format_line, hash_name, matches, names_of, parse, read

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
BLOB = base64.b64decode(KEY.split()[1])


def found(text: str) -> list[tuple[Marker, str, int]]:
    return [(entry.marker, entry.names, entry.line) for entry in parse(Path("known_hosts"), text)]


@pytest.mark.parametrize(
    ("names", "host", "is_match"),
    [
        ("gpu", "gpu", True),
        ("a,gpu,b", "gpu", True),
        ("GPU", "gpu", True),
        ("gpu", "GPU", True),
        ("*.org", "gpu.org", True),
        ("*.org,!gpu.org", "gpu.org", False),
        ("!gpu.org,*.org", "gpu.org", False),
        ("!gpu", "cpu", False),
        ("gp?", "gpu", True),
        ("gp?", "gp", False),
        ("gpu", "[gpu]:2222", False),
        ("[gpu]:2222", "[gpu]:2222", True),
        ("[gpu]:*", "[gpu]:2222", True),
        ("*", "[gpu]:2222", True),
        ("[gpu]:2222", "gpu", False),
        ("", "gpu", False),
        (hash_name("gpu"), "gpu", True),
        (hash_name("gpu"), "GPU", True),
        (hash_name("gpu"), "cpu", False),
        (f"{hash_name('gpu')},cpu", "cpu", False),
        ("|1|no base64!|x", "gpu", False),
        ("|2|AAAA|AAAA", "gpu", False),
        ("|1|", "gpu", False),
    ],
)
def test_names_match_as_in_sshd_8(names: str, host: str, is_match: bool) -> None:
    """Lists, wildcards, negation, ports and hashed names match as sshd(8) defines; case does not matter."""
    assert matches(names, host) is is_match


def test_lines_that_hold_no_key_are_skipped() -> None:
    """Comments, unknown or double markers, unknown and broken keys are skipped; lines are numbered with them."""
    text = (
        f"# gpu {KEY}\n  \t\n  #gpu {KEY}\n@unknown gpu {KEY}\n@revoked @cert-authority gpu {KEY}\n"
        f"gpu\ngpu ssh-ed25519\ngpu ssh-ed25519 not-base64!\ngpu ssh-ed25519 AAAA\ngpu ssh-rsa {KEY.split()[1]}\n"
        f"gpu {KEY[:-8]}\ngpu 1024 35 123456\ngpu ssh-dss {KEY.split()[1]}\n{KEY}\n"
        f"\t gpu\t{KEY} comment # of words"
    )
    assert found(text) == [(Marker.NONE, "gpu", 15)]


def test_markers_and_line_ends() -> None:
    """Both markers are read; line ends of Windows and odd characters in names and comments do no harm."""
    text = f"@cert-authority *.org {KEY}\r\n@revoked\tgpu {KEY}\r\ngp\x0bu {KEY} \x0c\u2028\r\nx {KEY}"
    assert found(text) == [
        (Marker.AUTHORITY, "*.org", 1),
        (Marker.REVOKED, "gpu", 2),
        (Marker.NONE, "gp\x0bu", 3),
        (Marker.NONE, "x", 4),
    ]


def test_all_files_are_read(tmp_path: Path) -> None:
    """Several files count together; a byte order mark and bytes of another encoding are no obstacle, nor is no file."""
    first, second = tmp_path / "known hosts", tmp_path / "second"
    first.write_bytes(b"\xef\xbb\xbfgpu " + KEY.encode() + b" M\xfcller\n")
    second.write_text(f"cpu {KEY}\n@revoked gpu {OTHER}\n")
    files = (first, tmp_path / "missing", tmp_path, second)
    assert [(entry.file, entry.line, entry.marker) for entry in read(files, "gpu")] == [
        (first, 1, Marker.NONE),
        (second, 2, Marker.REVOKED),
    ]


def test_other_names_of_a_key(tmp_path: Path) -> None:
    """The other names of a key are told with file and line; hashed ones stay hidden, and marked lines do not count."""
    file = tmp_path / "known_hosts"
    file.write_text(f"a,b {KEY}\nc {OTHER}\n{hash_name('d')} {KEY}\n@revoked e {KEY}\n")
    assert names_of((file,), BLOB) == [f"{file}:1: a,b", f"{file}:3: [hashed name]"]


def test_a_hashed_line_is_found_by_openssh(tmp_path: Path) -> None:
    """`ssh-keygen -F` finds the line that HashKnownHosts asks for, each line has a salt of its own, and so do we."""
    file = tmp_path / "known_hosts"
    lines = [format_line("[GPU.org]:2222", "ssh-ed25519", BLOB, hashed=True) for _ in range(2)]
    assert lines[0] != lines[1] and "gpu" not in lines[0].lower()
    assert append(file, lines[0])
    done = subprocess.run(["ssh-keygen", "-F", "[gpu.org]:2222", "-f", str(file)], capture_output=True, text=True)
    assert done.returncode == 0 and KEY.split()[1] in done.stdout
    assert len(read((file,), "[gpu.org]:2222")) == 1


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX's")
def test_a_new_file_is_for_its_user_only(tmp_path: Path) -> None:
    """File and folder are made with modes 0600 and 0700; the mode of a file that exists is left as it is."""
    file = tmp_path / "ssh" / "known_hosts"
    before = os.umask(0)
    try:
        assert append(file, f"gpu {KEY}\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    assert append(file, f"cpu {KEY}\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644 and file.read_text() == f"gpu {KEY}\ncpu {KEY}\n"


def test_a_missing_line_end_is_added(tmp_path: Path) -> None:
    """A line is never glued to the last one, and what the file had is kept to the byte."""
    file = tmp_path / "known_hosts"
    file.write_bytes(b"# M\xfcller\r\ncpu x")
    assert append(file, f"gpu {KEY}\n")
    assert file.read_bytes() == b"# M\xfcller\r\ncpu x\ngpu " + KEY.encode() + b"\n"


def test_what_keeps_nothing(tmp_path: Path) -> None:
    """A device keeps nothing, and that is told; a folder that is missing, or no file, is an error."""
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    assert append(Path("/dev/null"), f"gpu {KEY}\n") is False
    assert append(link, f"gpu {KEY}\n") is False
    for bad in (tmp_path / "no" / "such" / "folder", tmp_path, link / "file"):
        with pytest.raises(OSError, match=r"\w"):
            append(bad, f"gpu {KEY}\n")


def test_lines_that_are_added_at_once_stay_whole(tmp_path: Path) -> None:
    """Two commands and two threads that add lines at the same time do not tear each other's lines."""
    file = tmp_path / "known_hosts"
    code = (
        "import sys; from pathlib import Path; from dls.remote.ssh.known_hosts import append\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        f"for n in range(200): append(Path({str(file)!r}), f'{{sys.argv[1]}}{{n}} {KEY}\\n')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    threads = [
        threading.Thread(target=lambda name=name: [append(file, f"{name}{n} {KEY}\n") for n in range(200)])
        for name in "cd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        assert process.wait(60) == 0
        process.communicate()
    expected = sorted(f"{name}{n} {KEY}" for name in "abcd" for n in range(200))
    assert sorted(line for line in file.read_text().splitlines() if line) == expected
