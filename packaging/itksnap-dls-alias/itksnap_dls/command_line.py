"""The options of `itksnap-dls`, and the arguments of `dls serve` that mean the same: pure.

The options, their short forms and their defaults are those of `itksnap-dls` 0.1.6, except that the server listens on
this computer only unless it is told otherwise.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

DEFAULT_PORT = 8911
NO_NGROK = "there is no --ngrok here; `dls connect` reaches a server on another computer without a public address"
STAND_IN_NOTE = (
    "nnInteractive is not installed here, so the region engine stands in for it. "
    'To install it: pip install "dls[nninteractive]"'
)
ASKING_NOTE = (
    "DLS_SECRET is set, so this server asks for a secret, which ITK-SNAP's entry for a local computer can't send."
)


@dataclass(frozen=True)
class Plan:
    """What to run: the arguments of `dls`, and what the user should know before."""

    arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options of `itksnap-dls`; a wrong option ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m itksnap_dls",
        description="Run the segmentation server of dls with the options of itksnap-dls, as ITK-SNAP does for a local "
        "computer. The engine is nnInteractive where it is installed, else region stands in for it.",
        epilog="`dls serve --help` lists the options of dls itself.",
    )
    parser.add_argument("-p", "--port", type=_port, default=DEFAULT_PORT, help="port to listen on (default: 8911)")
    parser.add_argument(
        "-H",
        "--host",
        help="address to listen on (default: 127.0.0.1, so that other computers can't use the server; on other "
        "addresses it asks for a secret)",
    )
    parser.add_argument("-m", "--models-path", metavar="DIR", help="folder for models")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps"], help="device to compute on (default: the best one)")
    parser.add_argument(
        "-k", "--insecure", action="store_true", help="check no certificates when models are downloaded"
    )
    parser.add_argument("--no-network", action="store_true", help="never download anything")
    parser.add_argument("-N", "--ngrok", action="store_true", help="not supported: use `dls connect`")
    parser.add_argument("--use-colors", action="store_true", help="color the output even without a terminal")
    parser.add_argument("--setup-only", action="store_true", help="download and load what the engine needs, then end")
    parser.add_argument("--mock-models", action="store_true", help="use the region engine in place of nnInteractive")
    return parser


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 to 65535")
    return port


def plan(options: argparse.Namespace, *, has_nninteractive: bool, has_secret: bool) -> Plan:
    """Return the command of `dls` that means the same as these options.

    `has_nninteractive` says whether nnInteractive is installed, `has_secret` whether the environment has DLS_SECRET.
    """
    uses_region = options.mock_models or not has_nninteractive
    arguments = ["serve", "--port", str(options.port)]
    arguments += ["--engine", "region", "--stand-in"] if uses_region else ["--engine", "nninteractive"]
    notes = [] if has_nninteractive or options.mock_models else [STAND_IN_NOTE]
    if options.device is not None and not uses_region:
        arguments += ["--device", options.device]
    elif options.device not in (None, "cpu"):
        notes.append(f"The region engine computes on the CPU, so --device {options.device} changes nothing.")
    # Written with "=", since a value may begin with a hyphen.
    arguments += [f"--host={options.host}"] if options.host is not None else []
    arguments += [f"--models-path={options.models_path}"] if options.models_path is not None else []
    for name in ("insecure", "no_network", "use_colors", "setup_only"):
        if getattr(options, name):
            arguments.append(f"--{name.replace('_', '-')}")
    if has_secret and options.host is None and not options.setup_only:
        notes.append(ASKING_NOTE)
    return Plan(tuple(arguments), tuple(notes))
