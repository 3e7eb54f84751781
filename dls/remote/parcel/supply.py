"""A parcel in place of the internet: what `dls connect --from FILE` gives to an installation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dls.remote.host.closed import pack_command
from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.provision import OWN_INTERNET, Provision
from dls.remote.parcel import send
from dls.remote.parcel.archive import Parcel
from dls.remote.parcel.fit import check_fits
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection


class ParcelSupply:
    """The packages and the weights of one parcel, for one host: a `dls.remote.host.supply.Supply`."""

    def __init__(self, parcel: Parcel, connection: Connection, report: HostReport, options: ServerOptions) -> None:
        self._parcel = parcel
        self._connection = connection
        self._report = report
        self._options = options
        self._arrived: send.Arrived | None = None

    @property
    def provision(self) -> Provision:
        """What the installer is given: nothing but the files that are there."""
        return OWN_INTERNET

    @property
    def has_weights(self) -> bool:
        """Whether the parcel has the model that the server will look for."""
        model = self._parcel.manifest.model
        return bool(model) and self._options.model in (None, model)

    def prepare(self, plan: InstallPlan, phase: Phase) -> InstallPlan:
        """Send the packages, and return the plan that installs from them; raises a DlsError."""
        command = pack_command(self._report, plan, self._options)
        check_fits(self._parcel.manifest, self._report, self._options.engine, plan.requirements, command)
        self._arrived = send.send(self._connection, self._parcel, self._report, plan.requirements, phase)
        return send.adapt(plan, self._parcel, self._report, self._arrived)

    @contextlib.contextmanager
    def watch(self, what: str, total: int | None, phase: Phase) -> Iterator[None]:
        """Remove the packages from the host when they have been installed; all has been sent, so nothing is shown.

        After a failure they stay: the next attempt sends the rest.
        """
        yield
        if self._arrived is not None:
            phase.update("removing the parcel from the host")
            send.remove(self._connection, self._report, self._arrived)
            self._arrived = None

    def bring_weights(self, plan: InstallPlan, phase: Phase) -> list[str]:
        """Send the model where it is not there yet; there is nothing to tell of it."""
        send.push_weights(self._connection, self._parcel, self._options.models_path, phase)
        return []
