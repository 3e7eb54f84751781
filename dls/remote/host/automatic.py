"""Which engine runs on a host where the options say `auto`: pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dls.engine_choice import AUTO, NNINTERACTIVE, REGION, EngineChoice, Machine, Wishes, choose, choose_by_wishes
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport

NAMES = {NNINTERACTIVE: "nnInteractive", REGION: "region"}
"""Engines by the names that people know them by."""


def choose_engine(report: HostReport, options: ServerOptions) -> EngineChoice | None:
    """Return the engine for the host; None where that can't be told before its GPUs are known.

    A server that fits and runs already decides: its sessions go on, and nobody waits for another one.
    """
    if options.engine != AUTO:
        return EngineChoice(options.engine)
    if decided := choose_by_wishes(_wishes(options)):
        return decided
    running = {state.request for state in report.servers}
    for engine in (NNINTERACTIVE, REGION):
        if running & {accepted.key for accepted in replace(options, engine=engine).accepted}:
            return EngineChoice(engine, f"{NAMES[engine]}, whose server was running there already")
    if not report.knows_gpus:
        return None
    where = "the job" if report.job else "the host"
    machine = Machine(report.system, report.machine, report.gpus, report.gpus_hang, where)
    return choose(machine, _wishes(options))


def settle_early(options: ServerOptions, packed: str | None = None) -> tuple[ServerOptions, EngineChoice | None]:
    """Return the options with the engine that they, or a parcel with the `packed` one, decide by themselves, and why.

    Where they don't, they are as they were, and there is no choice.
    """
    if options.engine != AUTO:
        return options, None
    decided = EngineChoice(packed) if packed else choose_by_wishes(_wishes(options))
    return (replace(options, engine=decided.engine) if decided else options), decided


def settle(
    options: ServerOptions, report: HostReport, look_at_gpus: Callable[[], HostReport]
) -> tuple[ServerOptions, EngineChoice, HostReport]:
    """Return the options with the engine for the host, why it is that one, and the report as it is for that engine."""
    choice = choose_engine(report, options)
    if choice is None:
        report = look_at_gpus()
        choice = choose_engine(report, options) or EngineChoice(REGION, "region: the host's GPUs are not known")
    space = requirements(choice.engine).disk_on(bool(report.gpus))
    if options.engine == AUTO and report.storage == "full" and report.free_mib >= space:
        # The probe looked for the room that the larger engine needs.
        report = replace(report, storage="", places=())
    return replace(options, engine=choice.engine), choice, report


def _wishes(options: ServerOptions) -> Wishes:
    return Wishes(options.device, options.gpu, options.stand_in, options.model)
