"""Whether the host has the model, before anything is installed for it."""

from __future__ import annotations

from dataclasses import replace

from dls.errors import EngineError
from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.scripts import render
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.options import LoginOptions, join_words
from dls.remote.ssh.target import Target
from dls.weights import describe_absence


def find_script(options: ServerOptions) -> str:
    """Return the script that prints where models are kept on the host, and the complete ones that would be used."""
    return render("find_model", "paths", MODELS_PATH=options.models_path or "", MODEL=options.model or "")


def check_model(connection: Connection, login: LoginOptions, options: ServerOptions, plan: InstallPlan) -> None:
    """Raise EngineError where a model is needed that is not there and may not be fetched.

    The server would find that out itself, after torch has been installed for it.
    """
    if not plan.make_environment or options.engine != "nninteractive" or options.network:
        return
    rows = [line.partition("\t") for line in connection.run(find_script(options), timeout=60).stdout.splitlines()]
    roots = [value for key, _, value in rows if key == "root"]
    if not roots or any(key == "model" for key, _, _ in rows):
        return
    where = connection.target.label
    push = push_command(connection.target, login, options)
    raise EngineError(
        f"{describe_absence(options.model, f'{roots[0]} on {where}')}, and --no-network forbids fetching it.",
        f"Send it there with `{push}`, name its folder with --model, or leave out --no-network.",
    )


def push_command(target: Target, login: LoginOptions, options: ServerOptions) -> str:
    """Return the command line that sends the default model to where the server would look for it."""
    login = replace(login, ssh_port=None if target.port == 22 else target.port)
    name = f"{target.user}@{target.label}" if target.user and not login.via else target.label
    more = ["-m", options.models_path] if options.models_path else []
    return f"{login.command('models push', name)} {join_words(more)}".strip()
