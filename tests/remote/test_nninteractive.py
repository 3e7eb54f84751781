"""nnInteractive through `dls connect`: torch in the remote environment, a real session on a tiny model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dls.demo import sshd
from dls.errors import EngineError, HostError
from dls.gpus import Gpu
from dls.remote.host.install import plan
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport
from dls.remote.host.torch_builds import constrain_torch, torch_backend
from dls.remote.session import LoginOptions, ServerOptions, Session, connect
from tests.remote.host.test_install import REPORT, python
from tests.support.itksnap import ItkSnap
from tests.support.synthetic import dice, ellipsoid, noisy

MODEL = Path(__file__).parents[1] / "tiny_model" / "model"
WANTED = requirements("nninteractive")


def with_driver(driver: str) -> HostReport:
    """Return the report of a host with an A100 and this driver."""
    return replace(REPORT, gpus=(Gpu(0, "NVIDIA A100", 40000, 39000, driver, "8.0"),), pythons=(python((3, 12, 0)),))


def test_the_build_of_torch_fits_the_host() -> None:
    """It is CUDA's where there is a GPU and never where there is none; each has its own environment."""
    gpu, none = with_driver("580.65.06"), replace(REPORT, pythons=(python((3, 12, 0)),))
    assert torch_backend(gpu, WANTED) == "auto" and torch_backend(none, WANTED) == "cpu"
    assert torch_backend(gpu, requirements("region")) == ""
    names = {
        plan(report, WANTED, "c").environment for report in (replace(none, free_mib=9999), replace(gpu, free_mib=9999))
    }
    assert len(names) == 2 and {name.rsplit("-", 1)[1] for name in names} == {"cpu", "cuda"}


def test_the_driver_constrains_torch() -> None:
    """Newer wheels are built for CUDA 13, which older drivers do not run; a driver that is too old is an error."""
    packages = ("numpy", "torch>=2.6,!=2.9.*")
    assert constrain_torch(packages, with_driver("580.65.06")) == packages
    assert constrain_torch(packages, with_driver("550.54.15"))[1] == "torch>=2.6,!=2.9.*,<2.11"
    assert constrain_torch(packages, REPORT) == packages
    with pytest.raises(HostError, match="470"):
        constrain_torch(packages, with_driver("470.57.02"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_over_openssh_with_torch_in_the_remote_environment(short_folder: Path, own_user_folder: Path) -> None:
    """It is installed, launched, loaded and answers a click; a missing or broken model is reported in one sentence."""
    torch = pytest.importorskip("torch", reason="torch is not installed: scripts/test installs it")
    if torch.version.cuda is not None:
        pytest.skip("pip has no CPU build of torch here, and CUDA is never put on a host without a GPU")
    constraint = short_folder / "constraint.txt"
    constraint.write_text(f"torch=={torch.__version__.split('+')[0]}\n")
    with sshd.running(short_folder, options=f"SetEnv PIP_CONSTRAINT={constraint}") as server:
        login = LoginOptions(ssh_config=server.config, remote_dir=f"{short_folder}/host")

        def connect_with(model: str, *, network: bool = True) -> Session:
            options = ServerOptions("nninteractive", model=model, network=network)
            return connect("dls-demo", server=options, login=login, accept_licence=True)

        with pytest.raises(EngineError, match="--no-network"):
            connect_with("nnInteractive_none", network=False)
        broken = short_folder / "broken"
        shutil.copytree(MODEL, broken)
        torch.save({}, broken / "fold_0" / "checkpoint_final.pth")
        with pytest.raises(EngineError, match="can't be loaded"):
            connect_with(str(broken))
        session = connect_with(str(MODEL))
        try:
            assert session.state.device == "cpu" and "engine" in session.seconds
            truth = ellipsoid((96, 128, 128), (48, 64, 64), (12, 15, 14))
            image = noisy(truth, 6, np.random.default_rng(0))
            snap = ItkSnap(session.port)
            snap.start("nnInteractive")
            assert snap.upload(image).status == 200
            assert dice(snap.mask(snap.point(48, 64, 64)), truth) > 0.95
        finally:
            session.close(stop_server=True)
