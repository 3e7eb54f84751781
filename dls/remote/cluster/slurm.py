"""Slurm: its commands, what they print, and what that means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dls.errors import HostError
from dls.remote.cluster.durations import parse_duration
from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.scheduler import Entrance, Job, JobState, Look, Partition, SchedulerSilent
from dls.remote.cluster.slurm_words import ENDS, describe_reason, hopeless
from dls.remote.durations import format_duration
from dls.remote.host.refusals import raise_refusal
from dls.remote.host.scripts import render
from dls.remote.ssh.shell import Completed, ScriptRunner

JOB_NAME = "dls"
"""Name of our jobs, by which an admin sees what they are."""
WITH_GPU, WITHOUT_GPU = "dls", "dls-without-gpu"
"""Comments of our jobs, by which a client knows whether a job has what its engine needs."""
UNUSED_SECONDS = 600
"""Seconds after which a job ends in which no server runs and no client is."""
SUCCESSOR_SECONDS = 30
"""Seconds that a job goes on for a client in it after its last server was ended on purpose."""
END_SECONDS = 60
"""Seconds that a cancelled job may take to end."""
NO_SCHEDULER, SILENT, REFUSED, NOT_ENDED = 69, 70, 74, 75
"""Exit statuses of the scripts."""
SCRIPT_SECONDS = 60.0
"""Longest silence of a script: a busy controller takes long."""
STATES = {"PENDING": JobState.WAITING, "CONFIGURING": JobState.STARTING}
"""Those of Slurm's states that are no running job."""


@dataclass(frozen=True)
class Slurm:
    """Slurm, for the jobs whose folders are in one remote directory."""

    root: str
    """The remote directory, which login nodes and nodes share."""
    name: str = "Slurm"

    def look(self, login: ScriptRunner, client_key: str = "", *, last: str = "", with_limits: bool = False) -> Look:
        """Ask `squeue`, and `sinfo` for what a new job may have, in one exec; raises SchedulerSilent."""
        script = look_script(self.root, client_key, last=last, with_limits=with_limits)
        return parse_look(self._run(login, script).stdout)

    def check(self, options: ClusterOptions, partitions: Iterable[Partition]) -> None:
        """Raise HostError for what no partition allows: Slurm accepts some of it, and never starts the job."""
        if sentence := find_impossible(options, tuple(partitions)):
            raise HostError(
                sentence,
                "Ask for less, or name another --partition; --gres none asks for no GPU, and --here for no job.",
            )

    def submit(self, login: ScriptRunner, options: ClusterOptions, client_key: str, *, besides: str = "") -> str:
        """Run `sbatch`; raises HostError with Slurm's own words where it refuses the job."""
        script = submit_script(self.root, options, client_key, besides)
        completed = self._run(login, script)
        if completed.status == REFUSED:
            said = completed.stdout.partition("refused\t")[2].strip()
            raise HostError(
                f"Slurm refuses the job: {_clean(said)}.", "Change what is asked for; see dls connect --help."
            )
        return completed.stdout.partition("submitted\t")[2].strip()

    def cancel(self, login: ScriptRunner, ids: Iterable[str], *, wait: bool = False) -> list[str]:
        """Run `scancel`; raises HostError for a job whose end is waited for, and that does not end."""
        script = cancel_script(ids, END_SECONDS if wait else 0)
        completed = self._run(login, script, END_SECONDS + SCRIPT_SECONDS)
        if completed.status == NOT_ENDED:
            raise HostError(
                "The job does not end; Slurm was told to end it.", "Look at it with squeue on the login node."
            )
        return [line.partition("\t")[2] for line in completed.stdout.splitlines() if line.startswith("cancelled\t")]

    def is_in_use(self, login: ScriptRunner, id: str) -> bool:
        """Look for a server in the job's folder; any doubt counts as one."""
        return login.run(in_use_script(self.root, id), timeout=SCRIPT_SECONDS).status != 1

    def step(self, id: str) -> str:
        """Return the command that runs `sh` in a step beside the batch script (Slurm 20.11 and later)."""
        return f"srun --jobid={id} --overlap --unbuffered --ntasks=1 --quiet sh"

    def _run(self, login: ScriptRunner, script: str, seconds: float = SCRIPT_SECONDS) -> Completed:
        completed = login.run(script, timeout=seconds)
        where = login.target.label
        raise_refusal(where, completed, "") if completed.status == 77 else None
        if completed.status == NO_SCHEDULER:
            raise HostError(f"{where} has no Slurm: there is no sbatch.", "Leave out --slurm, or name the login node.")
        if completed.status == SILENT:
            said = _clean(completed.stderr) or "squeue failed"
            raise SchedulerSilent(f"Slurm on {where} does not answer: {said}.", "Try again later.")
        return completed


