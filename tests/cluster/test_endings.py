"""A job ends while an annotator works: the next click is answered by another one, as if nothing had been."""

from __future__ import annotations

import threading

import pytest

from dls.remote.session import Session
from dls.remote.tunnel.link import LinkState
from tests.cluster.lab import LOGIN, OTHER_USER, Cluster, wait_until
from tests.cluster.ways import QueueReporter, connected
from tests.faults.work import ItkSnapWork, Work

pytestmark = pytest.mark.slow


def job_id(session: Session) -> str:
    assert session.job is not None
    return session.job.job.id


def works_on(work: Work) -> None:
    """Two more clicks give what they would have given."""
    work.click()
    work.click()
    work.check()
    assert work.lost == []


def click_until_another_job(session: Session) -> None:
    """Click on, without a pause, until the server runs in another job; each mask is what it would have been."""
    work = ItkSnapWork(session.port).begin()
    first = job_id(session)
    while job_id(session) == first or session._link.state is not LinkState.OPEN:
        work.click()
        work.check()
        assert work.lost == []
    works_on(work)


def test_a_cancelled_job_is_submitted_anew_by_the_next_click(idle: Cluster) -> None:
    """After `scancel` no job is submitted before somebody clicks; the click goes to a new job, without a login."""
    reporter = QueueReporter()
    with connected(idle, reporter) as session:
        work = ItkSnapWork(session.port).begin()
        first = job_id(session)
        idle.inside(LOGIN, "scancel", first)
        wait_until(lambda: session._link.state is LinkState.ASLEEP, "the end to be noticed")
        wait_until(lambda: not idle.jobs(), "the job's end")
        # The batch script has removed it, which a script that Slurm has to kill does not.
        assert not (idle.home() / ".dls" / "jobs" / f"dlslab-{first}").exists()
        assert any("it was cancelled" in note for note in reporter.notes)
        works_on(work)
        assert job_id(session) != first and reporter.phases.count("login") == 1
    assert len(idle.logins()) == 1


def test_a_job_s_time_ends_while_clicking(idle: Cluster) -> None:
    """The walltime's end is survived by an annotator who does not stop clicking."""
    with connected(idle, time="1m") as session:
        click_until_another_job(session)


def test_a_node_that_dies(idle: Cluster) -> None:
    """After a power failure of the node, the next job is on the other one."""
    with connected(idle) as session:
        work = ItkSnapWork(session.port).begin()
        node = session.state.host
        idle.kill_node(node)
        try:
            works_on(work)
            assert session.state.host != node
        finally:
            idle.start_node(node)


def test_a_job_that_is_preempted(idle: Cluster) -> None:
    """A job of a higher partition takes all GPUs; the click waits for its end and is answered then."""
    with connected(idle) as session:
        work = ItkSnapWork(session.port).begin()
        words = [
            "sbatch",
            "--parsable",
            "-p",
            "high",
            "--nodes=2",
            "--gres=gpu:2",
            "--output=/dev/null",
            "--wrap=sleep 90",
        ]
        other = idle.inside(LOGIN, *words, user=OTHER_USER).strip()
        wait_until(lambda: [job[1] for job in idle.jobs(OTHER_USER)] == ["RUNNING"], "the preemption")
        click = threading.Thread(target=works_on, args=(work,))
        click.start()
        wait_until(lambda: [job[1] for job in idle.jobs()] == ["PENDING"], "the successor")
        wait_until(lambda: "waits" in session._link.reason, "the queue's state in the sentence")
        idle.inside(LOGIN, "scancel", other)
        click.join(60)
        work.check()
        assert work.lost == [] and work.clicks == 3


def test_a_successor_takes_over_before_the_end(idle: Cluster) -> None:
    """With `--renew` the next job is there before the walltime ends, and no click waits for a queue."""
    reporter = QueueReporter()
    with connected(idle, reporter, time="1m", renew=True) as session:
        click_until_another_job(session)
        wait_until(lambda: [job[0] for job in idle.jobs()] == [job_id(session)], "the first job's end")
        assert reporter.links == [True]
