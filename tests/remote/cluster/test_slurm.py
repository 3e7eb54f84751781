"""What Slurm prints, and what it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dls.errors import HostError
from dls.gpus import Gpu
from dls.remote.cluster.durations import parse_duration
from dls.remote.cluster.fit import check_fits, with_possible_gpu, without_gpus_of_others
from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.scheduler import Entrance, Job, JobState, Partition
from dls.remote.cluster.slurm import Slurm, find_impossible, has_gres, parse_look, sbatch_arguments
from dls.remote.cluster.slurm_words import describe_reason, hopeless
from dls.remote.host.options import ServerOptions
from tests.remote.host.test_install import REPORT

LOOK = """now\t2026-03-01T10:00:00
job\t12|RUNNING|None|2026-03-01T09:00:00|3:00:00|gpu07|gpu|(null)
entrance\t12\tann gpu07 gpu07.cluster 31234 ssh-ed25519 AAAA
job\t13|PENDING|Priority|2026-03-01T10:12:00|4:00:00||gpu|(null)
line\t13\t3 17
job\t14|CONFIGURING|None|N/A|4:00:00|gpu08|gpu|(null)
job\t15|RUNNING|None|2026-03-01T10:00:00|UNLIMITED|gpu09|gpu|(null)
failed\t15\tfiles can't be locked
last\tTIMEOUT
"""
GPUS = Partition("gpu", True, True, 60, 16, 64000, "gpu:a100:4(S:0-1)", frozenset({"a100"}))
BIG = Partition("big", False, True, None, 128, 0, "gpu:h100:8,shard:16", frozenset({"h100"}))


def test_the_jobs_are_read() -> None:
    """The job that can be entered comes first; times are seconds from the cluster's own clock."""
    look = parse_look(LOOK)
    assert [job.id for job in look.jobs] == ["12", "15", "14", "13"]
    first, failed, starting, waiting = look.jobs
    assert first.state is JobState.RUNNING and first.seconds_left == 10800
    assert first.entrance == Entrance("ann", ("gpu07", "gpu07.cluster"), 31234, "ssh-ed25519 AAAA")
    assert failed.failed == "files can't be locked" and failed.seconds_left is None
    assert starting.state is JobState.STARTING and starting.node == "gpu08"
    assert waiting.state is JobState.WAITING and waiting.reason == "waits behind others"
    assert (waiting.starts_in, waiting.place, waiting.line) == (720, 3, 17)
    assert look.last_end == "its time is over"


@pytest.mark.parametrize(
    "text", ["", "job\t", "job\tx|y", "now\tN/A\njob\t1", "entrance\t1\tx", "partition\ta|b", "\t\t\t"]
)
def test_odd_output_is_no_error(text: str) -> None:
    """A release of Slurm that prints something else leaves facts out, and raises nothing."""
    parse_look(text)


def test_two_jobs_that_can_be_entered() -> None:
    """The one with more time is preferred: it is the other one's successor."""
    text = "".join(
        f"job\t{n}|RUNNING|None|N/A|{left}|n|p|\nentrance\t{n}\tu n n 1 k k\n" for n, left in ((1, "1:00"), (2, "9:00"))
    )
    assert [job.id for job in parse_look(text).jobs] == ["2", "1"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93784),
        ("2:03:04", 7384),
        ("3:04", 184),
        ("0:00", 0),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_a_duration_of_squeue(text: str, seconds: float | None) -> None:
    """`squeue` leaves out what is zero, and has words for what is no number."""
    assert parse_duration(text) == seconds