def look_script(root: str, client_key: str = "", *, last: str = "", with_limits: bool = False) -> str:
    """Return the script that prints what Slurm says of our jobs, and lets the client key into them."""
    limits = "1" if with_limits else ""
    values = {"ROOT": root, "NAME": JOB_NAME, "CLIENT_KEY": client_key, "LAST": last, "WITH_LIMITS": limits}
    return render("slurm_look", "slurm", "slurm_jobs", "trusted", **values)


def submit_script(root: str, options: ClusterOptions, client_key: str, besides: str = "") -> str:
    """Return the script that submits a job unless there is one besides the job with that id."""
    values = {"ROOT": root, "NAME": JOB_NAME, "CLIENT_KEY": client_key, "BESIDES": besides}
    values["SCRIPT"] = batch_script(root)
    return render(
        "slurm_submit", "slurm", "slurm_jobs", "trusted", "lock", arguments=sbatch_arguments(options, root), **values
    )


def cancel_script(ids: Iterable[str], seconds_to_end: int) -> str:
    """Return the script that cancels jobs and waits so many seconds for their end."""
    return render("slurm_cancel", "slurm", arguments=ids, SECONDS_TO_END=seconds_to_end)


def in_use_script(root: str, id: str) -> str:
    """Return the script that ends with 1 where no server runs in the job."""
    return render("job_in_use", ROOT=root, ID=id)


def batch_script(root: str) -> str:
    """Return the script that `sbatch` gets on standard input."""
    return "#!/bin/sh\n" + render(
        "job", "trusted", "slurm", "sshd", ROOT=root, UNUSED_SECONDS=UNUSED_SECONDS, SUCCESSOR_SECONDS=SUCCESSOR_SECONDS
    )


def sbatch_arguments(options: ClusterOptions, root: str) -> list[str]:
    """Return the options of `sbatch` for a job as it is asked for."""
    minutes = options.minutes
    named = {
        "time": None if minutes is None else str(minutes),
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "gres": None if options.gres == "none" else options.gres,
        "cpus-per-task": None if options.cpus is None else str(options.cpus),
        "mem": options.mem,
        "constraint": options.constraint,
    }
    return [
        f"--job-name={JOB_NAME}",
        f"--comment={WITHOUT_GPU if options.gres == 'none' else WITH_GPU}",
        # A job that is put back into the queue waits two minutes there, under the same id; another one does not.
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        "--open-mode=append",
        f"--output={root}/log/job-%j.log",
        *(f"--{name}={value}" for name, value in named.items() if value is not None),
        *(option if option.startswith("-") else f"--{option}" for option in options.sbatch_options),
    ]


def parse_look(text: str) -> Look:
    """Read what slurm_look.sh prints: on each line a name, a tab and a value."""
    lines = [line.split("\t") for line in text.splitlines() if "\t" in line]
    now = next((_parse_date(fields[1]) for fields in lines if fields[0] == "now"), None)
    entrances = {fields[1]: fields[2] for fields in lines if fields[0] == "entrance" and len(fields) == 3}
    failures = {fields[1]: _clean(fields[2]) for fields in lines if fields[0] == "failed" and len(fields) == 3}
    places = {fields[1]: fields[2] for fields in lines if fields[0] == "line" and len(fields) == 3}
    jobs = [_parse_job(fields[1], now, entrances, failures, places) for fields in lines if fields[0] == "job"]
    last = next((fields[1] for fields in lines if fields[0] == "last"), "")
    known = {job.id for job in jobs if job}
    return Look(
        jobs=tuple(sorted((job for job in jobs if job), key=_preference)),
        last_end=ENDS.get(last, ""),
        last_failed=next((said for id, said in failures.items() if id not in known), ""),
        partitions=tuple(filter(None, (_parse_partition(fields[1]) for fields in lines if fields[0] == "partition"))),
    )


def _preference(job: Job) -> tuple[bool, bool, float]:
    """Return what is the smaller the better a job is to have: one that can be entered, and for the longest time."""
    left = float("inf") if job.seconds_left is None else job.seconds_left
    return job.entrance is None, job.state is JobState.WAITING, -left


def _parse_job(
    line: str, now: datetime | None, entrances: dict[str, str], failures: dict[str, str], places: dict[str, str]
) -> Job | None:
    id, state, reason, start, left, node, _, comment, *_ = [*line.split("|"), *[""] * 8]
    if not re.fullmatch(r"[0-9]{1,18}", id):
        return None
    entrance = _parse_entrance(entrances.get(id, ""))
    found = STATES.get(state, JobState.RUNNING if entrance else JobState.STARTING)
    waits = found is JobState.WAITING
    starts = _parse_date(start)
    place, _, length = places.get(id, "").partition(" ")
    return Job(
        id=id,
        state=found,
        reason=describe_reason(reason) if waits else "",
        node=node if not waits else "",
        seconds_left=None if waits else parse_duration(left),
        starts_in=(starts - now).total_seconds() if waits and starts and now else None,
        place=_number(place) or None,
        line=_number(length),
        hopeless=hopeless(reason) if waits else "",
        entrance=entrance,
        failed=failures.get(id, ""),
        has_gpu=comment != WITHOUT_GPU,
    )


