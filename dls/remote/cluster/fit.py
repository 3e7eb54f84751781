"""What a job and the server in it ask of each other: pure, but for the scheduler's own check."""

from __future__ import annotations

from dataclasses import replace

from dls.engine_choice import AUTO
from dls.errors import HostError
from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.scheduler import Job, Partition, Scheduler
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.stored_sessions import job_session_dir


def in_job(server: ServerOptions, root: str) -> ServerOptions:
    """Return the options of a server in a job: its sessions are where the next job finds them, on the shared disk."""
    return replace(server, session_dir=server.session_dir or job_session_dir(root))


def describe_unused(options: ClusterOptions, report: HostReport, label: str) -> str:
    """Return a note of the options that mean nothing where the server runs in no job; empty where none was given."""
    if report.job or options.mode == "here" or not options.named:
        return ""
    set_aside = f"{' and '.join(options.named)} {'is' if len(options.named) == 1 else 'are'} set aside"
    if report.scheduler:
        return f"{label} has a GPU of its own, so the server runs there: {set_aside}. --slurm puts it into a job."
    return f"{label} has no Slurm, so the server runs in no job: {set_aside}."


def check_fits(job: Job, options: ClusterOptions) -> None:
    """Raise HostError for a job that was submitted without a GPU where the options ask for one."""
    if not job.has_gpu and options.gres != "none":
        raise HostError(
            f"The job {job.id} that is there has no GPU, because it was submitted for an engine that uses none.",
            "End it with `dls stop`, or connect with the engine that runs in it.",
        )


def with_possible_gpu(
    scheduler: Scheduler, options: ClusterOptions, partitions: tuple[Partition, ...], *, is_needed: bool
) -> ClusterOptions:
    """Return the options as they can be met: without a GPU where none is to be had and none `is_needed`.

    Raises HostError for a job that could never start.
    """
    try:
        scheduler.check(options, partitions)
    except HostError:
        if is_needed:
            raise
        options = replace(options, gres="none")
        scheduler.check(options, partitions)
    return options


def without_gpus_of_others(report: HostReport, server: ServerOptions, job: Job | None) -> HostReport:
    """Return the report of a job's node without GPUs where the job was given none: `auto` would take other jobs'."""
    if job is None or job.has_gpu or server.engine != AUTO:
        return report
    return replace(report, gpus=(), knows_gpus=True)
