"""The engine's weights, fetched over a loan before the server starts: the server outlives the loan."""

from __future__ import annotations

import json
import time

from dls import weights
from dls.errors import EngineError, LinkError
from dls.remote.host.install import SILENCE_SECONDS, InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.reach import may_need_weights
from dls.remote.host.refusals import raise_refusal
from dls.remote.host.scripts import read_model_fetcher, render
from dls.remote.loan.loan import Loan
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection


def fetch_script(plan: InstallPlan, options: ServerOptions) -> str:
    """Return the script that fetches the model which a server with these options loads, unless it is there."""
    spec = {
        "model": options.model,
        "path": options.models_path,
        "insecure": options.insecure,
        "ca_bundle": options.ca_bundle,
    }
    return render(
        "fetch_model",
        "private",
        RUN=plan.run_dir,
        PYTHON=plan.interpreter,
        CODE=plan.code,
        PROGRAM=read_model_fetcher(),
        SPEC=json.dumps(spec),
    )


def fetch_weights(
    connection: Connection, plan: InstallPlan, options: ServerOptions, loan: Loan, phase: Phase
) -> list[str]:
    """Fetch the weights that the server needs over the loan; `plan` has been installed.

    Returns notes for the user: the licence of what was fetched; none where the host had it, or the engine has none.
    Raises EngineError where they can't be fetched, HostError for a directory of another user.
    """
    if not may_need_weights(options):
        return []
    rows: dict[str, list[str]] = {}

    def read(line: str) -> None:
        kind, *fields = loan.redact(line).split("\t")
        rows[kind] = fields
        if kind == "progress" and fields:
            phase.update(fields[0])

    phase.update("fetching the weights")
    with loan.shown(phase, "weights"):
        completed = connection.run(
            loan.wrap(fetch_script(plan, options)), on_line=read,
            timeout=SILENCE_SECONDS, last_moved=lambda: time.monotonic() - loan.traffic.silent_for,
        )  # fmt: skip
    raise_refusal(connection.target.label, completed, plan.run_dir)
    if completed.status:
        if not connection.is_active():
            raise LinkError(f"The connection to {connection.target.label} was lost.", "Run the command again.")
        message, hint = [*rows.get("failed", []), "", ""][:2]
        raise EngineError(
            " ".join(part for part in (message or "The weights could not be fetched.", loan.explain()) if part),
            hint or "Run the command again: it continues the download.",
            "" if message else loan.redact(completed.stderr),
        )
    if "licence" not in rows:
        return []
    return [f"Licence of the weights: {' '.join(rows['licence'])}. Please cite: {weights.CITATION}"]
