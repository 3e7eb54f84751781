"""`dls connect` in front of the lab's host, in a mount namespace with the lab's names of hosts."""

from __future__ import annotations

from tests.faults.lab import NAME, Lab
from tests.support.connect_process import ConnectProcess


class Client(ConnectProcess):
    """A process that runs `dls connect --json` with the lab's options, and the events that it has written."""

    def __init__(self, lab: Lab, *more: str, port: int | None = None) -> None:
        self.lab = lab
        options = ("-F", lab.config, "--remote-dir", lab.remote_dir, *lab.options, *more, NAME)
        mount = f'mount --bind {lab.hosts} /etc/hosts && exec "$@"'
        super().__init__(lab.folder, *options, port=port, wrapper=("unshare", "-m", "sh", "-c", mount, "-"))
