"""What tests of nnInteractive share: the tiny model, and marks for the warnings of the libraries.

Importing this module skips the tests of a module where torch or nninteractive is not installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.remote.host import scripts
from dls.remote.host.deploy import Deployment
from dls.remote.host.install import plan
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.prompts import NoPrompter

pytest.importorskip("torch", reason="torch is not installed: scripts/test installs it")
pytest.importorskip("nnInteractive", reason="nninteractive is not installed: scripts/test installs it")

MODEL = Path(__file__).parents[1] / "tiny_model" / "model"
IGNORED_WARNINGS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def share_environment(host: sshd.Server, remote_dir: str) -> None:
    """Give the host an environment with the packages of this one: to install torch there takes minutes."""
    login, server = LoginOptions(ssh_config=host.config, remote_dir=remote_dir), ServerOptions("nninteractive")
    phases, wanted = Phases(Silent()), requirements("nninteractive")
    connection = log_in("dls-demo", login, NoPrompter(), phases)
    report = Deployment.probe(login, server, connection, phases).report
    connection.close()
    environment = Path(plan(report, wanted, "").environment)
    if environment.exists():
        return
    environment.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "shared.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")) + "\n")
    verify = [str(environment / "bin" / "python"), "-I", "-S", "-c", scripts.read_verifier()]
    done = subprocess.run(
        [*verify, "complete", str(environment), "{}", "ranges"], check=True, capture_output=True, text=True
    )
    (environment / "complete.json").write_text(done.stdout)
    for path in (environment, *environment.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o077)
