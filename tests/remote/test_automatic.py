"""`--engine auto` on real hosts: which server is started, found again, and kept after a lost link."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dls
from dls.demo import sshd
from dls.remote import licence
from dls.remote.commands import stop_server
from dls.remote.progress import Silent
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.user import memory
from tests.remote.host.test_odd_hosts import program
from tests.support.connecting import RecordingReporter, click_once, connected, cut
from tests.support.host_environment import lend_packages
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, until
from tests.support.synthetic import dice, ellipsoid, noisy

MODEL = Path(__file__).parents[1] / "tiny_model" / "model"


def write_gpu(folder: Path, free: int) -> Path:
    """Write an `nvidia-smi` that shows a GPU with so many MiB free, and that says in `asked` that it was run."""
    line = f"0, NVIDIA A100, 40960, {free}, 580.65, 8.0"
    return program(folder, "nvidia-smi", f"echo asked >>{folder}/asked\necho '{line}'")


def count_asked(folder: Path) -> int:
    asked = folder / "asked"
    return len(asked.read_text().splitlines()) if asked.exists() else 0


@pytest.fixture
def gpu_host(short_folder: Path) -> Iterator[sshd.Server]:
    """A host with a GPU, as far as `nvidia-smi` says."""
    (short_folder / "sshd").mkdir()
    path = f"{write_gpu(short_folder, 40000)}:{os.environ['PATH']}"
    with sshd.running(short_folder / "sshd", options=f"SetEnv PATH={path}") as server:
        yield server


def test_a_host_without_a_gpu_gets_region(host: sshd.Server, clean: str) -> None:
    """The reason is there for the panel; a server that region was named for is found, and the other way round."""
    session, reporter = connected(host, clean, engine="auto")
    with session:
        assert session.state.engine == "region" and session.models == ("region",)
        assert session.choice.reason == "region: the host has no GPU with 6 GB free memory"
        assert "launch" in reporter.phases
        click_once(session.port)
    session, reporter = connected(host, clean, engine="region")
    session.close()
    assert reporter.phases == ["resolve", "login", "probe", "forward"] and session.choice.reason == ""
    session, reporter = connected(host, clean, engine="auto")
    session.close()
    assert reporter.phases == ["resolve", "login", "probe", "forward"]
    assert session.choice.reason == "region, whose server was running there already"
    session, reporter = connected(host, clean, engine="auto", stand_in=True)
    session.close()
    assert session.choice.reason == "region, because --stand-in is about it"  # an option decided, before the login


def test_a_gpu_that_is_busy_is_left_alone(gpu_host: sshd.Server, short_folder: Path, clean: str) -> None:
    """Its memory is told; the server that runs is found afterwards without asking for GPUs, even if one is free now."""
    write_gpu(short_folder, 3000)
    session, _ = connected(gpu_host, clean, engine="auto")
    session.close()
    assert session.choice.reason == "region: the host has no GPU with 6 GB free memory (NVIDIA A100 has 3.1 GB)"
    write_gpu(short_folder, 40000)
    asked = count_asked(short_folder)
    session, _ = connected(gpu_host, clean, engine="auto")
    with session:
        assert session.state.engine == "region" and count_asked(short_folder) == asked > 0
        click_once(session.port)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_host_with_a_gpu_gets_nninteractive(gpu_host: sshd.Server, short_folder: Path, own_user_folder: Path) -> None:
    """Up to a click; the next connect finds it without a question, and a lost link brings no other engine."""
    pytest.importorskip("torch", reason="torch is not installed: scripts/test installs it")
    shutil.copytree(MODEL, short_folder / "models" / "models" / "tiny")
    remote_dir = f"{short_folder}/host"
    lend_packages(remote_dir)
    options: dict[str, Any] = {"engine": "auto", "models_path": f"{short_folder}/models", "network": False}
    options["session_dir"] = f"{short_folder}/sessions"
    login = dls.LoginOptions(ssh_config=gpu_host.config, remote_dir=remote_dir)
    reporter = RecordingReporter()
    first = dls.connect(
        "dls-demo",
        login=login,
        server=dls.ServerOptions(**options),
        local_port=free_port(),
        accept_licence=True,
        reporter=reporter,
    )
    with first:
        assert first.choice.reason == "nnInteractive on NVIDIA A100" and first.state.engine == "nnInteractive"
        assert first.serves_viewers and memory.has_agreed(licence.NAME)
        truth = ellipsoid((96, 128, 128), (48, 64, 64), (12, 15, 14))
        snap = ItkSnap(first.port)
        snap.start("nnInteractive")
        assert snap.upload(noisy(truth, 6, np.random.default_rng(0))).status == 200
        assert dice(snap.mask(snap.point(48, 64, 64)), truth) > 0.95
        asked = count_asked(short_folder)
        write_gpu(short_folder, 1)
        second, warm = connected(gpu_host, remote_dir, **options)
        second.close()
        assert warm.phases == ["resolve", "login", "probe", "forward"] and count_asked(short_folder) == asked
        assert second.choice.reason == "nnInteractive, whose server was running there already"
        assert stop_server("dls-demo", login, NoPrompter(), Silent())
        cut(first)
        until(lambda: reporter.links == [False, True] or not first.is_up, 30)
        assert snap.mask(snap.point(48, 64, 64)).any()  # the click brings the server back
        assert first.state.engine == "nnInteractive"
    stop_server("dls-demo", login, NoPrompter(), Silent())
