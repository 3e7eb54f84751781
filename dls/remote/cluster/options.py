"""What a job is to have, and whether there is to be one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from dls.errors import TargetError
from dls.remote.cluster.durations import parse_minutes

MODES = ("auto", "slurm", "here")
"""Whether the server goes into a job: where a host has a scheduler and no GPU of its own, always, or never."""
OWN = ("job-name", "requeue")
"""Options of `sbatch` without which a job would not be found again, or would come back under the same id."""


@dataclass(frozen=True)
class ClusterOptions:
    """Options of the job in which the server runs; what is not named is left to the scheduler's defaults."""

    mode: str = "auto"
    """One of `MODES`."""
    time: str | None = None
    """How long the job may run: `4h`, `90m`, `2d`, or as the scheduler writes it, `1-12:00:00`."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    """Generic resources, of which GPUs are one; `none` for none, None for what the engine needs."""
    cpus: int | None = None
    mem: str | None = None
    """Memory, as the scheduler writes it: `16G`."""
    constraint: str | None = None
    """Features that the node must have."""
    sbatch_options: tuple[str, ...] = ()
    """Other options of `sbatch`, each as `name=value` or `name`."""
    renew: bool = False
    """Whether a job's successor is submitted before its end, as long as a client is connected."""

    @property
    def minutes(self) -> int | None:
        """The time in whole minutes, the unit of the schedulers; raises TargetError for what is no time."""
        return None if self.time is None else parse_minutes(self.time)

    @property
    def named(self) -> tuple[str, ...]:
        """The options of the command line that were given and are about a job."""
        fields = ("time", "partition", "account", "qos", "gres", "cpus", "mem", "constraint", "renew")
        given = [f"--{name}" for name in fields if getattr(self, name)]
        return (*given, *(["--sbatch-option"] if self.sbatch_options else []))

    def check(self) -> None:
        """Raise TargetError for what is wrong whatever the cluster, before anybody is asked for a code."""
        if self.mode not in MODES:
            raise TargetError(f"There is no mode {self.mode!r}.", f"Choose one of: {', '.join(MODES)}.")
        _ = self.minutes
        for option in self.sbatch_options:
            name = option.lstrip("-").partition("=")[0]
            # `sbatch` takes the beginnings of names, too.
            if re.match(r"-J|-?J(=|$)", option) or (len(name) > 2 and any(own.startswith(name) for own in OWN)):
                raise TargetError(
                    f"--sbatch-option {option} can't be used: jobs are found by their name, and never requeued.",
                    "Leave it out.",
                )

    def filled(self, needs_gpu: bool) -> ClusterOptions:
        """Return these options with the generic resources that the engine needs, unless some are named."""
        return replace(self, gres=self.gres or ("gpu:1" if needs_gpu else "none"))
