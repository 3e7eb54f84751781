"""`dls doctor`: what stands between this computer and a server on a host, in a table."""

from __future__ import annotations

from typing import Any

import click

from dls.cli.help import GroupedCommand
from dls.cli.login_options import build_login_options, login_options
from dls.cli.options import engine_options
from dls.cli.target_argument import optional_target_argument


@click.command(cls=GroupedCommand)
@optional_target_argument
@login_options
@engine_options
@click.option("--gpu", type=click.IntRange(0), help="Number of the GPU that would be used.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def doctor(target: str, gpu: int | None, as_json: bool, **options: Any) -> None:
    """Look at the way to HOST from end to end, and change nothing.

    Exits with 0 if `dls connect` with the same options would succeed. Without HOST, only this computer is looked at.

    Example: dls doctor ann@gpuhost
    """
    from dls.cli.connect_options import build_server_options
    from dls.cli.console import show_findings, terminal
    from dls.remote.doctor.examination import examine

    unused = {"session_dir": None, "session_ttl": 7.0, "session_disk": None, "idle": 30.0}
    server = build_server_options(gpu, {**options, **unused})
    with terminal() as (_, reporter, prompter):
        findings = examine(target, build_login_options(options), server, prompter, reporter)
    show_findings(findings, as_json=as_json)
    click.get_current_context().exit(findings.exit_code)