def _parse_entrance(text: str) -> Entrance | None:
    fields = text.split(" ")
    if len(fields) < 4 or not re.fullmatch(r"[0-9]{1,5}", fields[3]):
        return None
    return Entrance(fields[0], tuple(dict.fromkeys(fields[1:3])), int(fields[3]), " ".join(fields[4:6]))


def _parse_date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S")
    except ValueError:  # "N/A"
        return None


def _parse_partition(line: str) -> Partition | None:
    fields = line.split("|")
    if len(fields) != 8:
        return None
    name, up, limit, _, cpus, memory, gres, features = fields
    seconds = parse_duration(limit)
    return Partition(
        name=name.removesuffix("*"),
        is_default=name.endswith("*"),
        is_up=up == "up",
        minutes=None if seconds is None else int(seconds // 60),
        cpus=_number(cpus),
        mem_mib=_number(memory),
        gres="" if gres == "(null)" else gres,
        features=frozenset(features.split(",")),
    )


def _number(text: str) -> int:
    """Return a number; 0, which means unknown, for anything else: `16+` is the least of several kinds of nodes."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0


def _clean(text: str) -> str:
    """Return what a command of Slurm said, as a clause in a sentence of ours."""
    lines = [
        re.sub(r"^(sbatch|squeue|slurm_[a-z_]+|scancel)?:? ?(error|fatal): ", "", part.strip())
        for part in text.splitlines()
    ]
    return "; ".join(line.rstrip(".") for line in lines if line)[:300]


def find_impossible(options: ClusterOptions, partitions: tuple[Partition, ...]) -> str:
    """Return what no node of the partition allows, as a sentence; empty where the job could start some day.

    Without `--partition` any one may be meant: SBATCH_PARTITION or a plugin of the site may choose it.
    """
    named = options.partition.split(",") if options.partition else None
    chosen = [p for p in partitions if (p.name in named if named else p.is_up)]
    if not partitions or (not chosen and not named):
        return ""
    if not chosen:
        there = ", ".join(dict.fromkeys(p.name for p in partitions))
        return f"There is no partition {options.partition} here; there are: {there}."
    where = f"the partition {chosen[0].name}" if len({p.name for p in chosen}) == 1 else "these partitions"
    minutes = options.minutes
    limits = [p.minutes for p in chosen]
    if minutes is not None and None not in limits and minutes > max(limit for limit in limits if limit is not None):
        longest = max(limit for limit in limits if limit is not None)
        return f"--time {options.time} is longer than {where} allows: {format_duration(60 * longest)}."
    return _find_missing(options, chosen, where)


def _find_missing(options: ClusterOptions, chosen: list[Partition], where: str) -> str:
    gres = options.gres
    if gres and gres != "none" and not any(has_gres(p.gres, gres) for p in chosen):
        there = ", ".join(sorted({p.gres for p in chosen if p.gres})) or "none"
        return f"No node of {where} has {gres}; there are: {there}."
    if options.cpus is not None and all(0 < p.cpus < options.cpus for p in chosen):
        most = max(p.cpus for p in chosen)
        return f"No node of {where} has {options.cpus} CPUs; the largest has {most}."
    if options.mem and (need := parse_memory(options.mem)) and all(0 < p.mem_mib < need for p in chosen):
        most = max(p.mem_mib for p in chosen)
        return f"No node of {where} has {options.mem} of memory; the largest has {most} MiB."
    plain = options.constraint and re.fullmatch(r"[A-Za-z0-9_.-]+", options.constraint)
    if plain and not any(options.constraint in p.features for p in chosen):
        there = ", ".join(sorted({name for p in chosen for name in p.features if name != "(null)"})) or "none"
        return f"No node of {where} has the feature {options.constraint}; there are: {there}."
    return ""


def has_gres(there: str, wanted: str) -> bool:
    """Return whether a node with these generic resources has the wanted ones: `gpu:1`, `gpu:a100:2`."""
    nodes = [part.split(":") for part in re.sub(r"\(.*?\)", "", there).split(",") if part]
    for part in wanted.split(","):
        name, *more = part.split(":")
        count = int(more.pop()) if more and more[-1].isdecimal() else 1
        kinds = [node for node in nodes if node[0] == name and (not more or node[1:2] == more)]
        if sum(int(node[-1]) if node[-1].isdecimal() else 1 for node in kinds) < count:
            return False
    return True


def parse_memory(text: str) -> int:
    """Return the MiB of an amount as Slurm takes it; 0 for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})([KMGT]?)B?", text.upper())
    return int(int(found[1]) * {"K": 1 / 1024, "M": 1, "": 1, "G": 1024, "T": 1024**2}[found[2]]) if found else 0