def test_what_sbatch_is_asked_for() -> None:
    """What is not named is left to Slurm; a job is never put back into the queue."""
    plain = sbatch_arguments(ClusterOptions().filled(True), "/h/.dls")
    assert plain == [
        "--job-name=dls", "--comment=dls", "--no-requeue", "--nodes=1", "--ntasks=1", "--open-mode=append",
        "--output=/h/.dls/log/job-%j.log", "--gres=gpu:1",
    ]  # fmt: skip
    without = sbatch_arguments(ClusterOptions().filled(False), "/h/.dls")  # no GPU is held for nothing
    assert [each for each in plain if each not in without] == ["--comment=dls", "--gres=gpu:1"]
    assert ClusterOptions(gres="gpu:2").filled(False).gres == "gpu:2"
    options = ClusterOptions(
        time="1h", partition="p", account="a", qos="q", gres="none", cpus=4, mem="8G", constraint="c",
        sbatch_options=("exclusive", "--nice=5"),
    )  # fmt: skip
    assert sbatch_arguments(options, "/h")[7:] == [
        "--time=60", "--partition=p", "--account=a", "--qos=q", "--cpus-per-task=4", "--mem=8G", "--constraint=c",
        "--exclusive", "--nice=5",
    ]  # fmt: skip


def test_a_job_without_a_gpu_is_known_by_its_comment() -> None:
    """Jobs of other origin may have one: nobody has said that they have none."""
    line = "job\t12|RUNNING|None|2026-03-01T09:00:00|3:00:00|gpu07|gpu|{}\n"
    comments = ("dls-without-gpu", "dls", "(null)", "")
    assert [parse_look(line.format(each)).jobs[0].has_gpu for each in comments] == [False, True, True, True]
    job = parse_look(line.format("dls-without-gpu")).jobs[0]
    check_fits(job, ClusterOptions().filled(False))
    with pytest.raises(HostError, match="has no GPU") as caught:
        check_fits(job, ClusterOptions().filled(True))
    assert "dls stop" in caught.value.hint


@pytest.mark.parametrize(
    ("there", "wanted", "has"),
    [
        ("gpu:a100:4(S:0-1)", "gpu:1", True),
        ("gpu:a100:4(S:0-1)", "gpu:a100:4", True),
        ("gpu:a100:4(S:0-1)", "gpu:a100:5", False),
        ("gpu:a100:4", "gpu:h100", False),
        ("gpu:a100:2,gpu:h100:2", "gpu:3", True),
        ("gpu:2", "gpu:2", True),
        ("", "gpu:1", False),
        ("gpu:8,shard:16", "shard:1", True),
        ("gpu:a100:8(S:0,1)", "gpu:a100:8", True),
    ],
)
def test_generic_resources(there: str, wanted: str, has: bool) -> None:
    """A count without a kind takes all kinds together."""
    assert has_gres(there, wanted) is has


@pytest.mark.parametrize(
    ("options", "partitions", "sentence"),
    [
        ({}, (GPUS, BIG), ""),
        ({"time": "1h"}, (GPUS,), ""),
        ({"time": "61"}, (GPUS, BIG), ""),
        ({"gres": "gpu:h100:1"}, (GPUS, BIG), ""),
        (
            {"gres": "gpu:h100:1"},
            (GPUS, replace(BIG, is_up=False)),
            "No node of the partition gpu has gpu:h100:1; there are: gpu:a100:4(S:0-1).",
        ),
        (
            {"gres": "gpu:9"},
            (GPUS, BIG),
            "No node of these partitions has gpu:9; there are: gpu:a100:4(S:0-1), gpu:h100:8,shard:16.",
        ),
        ({"time": "61"}, (GPUS,), "--time 61 is longer than the partition gpu allows: 1 h."),
        ({"time": "61", "partition": "big"}, (GPUS, BIG), ""),
        ({"time": "61", "partition": "gpu,big"}, (GPUS, BIG), ""),
        ({"partition": "cpu"}, (GPUS, BIG), "There is no partition cpu here; there are: gpu, big."),
        ({"mem": "100G"}, (GPUS,), "No node of the partition gpu has 100G of memory; the largest has 64000 MiB."),
        ({"mem": "100G", "partition": "big"}, (GPUS, BIG), ""),
        ({"constraint": "h100"}, (GPUS,), "No node of the partition gpu has the feature h100; there are: a100."),
        ({"constraint": "h100&nvlink"}, (GPUS,), ""),
        ({"gres": "gpu:1"}, (), ""),
        ({"gres": "gpu:1"}, (BIG,), ""),
    ],
)
def test_impossible_requests(options: dict[str, Any], partitions: tuple[Partition, ...], sentence: str) -> None:
    """Only what is known to be impossible is refused: without `--partition` any that is up may be the job's."""
    assert find_impossible(ClusterOptions(**options), partitions) == sentence


