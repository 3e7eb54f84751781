"""`--engine auto` on a cluster: a GPU is asked for, and the engine is chosen in the job."""

from __future__ import annotations

from pathlib import Path

import pytest

import dls
from dls.errors import TargetError
from tests.cluster.lab import HOST, Cluster
from tests.cluster.ways import QueueReporter, connected, login_options, stop
from tests.support.connecting import click_once
from tests.support.processes import free_port

pytestmark = pytest.mark.slow


def test_nobody_waits_in_the_queue_for_a_question(idle: Cluster, own_user_folder: Path) -> None:
    """The licence is agreed to before a job is submitted; without anybody to ask, none is."""
    with pytest.raises(TargetError, match="no terminal to agree at"):
        dls.connect(HOST, login=login_options(idle), local_port=free_port())
    with pytest.raises(TargetError, match="no terminal to agree at"):
        connected(idle, server=dls.ServerOptions(), gres="gpu:1")
    assert idle.jobs() == []


def test_the_engine_is_chosen_in_the_job(idle: Cluster, own_user_folder: Path) -> None:
    """The lab's GPUs are device files that nvidia-smi does not show: so region. Its job is found again."""
    login, server = login_options(idle), dls.ServerOptions()
    reporter = QueueReporter()
    session = dls.connect(
        HOST, login=login, server=server, local_port=free_port(), accept_licence=True, reporter=reporter
    )  # fmt: skip
    with session:
        assert session.choice.reason == "region: the job has no GPU with 6 GB free memory"
        assert session.job is not None and session.job.job.has_gpu
        click_once(session.port)
    with dls.connect(HOST, login=login, local_port=free_port()) as again:
        assert again.choice.reason == "region, whose server was running there already"
        click_once(again.port)
    assert stop(idle)


def test_a_job_without_a_gpu_gets_region(idle: Cluster, own_user_folder: Path) -> None:
    """`--gres none` asks for no GPU, so nobody has to agree to anything; a job of that kind is found by `auto` too."""
    with connected(idle, server=dls.ServerOptions(), gres="none") as session:
        assert session.state.engine == "region" and session.job is not None and not session.job.job.has_gpu
    with dls.connect(HOST, login=login_options(idle), local_port=free_port()) as again:
        click_once(again.port)
        assert again.state.engine == "region"
    assert stop(idle)
