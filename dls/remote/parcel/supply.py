"""A parcel in place of the internet: what `dls connect --from FILE` gives to an installation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.provision import OWN_INTERNET, Provision
from dls.remote.parcel import send
from dls.remote.parcel.archive import Parcel
from dls.remote.parcel.fit import check_fits
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection

if TYPE_CHECKING:
    from dls.remote.host.supply import Supply


class ParcelSupply:
    """The packages and the weights of one parcel, for one host."""

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
        check_fits(self._parcel.manifest, self._report, self._options.engine, plan.requirements)
        self._arrived = send.send(self._connection, self._parcel, self._report, plan.requirements, phase)
        return send.adapt(plan, self._parcel, self._report, self._arrived)

    def watch(self, what: str, total: int | None, phase: Phase) -> AbstractContextManager[None]:
        """Show nothing more: all has been sent."""
        return contextlib.nullcontext()

    def bring_weights(self, plan: InstallPlan, phase: Phase) -> list[str]:
        """Send the model where it is not there yet; there is nothing to tell of it."""
        send.push_weights(self._connection, self._parcel, self._options.models_path, phase)
        return []

    def close(self) -> None:
        """Remove the parcel's packages from the host: they have been installed."""
        if self._arrived is not None:
            send.remove(self._connection, self._report, self._arrived)


@contextlib.contextmanager
def supply_from(parcel: Parcel, connection: Connection, report: HostReport, options: ServerOptions) -> Iterator[Supply]:
    """Give the parcel to an installation; its packages are removed from the host after one that has succeeded.

    After a failure they stay: the next attempt sends the rest.
    """
    supply = ParcelSupply(parcel, connection, report, options)
    yield supply
    supply.close()
