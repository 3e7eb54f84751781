"""What Slurm's states and reasons mean, in plain words: pure."""

from __future__ import annotations

import re

REASONS = {
    "Resources": "waits for a free GPU",
    "Priority": "waits behind others",
    "None": "waits for Slurm's next look",
    "BeginTime": "waits because it was put back into the queue: Slurm lets two minutes pass",
    "Dependency": "waits for another job",
    "JobHeldUser": "is held by you; scontrol release lets it go on",
    "JobHeldAdmin": "is held by the cluster's admins",
    "ReqNodeNotAvail": "waits for nodes that are reserved, down, or in maintenance",
    "Reservation": "waits for a reservation to begin",
    "PartitionDown": "waits for a partition that is closed",
    "PartitionInactive": "waits for a partition that is closed",
    "NodeDown": "waits for a node that is down",
    "Licenses": "waits for a licence",
    "Prolog": "waits for its node to be made ready",
    "JobArrayTaskLimit": "waits for your other jobs",
}
"""What a reason means, after "The job"."""
PREFIXES = (
    (("QOSMax", "QOSGrp", "QOSUsage"), "waits because you, or your group, have all that your QOS allows"),
    (("AssocMax", "AssocGrp", "MaxGRESPerAccount"), "waits because your account's jobs have all that it may have"),
    (("ReqNodeNotAvail", "NodeDown"), "waits for nodes that are reserved, down, or in maintenance"),
)
"""The same for reasons that come in many kinds, by their beginning."""
HOPELESS = {
    "PartitionTimeLimit": "--time is longer than the partition allows",
    "PartitionNodeLimit": "it asks for more than the partition allows",
    "InvalidAccount": "--account is needed, or names an account that you may not use",
    "InvalidQOS": "--qos is needed, or names one that you may not use",
    "BadConstraints": "no node has what it asks for",
    "AccountNotAllowed": "the partition is not open to your account",
    "QOSNotAllowed": "the partition is not open to your QOS",
    "QOSTimeLimit": "--time is longer than your QOS allows",
    "AssociationTimeLimit": "--time is longer than your account allows",
}
"""Reasons of jobs that will never start as they were submitted, as a clause."""
LIMIT_OF_ONE = re.compile(r"(QOS|Assoc)(?:(?P<time>MaxWall\w*PerJob)|Max\w+Per(?:Job|Node)|(?P<least>Min[A-Z]))")
"""Reasons that tell of a limit for each job alone: no end of other jobs will change it."""
ENDS = {
    "TIMEOUT": "its time is over",
    "DEADLINE": "its time is over",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node failed",
    "PREEMPTED": "a job with a higher priority took its place",
    "CANCELLED": "it was cancelled",
    "OUT_OF_MEMORY": "it used more memory than it had; --mem asks for more",
    "FAILED": "its batch script failed",
    "COMPLETED": "nobody needed it any more",
}
"""How a job ended, by Slurm's state, as a clause."""


def describe_reason(reason: str) -> str:
    """Return why a job waits, after "The job"."""
    if reason in REASONS:
        return REASONS[reason]
    for prefixes, words in PREFIXES:
        if reason.startswith(prefixes):
            return words
    return f"waits; Slurm says {reason}" if reason else "waits"


def hopeless(reason: str) -> str:
    """Return why a job that waits for this reason will never start, as a clause; empty where it may."""
    if reason in HOPELESS or (limit := LIMIT_OF_ONE.match(reason)) is None:
        return HOPELESS.get(reason, "")
    whose = "QOS" if limit[1] == "QOS" else "account"
    if limit["time"]:
        return f"its time is longer than your {whose} allows; --time asks for less"
    return f"it asks for {'less' if limit['least'] else 'more'} than your {whose} allows one job to have"
