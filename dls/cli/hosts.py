"""`dls hosts`: the hosts that were used before, and what is kept for each."""

from __future__ import annotations

import click

from dls.errors import TargetError


def _complete_known(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from dls.cli.completion import complete_known_host

    return complete_known_host(context, parameter, incomplete)


@click.group(invoke_without_command=True)
@click.pass_context
def hosts(context: click.Context) -> None:
    """List the known hosts, show what is kept for one, or forget it.

    `dls connect HOST ... --save` keeps options for a host in a TOML file: a table for each host, whose keys are the
    long names of the options.

    Example: dls hosts show ann@gpuhost
    """
    if context.invoked_subcommand is None:
        context.invoke(list_hosts)


@hosts.command("list")
def list_hosts() -> None:
    """List the hosts that were used before or have a profile, the last one first."""
    from dls.cli.console import Console, show_table
    from dls.cli.known_hosts import describe_age, list_targets
    from dls.cli.profiles import find_problems
    from dls.remote.user.memory import used_before
    from dls.remote.user.profile_file import ProfileFile, render

    file, used = ProfileFile.read(), {host.target: host for host in used_before()}
    rows = []
    for target in list_targets():
        kept = ", ".join(f"{key} = {render(value)}" for key, value in file.hosts.get(target, {}).items())
        rows.append((target, describe_age(used[target].last) if target in used else "never", kept))
    if rows:
        show_table(Console(), ("host", "last used", "kept for it"), rows)
    else:
        click.echo("No host is known yet: dls connect ann@gpuhost", err=True)
    problems = [problem for host in file.hosts for problem in find_problems(file, host)]
    if problems:
        first, *others = problems
        first.detail = "\n".join(other.message for other in others)
        raise first


@hosts.command()
@click.argument("host", shell_complete=_complete_known)
def show(host: str) -> None:
    """Print what is kept for HOST, as it stands in the file."""
    from dls.cli.profiles import find_problems
    from dls.remote.user.profile_file import ProfileFile, render

    file = ProfileFile.read()
    if host not in file.hosts:
        raise TargetError(f"Nothing is kept for {host} in {file.path}.", f"Keep options: dls connect {host} --save")
    click.echo(f"# {file.path}, line {file.line_of(host)}", err=True)
    click.echo(f"[{render(host)}]")
    for key, value in file.hosts[host].items():
        click.echo(f"{key} = {render(value)}")
    for problem in find_problems(file, host):
        raise problem


@hosts.command()
@click.argument("host", shell_complete=_complete_known)
def forget(host: str) -> None:
    """Remove what is kept for HOST, and that it was used; its server, sessions and password stay."""
    from dls.remote.user import memory
    from dls.remote.user.profile_file import ProfileFile

    file = ProfileFile.read()
    had_profile = host in file.hosts
    if had_profile:
        file.without(host).write()
    if not (memory.forget(host) or had_profile):
        raise TargetError(f"The host {host} is not known here.", "`dls hosts` lists those that are.")
    click.echo(f"{host} is forgotten.", err=True)