@pytest.mark.parametrize(
    "reason", ["Resources", "QOSMaxGRESPerUser", "AssocGrpGRES", "ReqNodeNotAvail, UnavailableNodes:x", "New", ""]
)
def test_every_reason_has_words(reason: str) -> None:
    """A reason that nobody has heard of is said as Slurm says it."""
    words = describe_reason(reason)
    assert words.split()[0] in ("waits", "waits;", "is") and (reason != "New" or "New" in words)


@pytest.mark.parametrize(
    ("reason", "clause"),
    [
        ("QOSMaxWallDurationPerJobLimit", "its time is longer than your QOS allows; --time asks for less"),
        ("AssocMaxWallDurationPerJobLimit", "its time is longer than your account allows; --time asks for less"),
        ("QOSMaxGRESPerJob", "it asks for more than your QOS allows one job to have"),
        ("AssocMaxCpuPerJobLimit", "it asks for more than your account allows one job to have"),
        ("QOSMaxMemoryPerNode", "it asks for more than your QOS allows one job to have"),
        ("QOSMinGRES", "it asks for less than your QOS allows one job to have"),
        ("InvalidAccount", "--account is needed, or names an account that you may not use"),
        ("QOSMaxGRESPerUser", ""),
        ("QOSMaxJobsPerUserLimit", ""),
        ("QOSMaxNodePerUserLimit", ""),
        ("AssocGrpGRES", ""),
        ("AssocMaxJobsLimit", ""),
        ("Priority", ""),
        ("", ""),
    ],
)
def test_a_job_that_will_never_start(reason: str, clause: str) -> None:
    """A limit for each job alone will not let it start, however long it waits; one for all jobs together may."""
    assert hopeless(reason) == clause


def test_a_gpu_is_left_out_where_none_is_to_be_had() -> None:
    """A job for `auto` takes one where the partition has any; one for nnInteractive is refused where there is none."""
    asked = ClusterOptions().filled(True)
    plain, gpu = (Partition("p", True, True, 60, 8, 16000, gres) for gres in ("", "gpu:a100:2"))
    assert with_possible_gpu(Slurm("/r"), asked, (plain, gpu), is_needed=False) == asked
    assert with_possible_gpu(Slurm("/r"), asked, (plain,), is_needed=False).gres == "none"
    with pytest.raises(HostError, match="has gpu:1"):
        with_possible_gpu(Slurm("/r"), asked, (plain,), is_needed=True)
    with pytest.raises(HostError, match="longer than"):
        with_possible_gpu(Slurm("/r"), replace(asked, time="9h"), (plain,), is_needed=False)


def test_auto_takes_no_gpu_of_another_job() -> None:
    """A node may show GPUs to a job that was given none."""
    gpus = replace(REPORT, gpus=(Gpu(0, "A100", 40000, 40000, "580"),), job="/jobs/7")
    without, having = (Job("7", JobState.RUNNING, has_gpu=has) for has in (False, True))
    assert without_gpus_of_others(gpus, ServerOptions(), without).gpus == ()
    assert without_gpus_of_others(gpus, ServerOptions(), having) == gpus
    assert without_gpus_of_others(gpus, ServerOptions("nninteractive"), without) == gpus
    assert without_gpus_of_others(gpus, ServerOptions(), None) == gpus
